"""The manifest: what a bundle says about itself in `manifest.json`, enough to drive the engines from any language.

docs/bundle-format.md is the specification. A test holds its fields against these classes.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from .block import Block
from .errors import BundleError, PromptError, RecipeError
from .recipe import Recipe
from .width_invariance import WidthInvariance

# The version that this runtime writes. It reads all earlier ones. A field that is new, or that changes its name or
# meaning, raises it.
SCHEMA = 3
PLAN = "plan"  # `Manifest.extra` has what `specc tune` decided and measured under this key.
COMPILED_AT = "compiled_at"  # `Manifest.extra` has the time of the compile under this key: 2026-11-26T02:10:00Z.
MOST = 2**31 - 1  # No size is larger. Products of sizes are compared with the machine's memory.
MOST_THREADS = 4096
# Bytes of one element, by the type's name in a manifest: of tensors and of caches.
SIZES = {"float32": 4, "float16": 2, "bfloat16": 2, "bool": 1, "uint8": 1, "int32": 4, "int64": 8}
Dtype = Annotated[str, tuple(SIZES)]


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine.

    Attributes:
        name: as the engine's file has it.
        dtype: float32, float16, bfloat16, bool, uint8, int32 or int64.
        shape: every dimension a number, at the width that the engine of the manifest has.
    """

    name: str
    dtype: Dtype
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, SIZES)
        for dimension in self.shape:
            check_count("a dimension", dimension, least=0)


@dataclass(frozen=True, kw_only=True)
class PassRecord:
    """A pass that helped to make an engine. It informs; no reader needs it.

    Attributes:
        name: the pass with its arguments.
        changed: how many places of the graph it changed.
        nodes_before: nodes of the graph before the pass.
        nodes_after: nodes of the graph after the pass.
        seconds: how long it took.
        note: what a pass that changed nothing came nearest to, if the model has what it rewrites in another form.
    """

    name: str
    changed: int
    nodes_before: int
    nodes_after: int
    seconds: float
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """An engine: a file that runs one block.

    Engines of one name run one block by several backends. Engines of one file are one graph at several widths.

    Attributes:
        name: by which recipes refer to it. With the backend it is unique.
        backend: the runtime that loads the file: onnx, inductor, inductor-cuda, tensorrt, tensorrt-rtx, torch-tensorrt.
        file: its file in the bundle.
        block: what it runs.
        layers: the layers whose keys and values it reads and writes, by the names of its cache.
        inputs: in the file's order.
        outputs: in the file's order. `present.*` is `past_key_values.*` updated; both are one buffer.
        passes: what made its graph, in order.
        weights: the file of its weights; empty means the manifest's.
        needs: what must be on the machine to load it, by name: versions of libraries, kinds of processors.
            `onnxruntime` has the least version of ONNX Runtime. An operator outside ONNX stands as `domain::Name` with
            the least version of its library: ONNX Runtime for `com.microsoft`, specc-kernels for `specc`.
        commit: the file that moves accepted rows where the host cannot; empty if there is none.
        weight_inputs: the inputs that are weights, by name: for each the name of its tensor in the weights file.
        threads: how many a step takes on the CPU; 0 means as many as the process has.
    """

    name: str
    backend: str
    file: str
    block: Block
    layers: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    passes: tuple[PassRecord, ...]
    weights: str = ""
    needs: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""
    weight_inputs: Mapping[str, str] = field(default_factory=dict)
    threads: int = 0

    def __post_init__(self) -> None:
        check_count("threads", self.threads, least=0, most=MOST_THREADS)


