"""What a bundle says of itself: `manifest.json`, complete enough to drive the engines from any language."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .block import Block
from .errors import BundleError, PromptError
from .recipe import Recipe

SCHEMA = 1
SIZES = {"float": 4, "float32": 4, "float16": 2, "bfloat16": 2, "bool": 1, "int32": 4, "int64": 8}  # bytes of one


@dataclass(frozen=True)
class Tensor:
    """One input or output of an engine, as ONNX names and types it."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class PassRecord:
    """A pass that made an engine: how many places it changed, and the graph's nodes before and after."""

    name: str
    changed: int
    nodes_before: int
    nodes_after: int
    seconds: float


@dataclass(frozen=True)
class EngineSpec:
    """A file that runs one block.

    tensors: `inputs` and `outputs` in order. An output `present.*` is the input `past_key_values.*` updated:
    bind both to one buffer. Engines of one name run one block by several backends, those of one file at several widths.
    weights: the file of its weights, the manifest's unless said. needs: what must be here to load it, by name.
    commit: the file that moves accepted rows where the host cannot. threads: that a step takes on the CPU, 0 being as
    many as the process does.
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
    threads: int = 0


@dataclass(frozen=True)
class CacheSpec:
    """Rows of keys and values: one pair of [1, heads, capacity, size] for each name in `layers`.

    Names are those of the engines' inputs, `past_key_values.{layer}.key` and `.value`.
    """

    capacity: int
    layers: Mapping[str, tuple[int, int]]  # layer -> (heads, size)
    dtype: str = "float32"

    @property
    def bytes(self) -> int:
        """Of all its rows."""
        return sum(2 * heads * self.capacity * size for heads, size in self.layers.values()) * SIZES[self.dtype]


@dataclass(frozen=True)
class ModelSpec:
    """Where the weights come from, and what the runtime must know of them."""

    source: str
    revision: str
    architecture: str
    vocab_size: int
    layers: int
    context: int  # tokens that fit: prompt and answer
    eos_token_ids: tuple[int, ...]

    def check(self, prompt: Sequence[int]) -> None:
        """Whether these tokens can be a prompt. Raises PromptError."""
        if not prompt:
            raise PromptError("the prompt is empty; give at least one token")
        if len(prompt) >= self.context:
            raise PromptError(
                f"the prompt has {len(prompt)} tokens and the cache {self.context} rows; shorten it, "
                "or compile with a larger --max-seq-len"
            )
        if max(prompt) >= self.vocab_size:
            raise PromptError(f"token {max(prompt)} is not in the vocabulary of {self.vocab_size}")


@dataclass(frozen=True)
class FileSpec:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    schema: int
    model: ModelSpec
    engines: tuple[EngineSpec, ...]
    caches: Mapping[str, CacheSpec]
    recipes: tuple[Recipe, ...]
    default_recipe: str
    versions: Mapping[str, str]
    files: Mapping[str, FileSpec]
    weights: str = "weights.safetensors"
    measured: tuple[Mapping[str, Any], ...] = ()  # one row a recipe: what choosing the default showed
    near_tie_tolerance: float = 1e-3
    extra: Mapping[str, Any] = field(default_factory=dict)


def check_names(manifest: Manifest) -> None:
    """Every name that the manifest uses is one that it defines. Raises BundleError."""
    engines, recipes = {e.name for e in manifest.engines}, {r.name for r in manifest.recipes}
    used: list[tuple[str, str, Container[str]]]
    used = [("default_recipe", manifest.default_recipe, recipes), ("weights", manifest.weights, manifest.files)]
    for e in manifest.engines:
        used += [(f"engine {e.name}, file", f, manifest.files) for f in (e.file, e.weights, e.commit) if f]
        used.append((f"engine {e.name}, cache", e.block.cache, manifest.caches))
    for r in manifest.recipes:
        used += [(f"recipe {r.name}, engine", name, engines) for name in (*r.verify, *r.engines.values())]
    for where, name, defined in used:
        if name not in defined:
            raise BundleError(f"manifest: {where}: there is no {name!r}; compile the bundle again")
