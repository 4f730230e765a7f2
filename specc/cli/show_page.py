"""Write the page of `specc show --html`: what a bundle holds, drawn, in one file that needs no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from specc.cli import drawings
from specc.cli.console import size
from specc.runtime.block import Frontier, GuessTree, Parents
from specc.runtime.bundle import Bundle
from specc.runtime.errors import BundleError
from specc.runtime.manifest import EngineSpec, Manifest
from specc.runtime.tree import Tree
from specc.runtime.width_invariance import exactness
from specc.tuning.plan import TunePlan

LARGEST_TREE = 128  # Trees of more slots are named and not drawn.
TARGET = "target"


class LayersRow(NamedTuple):
    """Engines that run the layers of a model in one way."""

    engines: tuple[str, ...]
    model: str
    weights: str
    drawing: Markup | None
    words: str


class TreeRow(NamedTuple):
    """Engines with one tree, and its drawings, if it is small enough."""

    engines: tuple[str, ...]
    slots: int
    tree: Markup | None
    mask: Markup | None


def write(bundle: Bundle, total_bytes: int, file: Path) -> None:
    """Write the page of a bundle to a file.

    Args:
        bundle: the bundle.
        total_bytes: the size of all its files.
        file: the file.
    """
    environment = Environment(loader=PackageLoader("specc.cli", "."), autoescape=True, undefined=StrictUndefined)
    environment.filters["size"] = size
    manifest = bundle.manifest
    plan = TunePlan.of(manifest)
    files = sorted(manifest.files.items(), key=lambda item: -item[1].bytes)
    page = environment.get_template("show_page.html.j2").render(
        bundle=bundle,
        manifest=manifest,
        total_bytes=total_bytes,
        recipes=list(_recipes(manifest)),
        layers=list(_layers(manifest)),
        trees=list(_trees(manifest)),
        others=_other_topologies(manifest),
        files=files,
        largest=max((spec.bytes for _, spec in files), default=1),
        plan=plan,
        tried={finalist.recipe: finalist.measured_speedup for finalist in plan.tried} if plan else {},
        compiled_at=str(manifest.extra.get("compiled_at", ""))[: len("2026-11-26")],
    )
    file.write_text(page, encoding="utf-8")


def write_tree(bundle: Bundle, name: str | None, file: Path) -> None:
    """Write the drawing of an engine's tree to a file.

    Raises:
        BundleError: no engine is named, or it has no tree inside.
    """
    topologies = {engine.name: engine.block.topology for engine in bundle.manifest.engines}
    trees = {name: topology for name, topology in topologies.items() if isinstance(topology, Tree)}
    branched = ", ".join(name for name, tree in trees.items() if not tree.is_chain) or "none of this bundle"
    if name is None:
        raise BundleError(f"--svg draws the tree of one engine; give --engine NAME, with branches: {branched}")
    bundle.engine(name)
    if name not in trees:
        raise BundleError(f"the engine {name} has no tree inside: an input gives it; engines with one: {branched}")
    file.write_text(drawings.tree(trees[name], alone=True) + "\n", encoding="utf-8")


def _recipes(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Yield what the page says of each recipe, the fastest first."""
    measured = {row["recipe"]: row for row in manifest.measured}

    def speed(name: str) -> float:
        return float(measured.get(name, {}).get("speedup") or 0)

    for recipe in sorted(manifest.recipes, key=lambda recipe: -speed(recipe.name)):
        yield {
            "recipe": recipe,
            "engines": list(dict.fromkeys([*recipe.engines.values(), *recipe.verify])),
            "exactness": exactness(manifest, recipe),
            "row": measured.get(recipe.name, {}),
        }


def _layers(manifest: Manifest) -> Iterator[LayersRow]:
    """Yield a row for each way to run a model's layers, in the order of the engines."""
    groups: dict[Any, list[EngineSpec]] = {}
    for engine in manifest.engines:
        groups.setdefault((engine.block.model, engine.block.weights, engine.block.layers), []).append(engine)
    for (model, weights, layers), engines in groups.items():
        count = manifest.model.layers if model == TARGET else len(engines[0].layers)
        sublayers = drawings.run_of(layers, count)
        yield LayersRow(
            engines=tuple(dict.fromkeys(engine.name for engine in engines)),
            model=model,
            weights=weights,
            drawing=drawings.layers(sublayers) if count else None,
            words=_words(sublayers),
        )


def _words(sublayers: list[drawings.Sublayers]) -> str:
    """Say how many layers run, are left out in part or whole, and are not reached."""
    reached = [layer for layer in sublayers if layer.reached]
    whole = sum(layer.attention and layer.mlp for layer in reached)
    none = sum(not layer.attention and not layer.mlp for layer in reached)
    counts = [
        (whole, "run"),
        (len(reached) - whole - none, "in part"),
        (none, "skipped"),
        (len(sublayers) - len(reached), "behind the exit"),
    ]
    return ", ".join(f"{count} {word}" for count, word in counts if count) or "no layers"


def _trees(manifest: Manifest) -> Iterator[TreeRow]:
    """Yield a row for each tree with branches that is compiled into engines."""
    groups: dict[Tree, list[str]] = {}
    for engine in manifest.engines:
        topology = engine.block.topology
        if isinstance(topology, Tree) and not topology.is_chain:
            groups.setdefault(topology, []).append(engine.name)
    for tree, engines in groups.items():
        is_small = tree.slots <= LARGEST_TREE
        yield TreeRow(
            engines=tuple(dict.fromkeys(engines)),
            slots=tree.slots,
            tree=drawings.tree(tree) if is_small else None,
            mask=drawings.mask(tree) if is_small else None,
        )


def _other_topologies(manifest: Manifest) -> dict[str, list[str]]:
    """Return the engines without a drawn tree, each with its slots, by what they run."""
    groups: dict[str, list[str]] = {}
    for engine in manifest.engines:
        topology = engine.block.topology
        if isinstance(topology, Parents):
            words = "Any tree, which an input gives"
        elif isinstance(topology, GuessTree):
            words = "Trees of tokens, with slots behind them that guess"
        elif isinstance(topology, Frontier):
            words = "Levels of a tree that grows, whose mask is an input"
        elif topology.is_chain:
            words = "Chains: a slot sees the slots before it"
        else:
            continue
        groups.setdefault(words, []).append(f"{engine.name} ({engine.block.slots})")
    return groups
