"""Checks of a manifest as a whole: a stranger may have signed anything, and engines and sessions rely on all of it.

N  slots of an engine      R  rows of its outputs, N or fewer      T  span of a mask      V  vocabulary      K  ranks
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import PurePosixPath

from .block import HIDDEN, KEPT, MIXTURE, STATE, TARGET_ROWS, Frontier, Layers, Parents
from .draft import STATES
from .errors import BundleError, RecipeError
from .manifest import MOST, CacheSpec, EngineSpec, Manifest, Tensor, check_names
from .manifest_notes import check_notes
from .quantized_rows import COUNT, LOWER, PARTS, part_shapes
from .recipe import Recipe
from .sequence import PART

TOLERANCE = 1e-3  # Of two logits of a target in fp32, those that lie closer may change places by rounding.
# The largest tolerance that a manifest or `specc test --tolerance` may name where the target has fewer bits: its logits
# differ by up to 1 from width to width. Nothing implies more than TOLERANCE; see `implied_tolerance`.
WIDEST = 1.0
AGAIN = "compile the bundle again"
CACHED = ("past_key_values.", "present.")
FLOATS = ("float32", "float16", "bfloat16")
ANY = -1  # Stands for a size that is not checked by itself.

Expected = tuple[tuple[str, ...], tuple[int, ...]]  # The types that a tensor may have, and its shape.


def check_manifest(manifest: Manifest) -> None:
    """Check that all parts of a manifest fit each other.

    Raises:
        BundleError: naming the first part that does not fit.
    """
    for name in manifest.files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise BundleError(f"manifest.files: {name!r} lies outside the bundle; {AGAIN}")
    check_names(manifest)
    check_tolerance(manifest, manifest.near_tie_tolerance, "manifest.near_tie_tolerance")
    _check_caches(manifest)
    _check_engines(manifest)
    for engine in manifest.engines:
        if "state" in engine.block.inputs and engine.inputs:
            _check_states(manifest, engine)
        if HIDDEN in engine.block.inputs and engine.inputs:
            _check_hidden(manifest, engine)
    for recipe in manifest.recipes:
        _check_verify(manifest, recipe)
    check_notes(manifest)


def check_tolerance(manifest: Manifest, tolerance: float, name: str) -> None:
    """Check that near-ties are near: only logits of narrow weights are further apart.

    Args:
        manifest: of the bundle that is tested.
        tolerance: the gap of logits below which a difference is a near-tie.
        name: what the tolerance is, for the message.

    Raises:
        BundleError: it is not a number from 0 to TOLERANCE, or to WIDEST if the target is not in fp32.
    """
    types = {engine.block.weights for engine in manifest.engines if engine.name == "decode"}
    most = TOLERANCE if types == {"fp32"} else WIDEST
    if not 0 <= tolerance <= most:
        raise BundleError(f"{name} is {tolerance:g}; of a target in {', '.join(sorted(types))} it is 0 to {most:g}")


def check_logits(manifest: Manifest, recipe: Recipe) -> None:
    """Check that the target's engines return logits where a request needs them: to sample, or for its processors.

    Args:
        manifest: of the bundle.
        recipe: the recipe of the request.

    Raises:
        RecipeError: an engine returns only the likeliest tokens.
    """
    prompt_engines = {e.name for e in manifest.engines if e.block.model == "target" and e.name in ("decode", "prefill")}
    for engine in manifest.engines:
        if engine.name in prompt_engines.union(recipe.verify) and "logits" not in engine.block.outputs:
            remedy = "decode greedily without processors, or take a recipe that has them, such as plain"
            raise RecipeError(
                f"recipe {recipe.name}: engine {engine.name} returns no logits, which sampling and processors need; "
                f"{remedy}"
            )


def _check_verify(manifest: Manifest, recipe: Recipe) -> None:
    """Check that a recipe verifies by the target itself: its whole graph, as `decode` runs it, over its own rows.

    Raises:
        BundleError: it has no engine, or one that is something else, such as a draft.
    """
    if not recipe.verify:
        raise BundleError(f"manifest: recipe {recipe.name} names no engine to verify with; {AGAIN}")
    weights = {e.backend: e.block.weights for e in manifest.engines if e.name == "decode"}
    for engine in manifest.engines:
        block = engine.block
        runs_target = (block.model, block.cache, block.layers) == ("target", "target", Layers())
        is_whole = runs_target and not block.last_row and block.weights == weights[engine.backend]
        if engine.name in recipe.verify and not is_whole:
            raise BundleError(f"manifest: recipe {recipe.name} verifies by {engine.name}, not by the target; {AGAIN}")


def _check_caches(manifest: Manifest) -> None:
    """Check that there are rows of the target, and that no cache has a name that the runtime makes of another's."""
    if "target" not in manifest.caches:
        raise BundleError(f"manifest.caches: there is no 'target'; {AGAIN}")
    if names := [name for name in manifest.caches if PART in name]:
        raise BundleError(f"manifest.caches: {names[0]!r} has a {PART!r} in its name; {AGAIN}")


