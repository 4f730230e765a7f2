"""The user's consent to run native code of a bundle."""

from __future__ import annotations

from ..bundle import Bundle
from ..errors import BackendError


def require_trust(bundle: Bundle, backend: str) -> None:
    """Refuse engines that are native code, unless the user allowed them.

    Args:
        bundle: whose engines.
        backend: the name of their backend.

    Raises:
        BackendError: the bundle was opened without `allow_native_code`.
    """
    if not bundle.allow_native_code:
        raise BackendError(
            f"{bundle.path} has engines by {backend}, which run native code of the bundle's author; if you trust it, "
            "give --allow-native-code, or allow_native_code=True in Python"
        )
