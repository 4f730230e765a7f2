import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from collections.abc import Iterator

import pytest
import specc_kernels


@pytest.fixture(params=specc_kernels.variants())
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each variant that this processor runs, in turn."""
    fastest = specc_kernels.describe().active
    specc_kernels.limit(request.param)
    yield request.param
    specc_kernels.limit(fastest)