def _check_engines(manifest: Manifest) -> None:
    """Check that every backend can decode, that no engine is defined twice, and that tensors have their shapes."""
    keys = [(engine.name, engine.backend) for engine in manifest.engines]
    for name, backend in keys:
        if keys.count((name, backend)) > 1:
            raise BundleError(f"manifest: engine {name} by {backend} is there twice; {AGAIN}")
        if ("decode", backend) not in keys:
            raise BundleError(f"manifest: backend {backend} has no engine 'decode'; {AGAIN}")
    for engine in manifest.engines:
        topology, cache = engine.block.topology, manifest.caches[engine.block.store]
        span = topology.span if isinstance(topology, Frontier) else MOST
        if not 1 <= topology.slots <= span <= MOST:
            slots = f"{topology.slots} slots, of a span of {span}"
            raise BundleError(f"manifest: engine {engine.name} has {slots}; {AGAIN}")
        if engine.name in ("decode", "prefill") and not _reads_a_chain(engine):
            raise BundleError(f"manifest: engine {engine.name} does not run a chain on the target's cache; {AGAIN}")
        if manifest.model.context - 1 + topology.slots > cache.capacity:
            rows = f"{topology.slots} slots after {manifest.model.context - 1} rows do not fit in {cache.capacity}"
            raise BundleError(f"manifest: engine {engine.name}: {rows}; {AGAIN}")
        if engine.inputs:
            _check_tensors(engine, cache, manifest.model.vocab_size)


def _reads_a_chain(engine: EngineSpec) -> bool:
    block = engine.block
    return block.is_chain and (block.model, block.cache, block.lanes) == ("target", "target", 1)


def _check_tensors(engine: EngineSpec, cache: CacheSpec, vocabulary: int) -> None:
    """Check the inputs and outputs of an engine against its block.

    Raises:
        BundleError: one is missing, or has another shape or type.
    """
    for kind, tensors, expected in (
        ("input", engine.inputs, _inputs(engine)),
        ("output", engine.outputs, _outputs(engine, vocabulary)),
    ):
        shapes = {tensor.name: tensor for tensor in tensors}
        if len(shapes) < len(tensors):
            raise BundleError(f"manifest: engine {engine.name} has an {kind} twice; {AGAIN}")
        for name, (dtypes, shape) in expected.items():
            tensor = shapes.get(name)
            if tensor is None or tensor.dtype not in dtypes or not _fits(tensor.shape, shape, engine):
                sizes = ["any" if size == ANY else size for size in shape]
                raise BundleError(f"manifest: engine {engine.name}: {kind} {name!r} is not {sizes}; {AGAIN}")
        if kind == "input":
            _check_weight_inputs(engine, expected.keys())
        for tensor in tensors:
            if tensor.name.startswith(CACHED):
                _check_cached(engine, tensor, cache)


def _fits(shape: tuple[int, ...], expected: tuple[int, ...], engine: EngineSpec) -> bool:
    """Tell whether a shape is the expected one. A trained head may have a row for each token that it guesses."""
    if "state" in engine.block.inputs and len(shape) == len(expected) + 1:
        shape = (*shape[:2], *shape[3:])
    return len(shape) == len(expected) and all(wish in (ANY, size) for size, wish in zip(shape, expected, strict=True))


def _check_states(manifest: Manifest, head: EngineSpec) -> None:
    """Check that an engine of a trained head reads states of the size that the target's engines return.

    Raises:
        BundleError: the sizes differ, or the target's engines return no such states.
    """
    output = f"{STATES}{head.block.model}"
    engines = [engine for engine in manifest.engines if engine.backend == head.backend]
    returned = {tensor.shape[-1] for engine in engines for tensor in engine.outputs if tensor.name == output}
    own = {tensor.shape[-1] for tensor in head.inputs if tensor.name == "state"}
    own |= {tensor.shape[-1] for tensor in head.outputs if tensor.name == "next_state"}
    if returned != own:
        raise BundleError(
            f"manifest: engine {head.name} reads states of {sorted(own)} numbers, and the target's engines return "
            f"{output!r} of {sorted(returned)}; {AGAIN}"
        )


