"""What is inside a bundle, as plain data and drawn. No torch.

N  slots of an engine
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree as Drawing

from specc.cli.console import size
from specc.cli.tables import table
from specc.runtime.block import Frontier, Parents
from specc.runtime.bundle import MANIFEST, Bundle
from specc.runtime.json_codec import to_json
from specc.runtime.manifest import CacheSpec, EngineSpec, Tensor
from specc.runtime.tree import Tree

DRAWN = 96  # slots of the widest mask that is drawn


def describe(bundle: Bundle) -> dict[str, Any]:
    """The bundle as JSON: every engine, recipe, cache and file."""
    manifest = bundle.manifest
    rows = {row["recipe"]: dict(row) for row in manifest.measured}
    return {
        "bundle": str(bundle.path),
        "schema": manifest.schema,
        "bytes": sum(f.bytes for f in manifest.files.values()) + bundle.file(MANIFEST).stat().st_size,
        "model": to_json(manifest.model),
        "versions": dict(manifest.versions),
        "default_recipe": manifest.default_recipe,
        "near_tie_tolerance": manifest.near_tie_tolerance,
        "recipes": [
            {
                "name": r.name,
                "drafter": r.drafter,
                "acceptance": r.acceptance,
                "lossless": r.lossless,
                "verify": list(r.verify),
                "engines": dict(r.engines),
                "parameters": dict(r.parameters),
                "measured": rows.get(r.name),
            }
            for r in manifest.recipes
        ],
        "engines": [_summary(bundle, e) for e in manifest.engines],
        "caches": {name: _cache(cache) for name, cache in manifest.caches.items()},
        "files": {name: to_json(f) for name, f in manifest.files.items()},
    }


def describe_engine(bundle: Bundle, name: str) -> dict[str, Any]:
    """One engine as JSON: its passes, tensors, and tree, if that is baked in."""
    engine = bundle.engine(name)
    tree = engine.block.topology if isinstance(engine.block.topology, Tree) else None
    return {
        **_summary(bundle, engine),
        "parents": list(tree.parents) if tree else None,
        "paths": [list(p) for p in tree.paths] if tree else None,
        "passes": [to_json(p) for p in engine.passes],
        "inputs": [to_json(t) for t in engine.inputs],
        "outputs": [to_json(t) for t in engine.outputs],
    }


def _summary(bundle: Bundle, engine: EngineSpec) -> dict[str, Any]:
    block = engine.block
    users = [r.name for r in bundle.manifest.recipes if engine.name in (*r.verify, *r.engines.values())]
    return {
        "name": engine.name,
        "backend": engine.backend,
        "file": engine.file,
        "bytes": bundle.manifest.files[engine.file].bytes,
        "slots": block.slots,
        "topology": topology(engine),
        "layers": list(engine.layers),
        "block_outputs": list(block.outputs),
        "model": block.model,
        "cache": block.cache,
        "recipes": users,
    }


def _cache(cache: CacheSpec) -> dict[str, Any]:
    return {
        "rows": cache.capacity,
        "layers": list(cache.layers),
        "dtype": cache.dtype,
        "bytes": cache.bytes,
    }


def topology(engine: EngineSpec) -> str:
    """How an engine's slots hang together: chain or tree, baked in, or an input that says it: parents or mask."""
    shape = engine.block.topology
    if isinstance(shape, Parents):
        return "parents"
    if isinstance(shape, Frontier):
        return "mask"
    return "chain" if shape.is_chain else "tree"


def compact(layers: Iterable[str]) -> str:
    """Layers in order, runs of whole ones joined: 0-4, 6.attention, 7-11."""
    parts = []
    numbered = enumerate(layers)
    for whole, run in groupby(numbered, lambda p: (p[1].isdigit(), int(p[1]) - p[0] if p[1].isdigit() else p[0])):
        names = [name for _, name in run]
        parts.append(f"{names[0]}-{names[-1]}" if whole[0] and len(names) > 1 else ", ".join(names))
    return ", ".join(parts)


def show(bundle: Bundle, console: Console) -> None:
    """Print what `describe` tells."""
    told = describe(bundle)
    model, versions = told["model"], told["versions"]
    console.print(Text.assemble((told["bundle"], "bold"), f"  {size(told['bytes'])}, schema {told['schema']}\n"))
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    facts = table(("", "dim"), "", header=False)
    facts.add_row("model", f"{model['source']}, revision {model['revision']}")
    facts.add_row("", f"{model['architecture']}, {model['layers']} layers, vocabulary {model['vocab_size']}")
    facts.add_row("context", f"{model['context']} tokens, end of sequence {_numbers(model['eos_token_ids'])}")
    for name, cache in told["caches"].items():
        layers = len(cache["layers"])
        facts.add_row(
            f"cache {name}", f"{cache['rows']} rows, {layers} layers, {cache['dtype']}, {size(cache['bytes'])}"
        )
    facts.add_row("made by", made)
    _print(console, facts, _engines(told["engines"]), _recipes(told), _files(bundle))
    console.print(f"* default recipe; all: {MANIFEST}, or specc show --json", style="dim")


