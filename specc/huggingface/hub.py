"""Ask the hub whether it can be reached, before transformers tries and waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from specc.runtime.errors import CaptureError

PATIENCE = 4.0  # seconds to wait for the hub's first answer


def hub_options(source: str, revision: str | None) -> dict[str, Any]:
    """Return keyword arguments for `from_pretrained` of a hub id.

    transformers retries for half a minute where there is no network. One question tells first.

    Returns:
        `local_files_only` where the hub cannot be reached and the checkpoint is in the local cache.

    Raises:
        CaptureError: the hub cannot be reached and the checkpoint is not in the local cache.
    """
    import huggingface_hub
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    try:
        in_cache = isinstance(try_to_load_from_cache(source, "config.json", revision=revision), str)
    except huggingface_hub.errors.HFValidationError as e:
        raise CaptureError(f"{source!r} is neither a directory here nor a hub id; check its spelling") from e
    if not constants.HF_HUB_OFFLINE:
        try:
            get_hf_file_metadata(hf_hub_url(source, "config.json", revision=revision), timeout=PATIENCE)
            return {}
        except huggingface_hub.errors.HfHubHTTPError:
            return {}  # the hub answered: transformers says what it answered
        except Exception as e:
            reason = f"the hub cannot be reached ({type(e).__name__})"
    else:
        reason = "HF_HUB_OFFLINE is set"
    if in_cache:
        return {"local_files_only": True}
    raise CaptureError(
        f"{source} is not in the local cache, and {reason}; connect, or name a directory that holds the checkpoint"
    )


def local_head(source: str) -> Path:
    """Return the directory of a trained head, which is copied from the hub if `source` is an id and no path.

    Raises:
        CaptureError: the hub cannot be reached, or has no such head.
    """
    path = Path(source).expanduser()
    if path.exists() or source.count("/") != 1 or source.startswith((".", "~", "/")):
        return path
    import huggingface_hub

    try:
        options = hub_options(source, None)
        files = ["config.json", "*.safetensors"]  # and no pickle
        return Path(huggingface_hub.snapshot_download(source, allow_patterns=files, **options))
    except CaptureError as e:
        raise CaptureError(f"there is no directory {source}, and as an id on the hub: {e}") from e
    except (huggingface_hub.errors.HfHubHTTPError, OSError) as e:
        reason = next(iter(str(e).splitlines()), type(e).__name__)
        raise CaptureError(f"{source} is no directory here, and the hub does not give it: {reason}") from e
