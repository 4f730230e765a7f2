"""Drawings as SVG: what they hold can be counted."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from specc.cli import drawings
from specc.runtime.block import Layers
from specc.runtime.tree import Tree

TREE = Tree.from_paths([(0,), (1,), (0, 0), (0, 1), (0, 0, 0)])


def elements(svg: str, tag: str) -> list[ElementTree.Element]:
    """Return the elements of a kind, in order."""
    return list(ElementTree.fromstring(svg).iter(f"{{http://www.w3.org/2000/svg}}{tag}"))


def test_each_slot_is_a_circle_below_its_parent() -> None:
    svg = drawings.tree(TREE)
    assert [text.text for text in elements(svg, "text")] == ["0", "1", "2", "3", "4", "5"]
    places = [(float(circle.get("cx", "")), float(circle.get("cy", ""))) for circle in elements(svg, "circle")]
    for slot, parent in enumerate(TREE.parents[1:], 1):
        assert places[slot][1] == places[parent][1] + drawings.STEP
    (edges,) = elements(svg, "path")
    assert edges.get("d", "").count("M") == TREE.slots - 1
    assert len(set(places)) == TREE.slots


def test_leaves_stand_side_by_side_and_a_parent_above_the_middle_of_its_children() -> None:
    svg = drawings.tree(TREE)
    x = [float(circle.get("cx", "")) / drawings.STEP - 0.5 for circle in elements(svg, "circle")]
    assert (x[5], x[4], x[2]) == (0, 1, 2)  # The leaves, from left to right.
    assert (x[3], x[1], x[0]) == (0, 0.5, 1.25)


def test_a_tree_deeper_than_pythons_stack_is_drawn() -> None:
    assert len(elements(drawings.tree(Tree.chain(2000)), "circle")) == 2000


def test_the_matrix_has_a_filled_cell_for_each_slot_that_a_slot_sees() -> None:
    cells, grid = elements(drawings.mask(TREE), "path")
    areas = [int(width) for width in re.findall(r"h(\d+)v", cells.get("d", ""))]
    assert sum(areas) == drawings.CELL * int(TREE.mask.sum())
    assert grid.get("d", "").count("M") == 2 * (TREE.slots + 1)


def test_layers_that_run_are_filled_and_those_behind_the_exit_dashed() -> None:
    sublayers = drawings.run_of(Layers((1,), (1, 2), 3), 4)
    assert sublayers == [(True, True, True), (False, False, True), (True, False, True), (True, True, False)]
    halves = elements(drawings.layers(sublayers), "rect")
    filled = [half.get("fill") != "none" for half in halves]
    assert filled == [True, True, False, False, True, False, False, False]
    assert [half.get("stroke-dasharray") is not None for half in halves] == [False] * 6 + [True] * 2


@pytest.mark.parametrize("alone", [True, False])
def test_only_a_file_of_its_own_says_its_colours(alone: bool) -> None:
    svg = drawings.tree(TREE, alone)
    assert ("color-scheme: light dark" in svg) == alone
    assert "script" not in svg and "href" not in svg
