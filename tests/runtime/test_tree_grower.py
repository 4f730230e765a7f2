"""The calls that grow a tree: which rows each slot sees. test_engine.py runs such calls."""

from __future__ import annotations

from specc.runtime.call import Growth
from specc.runtime.tree_grower import TreeGrower


def test_a_slot_sees_its_ancestors_where_earlier_calls_left_them() -> None:
    """Slots 0 to 4, of which 3 is below 1 and 4 below 2. Call by call their rows are 0, then 2 and 1, then 4 and 3."""
    parents, grower = [-1, 0, 0, 1, 2], TreeGrower()
    assert grower.grow([0], parents) == Growth((0,), 0, (b"\1",))
    assert grower.grow([2, 1], parents) == Growth((2, 1), 1, (b"\1\1", b"\1\0\1"))
    assert grower.grow([4, 3], parents) == Growth((4, 3), 3, (b"\1\1\0\1", b"\1\0\1\0\1"))
