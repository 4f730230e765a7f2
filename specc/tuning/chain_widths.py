"""Chains of several widths: each step runs the narrowest that holds its draft."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from specc.runtime.manifest import Manifest
from specc.runtime.tree import Tree


def chains(manifest: Manifest) -> dict[int, str]:
    """The target's engines that verify chains and that every backend of the bundle has, by their slots."""
    one = {e.backend: e.block for e in manifest.engines if e.name == "decode"}
    held = [
        (e.block.slots, e.name)
        for e in manifest.engines
        if isinstance(e.block.topology, Tree) and e.block.topology.is_chain
        if replace(e.block, topology=one[e.backend].topology) == one[e.backend]
    ]
    return dict(sorted(c for c in held if held.count(c) == len(one)))


def widened(manifest: Manifest, names: Mapping[int, str]) -> Manifest:
    """Recipes that verify chains of several widths may do so with all that the bundle has."""
    widths = list(names.values())
    recipes = tuple(
        replace(r, verify=tuple(widths[: widths.index(r.verify[-1]) + 1]))
        if len(r.verify) > 1 and set(r.verify) <= set(widths)
        else r
        for r in manifest.recipes
    )
    return replace(manifest, recipes=recipes)
