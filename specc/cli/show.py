"""The verb `show`: the contents of a bundle as JSON or as tables.

N is the number of an engine's slots.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

from specc.cli import console
from specc.cli.arguments import BundleArgument, JsonOption, OptionalPath, OptionalStr, examples, flag, option
from specc.cli.compile import provisional_line
from specc.cli.terms import LENGTH_LINE, LENGTH_TITLE

if TYPE_CHECKING:
    import numpy as np
    from rich.console import RenderableType
    from rich.table import Table
    from rich.tree import Tree as Drawing

    from specc.runtime.bundle import Bundle
    from specc.runtime.manifest import CacheSpec, EngineSpec, Manifest, Tensor
    from specc.runtime.recipe import Recipe
    from specc.runtime.tree import Tree

EXAMPLES = examples(
    "specc show model.specc",
    "specc show model.specc --all",
    "specc show model.specc --engine prefill",
    "specc show model.specc --json",
    "specc show model.specc --html model.html",
    "specc show model.specc --engine verify-token-recycling --svg tree.svg",
)
ALL = "Show every cache, engine, recipe and file."
ENGINE = "Show this engine alone: its passes, tensors, tree and mask."
HTML = "Write a page to this file: layers, trees and masks drawn, sizes, recipes and the plan. It needs no other file."
SVG = "Write the tree of --engine to this file, as a drawing."
LARGEST_MASK = 96  # Masks of more slots are wider than most terminals, so they are not drawn.
LONG_VALUE = 8  # A list of more items is shown by its length.


def command(
    bundle: BundleArgument,
    all_: Annotated[bool, flag("--all", ALL)] = False,
    engine: Annotated[OptionalStr, option("NAME", ENGINE)] = None,
    html: Annotated[OptionalPath, option("FILE", HTML)] = None,
    svg: Annotated[OptionalPath, option("FILE", SVG)] = None,
    json: JsonOption = False,
) -> None:
    """Show what is inside a bundle.

    Shows a summary: the model, the speed of the default recipe, and what the bundle consists of. With --all, it shows
    every cache, engine, recipe and file. With --engine, it shows one engine in full.
    """
    from specc.runtime.bundle import open_bundle

    opened, out = open_bundle(bundle), console.out()
    if html or svg:
        from specc.cli import show_page

        if html:
            show_page.write(opened, _total_bytes(opened), html)
        if svg:
            show_page.write_tree(opened, engine, svg)
    if json:
        console.emit(describe_engine(opened, engine) if engine else describe(opened))
    elif html or svg:
        out.print(console.text("\n".join(f"wrote {file}" for file in (html, svg) if file)), soft_wrap=True)
    elif engine:
        console.show(engine_tables(opened, engine))
        for part in engine_drawing(opened, engine):
            out.print(part, soft_wrap=isinstance(part, str))  # A wrapped mask cannot be read.
    elif all_:
        console.show(bundle_tables(opened))
    else:
        from specc.cli.show_summary import summary

        console.show(summary(opened, _total_bytes(opened)))
        out.print(console.text("For more: specc show --all, --engine NAME, --json", "dim"))


def describe(bundle: Bundle) -> dict[str, Any]:
    """Return the bundle as plain data: every engine, recipe, cache and file."""
    from specc.runtime.engines import native_code
    from specc.runtime.json_codec import to_json
    from specc.runtime.width_invariance import exactness, is_lossless

    manifest = bundle.manifest
    measured = {row["recipe"]: dict(row) for row in manifest.measured}
    return {
        "bundle": str(bundle.path),
        "schema": manifest.schema,
        "bytes": _total_bytes(bundle),
        "model": to_json(manifest.model),
        "versions": dict(manifest.versions),
        "default_recipe": manifest.default_recipe,
        "native_code": native_code(engine.backend for engine in manifest.engines),
        "provisional": manifest.provisional,
        "near_tie_tolerance": manifest.near_tie_tolerance,
        "recipes": [
            {
                "name": recipe.name,
                "drafter": recipe.drafter,
                "acceptance": recipe.acceptance,
                "lossless": is_lossless(manifest, recipe),
                "exactness": exactness(manifest, recipe),
                "verify": list(recipe.verify),
                "engines": dict(recipe.engines),
                "parameters": dict(recipe.parameters),
                "measured": measured.get(recipe.name),
            }
            for recipe in manifest.recipes
        ],
        "engines": [_summary(bundle, engine) for engine in manifest.engines],
        "caches": {name: _cache(cache) for name, cache in manifest.caches.items()},
        "files": {name: to_json(file) for name, file in manifest.files.items()},
    }


def describe_engine(bundle: Bundle, name: str) -> dict[str, Any]:
    """Return one engine as plain data: its passes, its tensors, and its tree if that is compiled in."""
    from specc.runtime.json_codec import to_json

    engine = bundle.engine(name)
    tree = _static_tree(engine)
    return {
        **_summary(bundle, engine),
        "parents": list(tree.parents) if tree else None,
        "paths": [list(path) for path in tree.paths] if tree else None,
        "passes": [to_json(record) for record in engine.passes],
        "inputs": [to_json(tensor) for tensor in engine.inputs],
        "outputs": [to_json(tensor) for tensor in engine.outputs],
    }


def bundle_tables(bundle: Bundle) -> RenderableType:
    """Draw the bundle: its model, caches, engines, recipes and files."""
    from specc.runtime.bundle import MANIFEST

    manifest = bundle.manifest
    title = console.text(str(bundle.path), "bold")
    title.append(f"  {console.size(_total_bytes(bundle))}, schema {manifest.schema}", "")
    hint = f"* default recipe; for everything, read {MANIFEST} or run specc show --json"
    tables = [_facts(manifest), _engines(bundle), _recipes(manifest), _files(manifest)]
    lines = [console.text(line, "dim") for line in (LENGTH_LINE, hint)]
    if manifest.provisional:
        lines.append(console.text(provisional_line(bundle.path), "yellow"))
    return console.stack(title, "", *_with_gaps(tables), *lines)


def engine_tables(bundle: Bundle, name: str) -> RenderableType:
    """Draw one engine: its facts, passes and tensors."""
    engine = bundle.engine(name)
    title = console.text(name, "bold")
    size = console.size(bundle.manifest.files[engine.file].bytes)
    title.append(f"  {engine.file}, {size}, backend {engine.backend}", "")
    facts = console.facts()
    facts.add_row("slots", f"{engine.block.slots}, {_topology_and_lanes(engine)}")
    facts.add_row("layers", join_runs(engine.layers))
    facts.add_row("model, cache", f"{engine.block.model}, {engine.block.cache}")
    facts.add_row("recipes", ", ".join(_users(bundle, engine)) or "all, for prompts and plain decoding")
    tables = [facts, _passes(engine), _tensors("input", engine.inputs), _tensors("output", engine.outputs)]
    return console.stack(title, "", *_with_gaps(tables))


def engine_drawing(bundle: Bundle, name: str) -> list[RenderableType]:
    """Draw the tree that is compiled into an engine, and its mask if that is narrow enough.

    A chain is described in words. An engine with another topology has no drawing.
    """
    tree = _static_tree(bundle.engine(name))
    if tree is None:
        return []
    if tree.is_chain:
        return [f"chain of {tree.slots}: a slot sees the committed rows, the slots before it and itself"]
    parts: list[RenderableType] = [console.text("tree: slot (path of ranks)", "dim"), drawing(tree)]
    if tree.slots <= LARGEST_MASK:
        title = "\nmask: row i shows the slots that slot i sees, beside all committed rows"
        parts += [console.text(title, "dim"), picture(tree.mask)]
    return parts


def topology(engine: EngineSpec) -> str:
    """Name how an engine's slots depend on each other.

    Returns:
        `chain` or `tree` if that is compiled in, `guesses` if slots that guess stand behind the tokens of a tree;
        `parents` or `mask` if an input of this kind says it.
    """
    from specc.runtime.block import Frontier, GuessTree, Parents

    shape = engine.block.topology
    if isinstance(shape, GuessTree):
        return "guesses"
    if isinstance(shape, Parents):
        return "parents"
    if isinstance(shape, Frontier):
        return "mask"
    return "chain" if shape.is_chain else "tree"


def _topology_and_lanes(engine: EngineSpec) -> str:
    lanes = engine.block.lanes
    return f"{topology(engine)}, {lanes} lanes" if lanes > 1 else topology(engine)


def join_runs(layers: Iterable[str]) -> str:
    """Write names of layers in order, with runs of whole layers joined: 0-4, 6.attention, 7-11."""

    def run_key(place_and_name: tuple[int, str]) -> tuple[bool, int]:
        place, name = place_and_name
        return (True, int(name) - place) if name.isdigit() else (False, place)

    parts = []
    for (is_whole, _), group in groupby(enumerate(layers), run_key):
        names = [name for _, name in group]
        parts.append(f"{names[0]}-{names[-1]}" if is_whole and len(names) > 1 else ", ".join(names))
    return ", ".join(parts)


def drawing(tree: Tree) -> Drawing:
    """Draw a tree with one line for each slot."""
    from rich.tree import Tree as Drawing

    nodes = [Drawing("0  pending token")]
    for slot, path in enumerate(tree.paths, 1):
        label = console.text(f"{slot} ").append(f"({', '.join(map(str, path))})", "dim")
        nodes.append(nodes[tree.parents[slot]].add(label))
    return nodes[0]


def picture(mask: np.ndarray) -> str:
    """Draw a mask [N, N] in characters, with one line for each slot."""
    return "\n".join("".join("█" if visible else "·" for visible in row) for row in mask)


def _total_bytes(bundle: Bundle) -> int:
    """Return the size of all files of the bundle, its manifest among them."""
    from specc.runtime.bundle import MANIFEST

    return sum(file.bytes for file in bundle.manifest.files.values()) + bundle.file(MANIFEST).stat().st_size


def _static_tree(engine: EngineSpec) -> Tree | None:
    """Return the tree that is compiled into an engine, or None if an input says the topology."""
    from specc.runtime.block import GuessTree
    from specc.runtime.tree import Tree

    topology = engine.block.topology
    if isinstance(topology, GuessTree):
        return topology.tree
    return topology if isinstance(topology, Tree) else None


def _users(bundle: Bundle, engine: EngineSpec) -> list[str]:
    """Return the names of the recipes that use an engine."""
    return [
        recipe.name for recipe in bundle.manifest.recipes if engine.name in (*recipe.verify, *recipe.engines.values())
    ]


def _summary(bundle: Bundle, engine: EngineSpec) -> dict[str, Any]:
    """Return the facts of an engine as plain data."""
    block = engine.block
    return {
        "name": engine.name,
        "backend": engine.backend,
        "file": engine.file,
        "bytes": bundle.manifest.files[engine.file].bytes,
        "slots": block.slots,
        "lanes": block.lanes,
        "topology": topology(engine),
        "layers": list(engine.layers),
        "block_outputs": list(block.outputs),
        "model": block.model,
        "cache": block.cache,
        "recipes": _users(bundle, engine),
    }


def _cache(cache: CacheSpec) -> dict[str, Any]:
    """Return the facts of a cache as plain data."""
    return {"rows": cache.capacity, "layers": list(cache.layers), "dtype": cache.dtype, "bytes": cache.bytes}


def _with_gaps(parts: Iterable[RenderableType]) -> list[RenderableType]:
    """Put an empty line after each part."""
    return [line for part in parts for line in (part, "")]


def _facts(manifest: Manifest) -> Table:
    """Draw the model, the caches and the versions that compiled the bundle."""
    from specc.runtime.engines import native_code

    model, table = manifest.model, console.facts()
    table.add_row("model", f"{model.source}, revision {model.revision}")
    table.add_row("", f"{model.architecture}, {model.layers} layers, vocabulary {model.vocab_size}")
    ends = ", ".join(map(str, model.eos_token_ids)) or "none"
    table.add_row("context", f"{model.context} tokens, end of sequence {ends}")
    for name, cache in manifest.caches.items():
        size = console.size(cache.bytes)
        table.add_row(f"cache {name}", f"{cache.capacity} rows, {len(cache.layers)} layers, {cache.dtype}, {size}")
    if native := native_code(engine.backend for engine in manifest.engines):
        table.add_row("native code", f"engines by {', '.join(native)}: they run only with --allow-native-code")
    table.add_row("made by", ", ".join(f"{name} {version}" for name, version in manifest.versions.items()))
    return table


def _engines(bundle: Bundle) -> Table:
    """Draw a row for each engine."""
    table = console.table("engine", ("slots", "right"), "topology", "layers", "outputs", ("size", "right"))
    for engine in bundle.manifest.engines:
        table.add_row(
            engine.name,
            str(engine.block.slots),
            _topology_and_lanes(engine),
            join_runs(engine.layers),
            ", ".join(engine.block.outputs),
            console.size(bundle.manifest.files[engine.file].bytes),
        )
    return table


def _recipes(manifest: Manifest) -> Table:
    """Draw each recipe as the compile measured it, with its engines, parameters, drafter and rule."""
    numbers = [(title, "right") for title in ("tokens/s", "speed-up", LENGTH_TITLE)]
    table = console.table("recipe", *numbers, "engines, parameters, drafter")
    measured = {row["recipe"]: row for row in manifest.measured}
    for recipe in manifest.recipes:
        row = measured.get(recipe.name, {})
        keys = (("tokens_per_second", ".1f"), ("speedup", ".2f"), ("mean_acceptance_length", ".2f"))
        cells = [format(row[key], style) if key in row else "-" for key, style in keys]
        title = f"{recipe.name} *" if recipe.name == manifest.default_recipe else recipe.name
        table.add_row(title, *cells, _recipe_lines(recipe, manifest))
        table.add_section()
    return table


def _recipe_lines(recipe: Recipe, manifest: Manifest) -> RenderableType:
    """Write a recipe's engines, its parameters, and its drafter and rule, each on a line."""
    from specc.runtime.width_invariance import exactness

    engines = ", ".join(dict.fromkeys([*recipe.engines.values(), *recipe.verify]))
    parameters = ", ".join(f"{name} {_short(value)}" for name, value in recipe.parameters.items())
    lossless = {"yes": "lossless", "no": "not lossless"}.get(word := exactness(manifest, recipe), word)
    lines = [(engines, ""), (parameters, ""), (f"{recipe.drafter}, {recipe.acceptance}, {lossless}", "dim")]
    return console.join([console.text(line, style) for line, style in lines if line], "\n")


