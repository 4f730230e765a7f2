import os
import sys
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.path.insert(0, str(Path(__file__).parent))  # operator_graphs.py lies in this folder

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

collect_ignore_glob: list[str] = []
VARIANTS: tuple[str, ...] = ()
if find_spec("specc_kernels"):
    import specc_kernels

    VARIANTS = specc_kernels.variants()
else:
    collect_ignore_glob.append("test_*.py")


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each variant that this processor runs, in turn."""
    fastest = specc_kernels.describe().active
    specc_kernels.limit(request.param)
    yield request.param
    specc_kernels.limit(fastest)
