"""`toys` and `chance` are importable from every test; hypothesis tries the same examples on every machine."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
settings.register_profile("specc", derandomize=True, deadline=None)
settings.load_profile("specc")
