"""Find the chains of several widths in a bundle, and let recipes verify with all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from specc.runtime.manifest import Manifest
from specc.runtime.recipe import Recipe
from specc.runtime.tree import Tree


def chains(manifest: Manifest) -> dict[int, str]:
    """Find the target's engines that verify chains, among them plain decoding.

    Returns:
        The names of those engines that every backend of the bundle has, by their slots, narrowest first.
    """
    decode = {engine.backend: engine.block for engine in manifest.engines if engine.name == "decode"}
    chain_engines = [
        (engine.block.slots, engine.name)
        for engine in manifest.engines
        if isinstance(engine.block.topology, Tree) and engine.block.topology.is_chain
        if replace(engine.block, topology=decode[engine.backend].topology) == decode[engine.backend]
    ]
    return dict(sorted(chain for chain in chain_engines if chain_engines.count(chain) == len(decode)))


def with_all_widths(manifest: Manifest, engines: Mapping[int, str]) -> Manifest:
    """Let each recipe that verifies chains of several widths use every width up to its widest.

    Args:
        manifest: the manifest whose recipes change.
        engines: the bundle's chains, by their slots, narrowest first.
    """
    names = list(engines.values())

    def extend(recipe: Recipe) -> Recipe:
        if len(recipe.verify) < 2 or not set(recipe.verify) <= set(names):
            return recipe
        widest = names.index(recipe.verify[-1])
        return replace(recipe, verify=tuple(names[: widest + 1]))

    return replace(manifest, recipes=tuple(extend(recipe) for recipe in manifest.recipes))