@dataclass(frozen=True)
class CacheSpec:
    """A cache: rows of keys and values, which all engines that name it share.

    Attributes:
        capacity: rows of the cache, scratch rows included.
        layers: layer name to (heads, size). Its keys and its values are [1, heads, capacity, size] each.
        dtype: of the rows: float32, float16 or bfloat16. An engine's own inputs have the last word.
    """

    capacity: int
    layers: Mapping[str, tuple[int, int]]
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, SIZES)
        check_count("capacity", self.capacity)
        for heads, size in self.layers.values():
            check_count("heads", heads)
            check_count("size", size)

    @property
    def bytes(self) -> int:
        """Bytes of all rows, keys and values."""
        return sum(2 * heads * self.capacity * size for heads, size in self.layers.values()) * SIZES[self.dtype]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The model that was compiled, as far as a runtime must know it.

    Attributes:
        source: hub id or path that it was loaded from.
        revision: commit on the hub, or local.
        architecture: transformers' class.
        vocab_size: token ids are below it.
        layers: of the whole model.
        context: tokens that fit, prompt and answer together.
        eos_token_ids: each of them ends an answer.
        generation_config: what the model's `generation_config.json` says about sampling, by transformers'
            names; empty means greedy decoding.
    """

    source: str
    revision: str
    architecture: str
    vocab_size: int
    layers: int
    context: int
    eos_token_ids: tuple[int, ...]
    generation_config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, count in (("vocab_size", self.vocab_size), ("layers", self.layers), ("context", self.context)):
            check_count(name, count)

    def check(self, prompt: Sequence[int]) -> None:
        """Check that these token ids can be a prompt.

        Raises:
            PromptError: it is empty, leaves no room for an answer, or has a token that is not in the vocabulary.
        """
        if not prompt:
            raise PromptError("the prompt is empty; give at least one token")
        if len(prompt) >= self.context:
            raise PromptError(
                f"the prompt has {len(prompt)} tokens and the cache {self.context} rows; shorten it, "
                "or compile with a larger --max-seq-len"
            )
        if max(prompt) >= self.vocab_size:
            raise PromptError(
                f"token {max(prompt)} is not in the vocabulary of {self.vocab_size}; give ids below {self.vocab_size}"
            )


@dataclass(frozen=True)
class FileSpec:
    """A file of the bundle.

    Attributes:
        bytes: its size.
        sha256: of its content, in lower-case hexadecimal digits.
    """

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The whole of `manifest.json`, but for `manifest_sha256`.

    Attributes:
        schema: version of this format.
        model: what was compiled.
        engines: in an order without meaning, but that the first backend without native code is the default.
        caches: by the name that blocks give.
        recipes: what a user can choose.
        default_recipe: what runs if the user names none.
        versions: of Python and the libraries that compiled it, by name.
        files: every file of the bundle but the manifest, by its path from the bundle's directory.
        weights: the file of all weights in their first type.
        measured: one object a recipe, from which the default was chosen.
        provisional: whether the default rests on fewer prompts or tokens than the compiler asks for.
        near_tie_tolerance: of two logits that lie closer, either token is right.
        width_invariance: whether the target gives one token at all widths, if that was measured.
        extra: what tools add: `plan` of tuning, `original` of a quantised target, perplexities, `compiled_at`.
    """

    schema: int
    model: ModelSpec
    engines: tuple[EngineSpec, ...]
    caches: Mapping[str, CacheSpec]
    recipes: tuple[Recipe, ...]
    default_recipe: str
    versions: Mapping[str, str]
    files: Mapping[str, FileSpec]
    weights: str = "weights.safetensors"
    measured: tuple[Mapping[str, Any], ...] = ()
    provisional: bool = False
    near_tie_tolerance: float = 1e-3
    width_invariance: WidthInvariance | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def check_count(name: str, count: int, least: int = 1, most: int = MOST) -> None:
    """Check a size.

    Raises:
        RecipeError: it is out of range.
    """
    if not least <= count <= most:
        raise RecipeError(f"{name} is {count}, and must be {least} to {most}; compile the bundle again")


def check_choice(name: str, value: str, choices: Container[str]) -> None:
    """Check that a value is one of those that a runtime knows.

    Raises:
        RecipeError: it is not.
    """
    if value not in choices:
        raise RecipeError(f"unknown {name} {value!r}; compile the bundle again")


def check_names(manifest: Manifest) -> None:
    """Check that the manifest defines every file, cache, engine and recipe that it names.

    Raises:
        BundleError: naming the first one that is not defined.
    """
    for where, name, defined in _uses(manifest):
        if name not in defined:
            raise BundleError(f"manifest: {where}: there is no {name!r}; compile the bundle again")


def _uses(manifest: Manifest) -> Iterator[tuple[str, str, Container[str]]]:
    """Yield each use of a name: where it stands, the name, and the names that are defined."""
    engines, recipes = {e.name for e in manifest.engines}, {r.name for r in manifest.recipes}
    yield "default_recipe", manifest.default_recipe, recipes
    yield "weights", manifest.weights, manifest.files
    for engine in manifest.engines:
        for file in (engine.file, engine.weights, engine.commit):
            if file:
                yield f"engine {engine.name}, file", file, manifest.files
        yield f"engine {engine.name}, cache", engine.block.store, manifest.caches
    for recipe in manifest.recipes:
        for name in (*recipe.verify, *recipe.engines.values()):
            yield f"recipe {recipe.name}, engine", name, engines