def _short(value: Any) -> str:
    """Write a parameter's value. A long list, such as the parents of a tree, is written as its length."""
    if isinstance(value, (list, tuple)) and len(value) > LONG_VALUE:
        return f"of {len(value)} slots"
    return str(value)


def _files(manifest: Manifest) -> Table:
    """Draw a row for each file, with the beginning of its digest."""
    table = console.table("file", ("bytes", "right"), "sha256")
    for name, file in manifest.files.items():
        table.add_row(name, f"{file.bytes:,}", file.sha256[:16])
    return table


def _passes(engine: EngineSpec) -> Table:
    """Draw a row for each pass. The parents of a tree are written as their number."""
    table = console.table(("pass", "fold"), ("places", "right"), ("nodes", "right"), ("ms", "right"))
    for record in engine.passes:
        name = re.sub(r"parents=\((-1[^)]*?),?\)", lambda match: f"slots={match[1].count(',') + 1}", record.name)
        nodes = f"{record.nodes_before} → {record.nodes_after}"
        table.add_row(name, str(record.changed), nodes, f"{record.seconds * 1000:.0f}")
    return table


def _tensors(title: str, tensors: Sequence[Tensor]) -> Table:
    """Draw a row for each tensor. Keys and values of one shape share a row."""
    table = console.table(title, "dtype", "shape")
    rows: Counter[tuple[str, str, str]] = Counter()
    for tensor in tensors:
        prefix = tensor.name.partition(".")[0]
        name = f"{prefix}.*" if prefix in ("past_key_values", "present") else tensor.name
        rows[name, tensor.dtype, f"[{', '.join(map(str, tensor.shape))}]"] += 1
    for (name, dtype, shape), count in rows.items():
        table.add_row(f"{name} ({count})" if count > 1 else name, dtype, shape)
    return table