def _check_hidden(manifest: Manifest, deep: EngineSpec) -> None:
    """Check that an engine which starts after a layer reads states of the size that another one returns there.

    Raises:
        BundleError: the sizes differ, or no engine of the target's weights returns such states.
    """
    start = deep.block.layers.start_after
    assert start is not None
    output = f"hidden_{start - 1}"
    engines = [e for e in manifest.engines if (e.backend, e.block.model) == (deep.backend, deep.block.model)]
    returned = {tensor.shape[-1] for engine in engines for tensor in engine.outputs if tensor.name == output}
    own = {tensor.shape[-1] for tensor in deep.inputs if tensor.name == HIDDEN}
    if not own <= returned:
        raise BundleError(
            f"manifest: engine {deep.name} reads states of {sorted(own)} numbers, and others return {output!r} of "
            f"{sorted(returned)}; {AGAIN}"
        )


def _check_weight_inputs(engine: EngineSpec, host: Collection[str]) -> None:
    """Check that every input is filled: by the host, as part of a cache, or as a weight.

    Args:
        engine: the engine.
        host: the names of the inputs that the host fills.

    Raises:
        BundleError: nothing fills an input, or what should be a weight is another input or none.
    """
    others = {t.name for t in engine.inputs if t.name not in host and not t.name.startswith(CACHED)}
    for name in sorted(others ^ engine.weight_inputs.keys()):
        problem = "is no weight, and nothing else fills it" if name in others else "is no input that a weight can fill"
        raise BundleError(f"manifest: engine {engine.name}: {name!r} {problem}; {AGAIN}")


def _inputs(engine: EngineSpec) -> Mapping[str, Expected]:
    """Return the types and the shape of each input that is no part of a cache, by name."""
    block, slots = engine.block, engine.block.slots
    shapes: dict[str, Expected] = {
        "input_ids": (("int64",), (1, slots)),
        "past_len": (("int64",), (block.lanes,)),
    }
    if block.lanes > 1:
        shapes["widths"] = ("int64",), (block.lanes,)
    if block.last_row:
        shapes["row"] = ("int64",), (1,)
    if isinstance(block.topology, Parents):
        shapes["parents"] = ("int64",), (slots,)
    if isinstance(block.topology, Frontier):
        shapes |= {"mask": (("bool",), (slots, block.topology.span)), "depth": (("int64",), (slots,))}
    if block.quantized_group:
        shapes[COUNT] = ("int64",), (1,)
    if TARGET_ROWS in block.inputs:
        shapes[TARGET_ROWS] = ("int64",), (1,)
    sizes = {MIXTURE: slots}
    return {name: (FLOATS, (1, slots, sizes.get(name, ANY))) for name in block.inputs} | shapes


def _outputs(engine: EngineSpec, vocabulary: int) -> Mapping[str, Expected]:
    """Return the types and the shape of each output that the block names, but for hidden states."""
    rows = engine.block.rows
    shapes: dict[str, Expected] = {}
    for output in engine.block.outputs:
        kind, _, number = output.partition(":")
        if kind == "ids":
            shapes["ids"] = ("int64",), (1, rows)
        elif kind == "logits":
            shapes["logits"] = FLOATS, (1, rows, vocabulary)
        elif kind == "top_k":
            shapes |= {
                "top_ids": (("int64",), (1, rows, int(number))),
                "top_logprobs": (FLOATS, (1, rows, int(number))),
            }
        elif kind == KEPT and engine.block.pruning is not None:
            shapes[KEPT] = ("int64",), (1, engine.block.pruning.tokens)
        elif kind != "hidden":  # States have all slots, also where the rest has one row.
            shapes[output.replace(STATE, STATES)] = FLOATS, (1, engine.block.state_rows, ANY)
    return shapes


def _check_cached(engine: EngineSpec, tensor: Tensor, cache: CacheSpec) -> None:
    """Check that a tensor is a layer's keys or values, with the shape that its cache gives them."""
    _, _, row = tensor.name.partition(".")
    lane = "0"
    if engine.block.lanes > 1:
        lane, _, row = row.partition(".")
    layer, kind, part = _cached_name(row)
    heads, size = cache.layers.get(layer, (0, 0)) if lane in map(str, range(engine.block.lanes)) else (0, 0)
    if part:
        group, bits = engine.block.quantized_group, engine.block.quantized_bits
        shapes = part_shapes(kind, heads, cache.capacity, size, group, bits) if group and size else {}
        fits = shapes.get(part) == (tensor.dtype, tensor.shape) and tensor.name.startswith(CACHED[0])
    else:
        fits = tensor.shape == (1, heads, cache.capacity, size)
    if kind not in ("key", "value") or not fits:
        raise BundleError(
            f"manifest: engine {engine.name}: {tensor.name!r} is {list(tensor.shape)}, which is not in cache "
            f"{engine.block.store}; {AGAIN}"
        )


def _cached_name(row: str) -> tuple[str, str, str]:
    """Split the name of a tensor in a cache, such as 0.key or 0.key.codes, in layer, kind, and part of the copy."""
    head, _, last = row.rpartition(".")
    layer, _, kind = head.rpartition(".")
    return (layer, kind, last) if last in (*PARTS, LOWER) else (head, last, "")
