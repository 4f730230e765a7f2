"""Drawings as SVG: a tree of slots, its mask as a matrix, and the layers that an engine runs.

A drawing is one `<svg>` element without scripts or links. It has the text colour of the page around it, light or dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from specc.runtime.block import Layers
from specc.runtime.tree import Tree

ACCENT, FAINT = "#3f8cd6", "#8b909966"
STEP, RADIUS = 30, 11  # between slots of a tree, and of a slot
CELL = 12  # of a mask
LAYER_WIDTH, LAYER_HEIGHT, GAP = 9, 10, 2  # of a layer's half: its attention, or its MLP
# A file of its own is opened on white or on black, as the reader's system is.
ALONE = "color-scheme: light dark; color: light-dark(#1c1f24, #e4e6ea)"


class Sublayers(NamedTuple):
    """The halves of one layer: whether an engine runs each.

    Attributes:
        attention: whether its attention runs.
        mlp: whether its MLP runs.
        reached: whether the engine gets to this layer; if not, it exits before.
    """

    attention: bool
    mlp: bool
    reached: bool


def tree(parents: Tree, alone: bool = False) -> Markup:
    """Draw a tree: slot 0 on top, each slot below its parent.

    Args:
        parents: the tree.
        alone: whether the drawing is a file of its own.
    """
    columns = _columns(parents)
    places = [(STEP * (x + 0.5), STEP * (depth + 0.5)) for x, depth in zip(columns, parents.depth, strict=True)]
    edges = "".join(
        f"M{places[parent][0]:g} {places[parent][1]:g}L{x:g} {y:g}"
        for (x, y), parent in zip(places[1:], parents.parents[1:], strict=True)
    )
    slots = "".join(
        f'<circle cx="{x:g}" cy="{y:g}" r="{RADIUS}" fill="{ACCENT}"/>'
        f'<text x="{x:g}" y="{y + 3.5:g}" fill="#fff">{slot}</text>'
        for slot, (x, y) in enumerate(places)
    )
    width, height = STEP * (max(columns) + 1), STEP * (int(max(parents.depth)) + 1)
    lines = f'<path d="{edges}" fill="none" stroke="currentColor" stroke-opacity=".5"/>'
    letters = f'<g font-size="10" text-anchor="middle">{slots}</g>'
    return _svg(width, height, f"tree of {parents.slots} slots", lines + letters, alone)


def mask(parents: Tree) -> Markup:
    """Draw the mask of a tree as a matrix: row i has a filled cell for each slot that slot i sees."""
    size = CELL * parents.slots
    cells = "".join(
        f"M{CELL * start} {CELL * row}h{CELL * (end - start)}v{CELL}h{-CELL * (end - start)}z"
        for row, visible in enumerate(parents.mask)
        for start, end in _runs(visible)
    )
    grid = "".join(f"M0 {at}H{size}M{at} 0V{size}" for at in range(0, size + 1, CELL))
    paths = f'<path d="{cells}" fill="{ACCENT}"/><path d="{grid}" stroke="{FAINT}"/>'
    return _svg(size, size, f"mask of {parents.slots} slots", paths)


def layers(sublayers: Sequence[Sublayers]) -> Markup:
    """Draw layers from left to right: attention above, MLP below; filled if it runs, dashed if it is not reached."""
    parts = []
    for number, layer in enumerate(sublayers):
        x = number * (LAYER_WIDTH + GAP) + 1
        dash = "" if layer.reached else ' stroke-dasharray="2 2"'
        for half, runs in enumerate((layer.attention, layer.mlp)):
            y = 1 + half * (LAYER_HEIGHT + 1)
            fill = ACCENT if runs and layer.reached else "none"
            size = f'width="{LAYER_WIDTH}" height="{LAYER_HEIGHT}"'
            parts.append(f'<rect x="{x}" y="{y}" {size} fill="{fill}" stroke="{ACCENT}"{dash}/>')
    width, height = len(sublayers) * (LAYER_WIDTH + GAP), 2 * LAYER_HEIGHT + 3
    return _svg(width, height, f"{len(sublayers)} layers", "".join(parts))


def run_of(block: Layers, count: int) -> list[Sublayers]:
    """Return what a block runs of each of a model's `count` layers."""
    last = count if block.exit_after is None else block.exit_after
    return [
        Sublayers(number not in block.skip_attention, number not in block.skip_mlp, number < last)
        for number in range(count)
    ]


def _columns(parents: Tree) -> list[float]:
    """Give each leaf the next column, and each other slot the middle of its children's."""
    children: list[list[int]] = [[] for _ in range(parents.slots)]
    for slot, parent in enumerate(parents.parents[1:], 1):
        children[parent].append(slot)
    columns = [0.0] * parents.slots
    free, pending = 0, [0]
    order = []
    while pending:  # A tree may be deeper than Python's stack.
        slot = pending.pop()
        order.append(slot)
        if not children[slot]:
            columns[slot] = free
            free += 1
        pending += reversed(children[slot])
    for slot in reversed(order):
        if children[slot]:
            columns[slot] = (columns[children[slot][0]] + columns[children[slot][-1]]) / 2
    return columns


def _runs(visible: np.ndarray) -> list[tuple[int, int]]:
    """Return the beginnings and ends of the runs of true values in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], visible.astype(np.int8), [0]))))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _svg(width: float, height: float, label: str, content: str, alone: bool = False) -> Markup:
    """Wrap elements of a drawing. `label` says what it shows to those who cannot see it."""
    style = f' style="{ALONE}"' if alone else ""
    head = f'xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}"{style}'
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    return Markup(f"<svg {head} {size}>{content}</svg>")