def _print(console: Console, *parts: RenderableType) -> None:
    for part in parts:
        console.print(part, "")


def _engines(engines: Sequence[dict[str, Any]]) -> Table:
    found = table("engine", ("slots", "right"), "topology", "layers", "outputs", ("size", "right"))
    for e in engines:
        outputs = ", ".join(e["block_outputs"])
        found.add_row(e["name"], str(e["slots"]), e["topology"], compact(e["layers"]), outputs, size(e["bytes"]))
    return found


def _recipes(told: dict[str, Any]) -> Table:
    """Each recipe as measured when it was compiled, its engines, settings, drafter and rule."""
    found = table("recipe", *((t, "right") for t in ("tokens/s", "speed-up", "length")), "engines, parameters, drafter")
    for r in told["recipes"]:
        is_default, row = r["name"] == told["default_recipe"], r["measured"] or {}
        engines = ", ".join(dict.fromkeys([*r["engines"].values(), *r["verify"]]))
        settings = ", ".join(f"{k} {_brief(v)}" for k, v in r["parameters"].items())
        how = f"{r['drafter']}, {r['acceptance']}, {'lossless' if r['lossless'] else 'not lossless'}"
        keys = ("tokens_per_second", ".1f"), ("speedup", ".2f"), ("mean_acceptance_length", ".2f")
        numbers = [format(row[key], form) if key in row else "-" for key, form in keys]
        lines = Text("\n").join([Text(t, style) for t, style in ((engines, ""), (settings, ""), (how, "dim")) if t])
        found.add_row(f"{r['name']} *" if is_default else r["name"], *numbers, lines)
        found.add_section()
    return found


def _files(bundle: Bundle) -> Table:
    found = table("file", ("bytes", "right"), "sha256")
    for name, file in bundle.manifest.files.items():
        found.add_row(name, f"{file.bytes:,}", file.sha256[:16])
    return found


def show_engine(bundle: Bundle, name: str, console: Console) -> None:
    """Print one engine: what `describe_engine` tells, its tree and its mask."""
    engine = bundle.engine(name)
    told = describe_engine(bundle, name)
    console.print(Text.assemble((name, "bold"), f"  {engine.file}, {size(told['bytes'])}, backend {engine.backend}\n"))
    facts = table(("", "dim"), "", header=False)
    facts.add_row("slots", f"{told['slots']}, {told['topology']}")
    facts.add_row("layers", compact(engine.layers))
    facts.add_row("model, cache", f"{told['model']}, {told['cache']}")
    facts.add_row("recipes", ", ".join(told["recipes"]) or "all: prompts and plain decoding")
    _print(console, facts, _passes(engine), _tensors("input", engine.inputs), _tensors("output", engine.outputs))
    if isinstance(engine.block.topology, Tree):
        _draw(engine.block.topology, console)


def _passes(engine: EngineSpec) -> Table:
    found = table(("pass", "fold"), ("places", "right"), ("nodes", "right"), ("ms", "right"))
    for p in engine.passes:
        name = re.sub(r"parents=\((-1[^)]*?),?\)", lambda m: f"slots={m[1].count(',') + 1}", p.name)
        found.add_row(name, str(p.changed), f"{p.nodes_before} → {p.nodes_after}", f"{p.seconds * 1000:.0f}")
    return found


def _tensors(title: str, tensors: Sequence[Tensor]) -> Table:
    """Keys and values in one row for each shape."""
    found = table(title, "dtype", "shape")
    rows: Counter[tuple[str, str, str]] = Counter()
    for t in tensors:
        prefix = t.name.partition(".")[0]
        name = f"{prefix}.*" if prefix in ("past_key_values", "present") else t.name
        rows[name, t.dtype, _shape(t.shape)] += 1
    for (name, dtype, shape), count in rows.items():
        found.add_row(f"{name} ({count})" if count > 1 else name, dtype, shape)
    return found


def _draw(tree: Tree, console: Console) -> None:
    if tree.is_chain:
        console.print(f"chain of {tree.slots}: a slot sees the committed rows, the slots before it and itself")
        return
    console.print("tree: slot (path of ranks)", style="dim")
    console.print(drawing(tree))
    if tree.slots <= DRAWN:
        console.print("\nmask: row i shows the slots that slot i sees, beside all committed rows", style="dim")
        console.print(picture(tree.mask), soft_wrap=True)


def drawing(tree: Tree) -> Drawing:
    """The tree, a line a slot."""
    drawn = [Drawing("0  pending token")]
    for slot, path in enumerate(tree.paths, 1):
        ranks = ", ".join(map(str, path))
        drawn.append(drawn[tree.parents[slot]].add(Text.assemble(f"{slot} ", (f"({ranks})", "dim"))))
    return drawn[0]


def picture(mask_NN: np.ndarray) -> str:
    """A mask in characters, a line a slot."""
    return "\n".join("".join("█" if seen else "·" for seen in row) for row in mask_NN)


def _shape(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values)) or "none"


def _brief(value: Any) -> str:
    """A parameter's value, a parent vector by its size."""
    return f"of {len(value)} slots" if isinstance(value, (list, tuple)) and len(value) > 8 else str(value)
