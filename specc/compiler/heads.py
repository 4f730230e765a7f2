"""Trained heads: what each reads and returns, whether it is for the target, and its graphs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from transformers import PreTrainedModel

from specc import passes
from specc.compiler.capture import EXAMPLE_SLOTS, export_module
from specc.compiler.graphs import PreparedGraph
from specc.compiler.weights import share_tied
from specc.heads import Checkpoint, Head, HeadConfig, Target, digest, open_head
from specc.heads.guess_slots import SlotHead
from specc.heads.in_model import InModelHead
from specc.heads.rows_head import RowsHead
from specc.huggingface.hub import local_head
from specc.passes import find
from specc.passes.arguments import AttentionCall
from specc.recipes import HeadFacts
from specc.runtime.errors import RecipeError, SpeccWarning
from specc.runtime.manifest import ModelSpec

REMEDY = "give a head that was trained for this model: specc train"
VOCABULARY = "vocabulary"  # The output by which a graph says which tokens its logits are for.
PLACES = "places"  # The output that says for each of the target's tokens which logit is its own.
OUTPUTS = {"logits": "logits", "state": "next_state"}  # By a head's own name of it, the name in its graph.


@dataclass(frozen=True, kw_only=True)
class TargetHead:
    """A trained head that fits the target.

    Attributes:
        name: its architecture, which is the name of its blocks and of its states.
        module: the head, which has the target's embeddings.
        outputs: the names of what its forward returns, in order.
        facts: what recipes must know.
        hidden_size: of the states that it reads.
    """

    name: str
    module: Head
    outputs: tuple[str, ...]
    facts: HeadFacts
    hidden_size: int

    @property
    def taps(self) -> Tensor:
        """An example of the target's states that it reads, side by side."""
        return _taps(self.module, self.hidden_size)


def load_heads(directories: Iterable[str | Path]) -> dict[str, Head | Checkpoint]:
    """Load trained heads.

    Args:
        directories: their directories, or ids on the hub.

    Returns:
        The heads by their architectures.

    Raises:
        SpeccError: a directory holds no head, or the hub has none of that id.
        RecipeError: two heads have one architecture.
    """
    heads: dict[str, Head | Checkpoint] = {}
    sources: dict[str, str | Path] = {}
    for directory in directories:
        head = open_head(local_head(str(directory)))
        name = head.architecture
        if name in heads:
            raise RecipeError(
                f"{sources[name]} and {directory} are both heads of architecture {name}; give one of them"
            )
        heads[name], sources[name] = head, directory
    return heads


def fit_heads(heads: Mapping[str, Head | Checkpoint], model: PreTrainedModel, target: ModelSpec) -> list[TargetHead]:
    """Check that heads are for the target, and give them its table of embeddings.

    Raises:
        RecipeError: a head was trained for a model of another shape, or reads layers that the target does not have.
    """
    return [_fit(name, head, model, target) for name, head in heads.items()]


def fit_all_heads(
    heads: Mapping[str, Head | Checkpoint], models: Mapping[str, tuple[PreTrainedModel, ModelSpec]]
) -> list[TargetHead]:
    """Check that heads are for the models whose states they read, and give them the tables of these models.

    Args:
        heads: the heads by their architectures.
        models: each model with its description, by the name that `Head.reads` has for it.

    Raises:
        RecipeError: a head was trained for a model of another shape, or reads layers that the model does not have.
    """
    fitted: list[TargetHead] = []
    for name, (model, spec) in models.items():
        fitted += fit_heads({key: head for key, head in heads.items() if head.reads == name}, model, spec)
    return fitted


def _fit(name: str, source: Head | Checkpoint, model: PreTrainedModel, target: ModelSpec) -> TargetHead:
    table, product = _tables(model)
    hidden_size: int = model.config.get_text_config().hidden_size
    facts_of_target = Target(
        name=target.source,
        digest=digest(table),
        hidden_size=hidden_size,
        vocab_size=target.vocab_size,
        layers=target.layers,
    )
    head = source.head(facts_of_target, table) if isinstance(source, Checkpoint) else source
    trained = head.config.target
    shapes = {
        "hidden_size": (trained.hidden_size, hidden_size),
        "vocab_size": (trained.vocab_size, target.vocab_size),
        "layers": (trained.layers, target.layers),
    }
    for what, (theirs, ours) in shapes.items():
        if theirs != ours:
            raise RecipeError(
                f"head {name} was trained for {trained.name}, whose {what} is {theirs}, and that of {target.source} is "
                f"{ours}; {REMEDY}"
            )
    for tap in head.taps:
        if not -1 <= tap <= target.layers:
            raise RecipeError(
                f"head {name}, trained for {trained.name}, reads the states after layer {tap}, and {target.source} has "
                f"layers 0..{target.layers - 1}; {REMEDY}"
            )
    if facts_of_target.digest != trained.digest:
        warnings.warn(
            f"head {name} was trained for {trained.name}, and the embeddings of {target.source} are others: the target "
            f"may accept few of its tokens; {REMEDY}",
            SpeccWarning,
            stacklevel=2,
        )
    head.attach(table, product)
    ready = head.eval().requires_grad_(False)
    if isinstance(ready, InModelHead):
        facts = HeadFacts(
            stack=ready.count if isinstance(ready, SlotHead) else 1,
            recurrent=False,
            attends=False,
            in_model=True,
            draft_layers=ready.draft_layers,
        )
        return TargetHead(name=name, module=ready, outputs=(), facts=facts, hidden_size=hidden_size)
    if isinstance(ready, RowsHead):
        facts = HeadFacts(recurrent=False, reads_rows=True)
        return TargetHead(name=name, module=ready, outputs=("logits",), facts=facts, hidden_size=hidden_size)
    with torch.no_grad():
        outputs = ready(*_example(ready, hidden_size))
    stack = outputs["logits"].shape[2] if outputs["logits"].ndim == 4 else 1
    facts = HeadFacts(
        stack=stack,
        guesses=ready.guesses,
        recurrent="state" in outputs,
        attends=ready.attends,
        context_layers=ready.context_layers,
        reads=ready.reads,
        taps=ready.taps,
    )
    return TargetHead(name=name, module=ready, outputs=tuple(outputs), facts=facts, hidden_size=hidden_size)


def _tables(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Return the target's embeddings, and the matrix that makes its logits."""
    untyped: Any = model  # The method for the matrix has no types in transformers.
    embedding, product = model.get_input_embeddings().weight, untyped.get_output_embeddings().weight
    assert isinstance(embedding, Tensor) and isinstance(product, Tensor)
    return embedding, product


def _example(head: Head, hidden_size: int) -> tuple[Tensor, ...]:
    """Return example inputs of a head's forward."""
    with torch.no_grad():
        state = head.fuse(_taps(head, hidden_size))
    ids = torch.zeros(1, EXAMPLE_SLOTS, dtype=torch.long)
    return ids, torch.arange(EXAMPLE_SLOTS)[None], torch.zeros_like(state)


def _taps(head: Head, hidden_size: int) -> Tensor:
    return torch.zeros(1, EXAMPLE_SLOTS, len(head.taps) * hidden_size)


class _Outputs(nn.Module):
    """A head whose outputs have an order in the place of names."""

    def __init__(self, head: TargetHead) -> None:
        super().__init__()
        self.head, self.names = head.module, head.outputs

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> tuple[Tensor, ...]:
        outputs = self.head(input_ids, position_ids, state)
        return tuple(outputs[name] for name in self.names)


class _Fuse(nn.Module):
    """The part of a head that the target's engines run."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, taps: Tensor) -> tuple[Tensor]:
        return (self.head.fuse(taps),)


class _Draft(nn.Module):
    """A head that reads rows of the target."""

    def __init__(self, head: RowsHead) -> None:
        super().__init__()
        self.head = head

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, target_rows: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor]:
        return (self.head.draft(input_ids, position_ids, target_rows, keys, values),)


def _capture_head(head: TargetHead) -> GraphModule:
    outputs = [OUTPUTS[name] for name in head.outputs]
    return export_module(_Outputs(head), f"head {head.name}", _example(head.module, head.hidden_size), outputs)


def _capture_rows_head(head: TargetHead, target: GraphModule, capacity: int) -> GraphModule:
    """Capture a head with the target's rows among its inputs, under the names that they have in the target.

    Raises:
        RecipeError: the target's rows have another shape.
    """
    module = head.module
    assert isinstance(module, RowsHead)
    rows = _rows(head, target, capacity)
    example = torch.zeros(1, EXAMPLE_SLOTS, dtype=torch.long), torch.arange(EXAMPLE_SLOTS)[None]
    # Two tensors: torch.export takes one tensor that comes twice for one input.
    fixed = torch.ones(1, dtype=torch.long), rows, torch.zeros_like(rows)
    graph = export_module(_Draft(module), f"head {head.name}", example, ("logits",), fixed)
    for name, kind in (("keys", "key"), ("values", "value")):
        old = find.placeholder(graph, name)
        old.replace_all_uses_with(find.new_input(graph, f"past_key_values_{module.read_layer}_{kind}", rows))
        graph.graph.erase_node(old)
    return graph


def _rows(head: TargetHead, target: GraphModule, capacity: int) -> Tensor:
    """Return an example of the target's keys that a head reads, [1, heads, capacity, size].

    Raises:
        RecipeError: they have other heads than the head was trained for.
    """
    module = head.module
    assert isinstance(module, RowsHead)
    calls = [AttentionCall.of(node) for node in find.calls(target, find.ATTENTION)]
    shapes = [call.key.meta["val"].shape for call in calls if call.layer == module.read_layer and not call.window]
    heads, size = module.row_shape
    if not shapes or shapes[0][1] != heads or shapes[0][3] < size:
        raise RecipeError(
            f"head {head.name} reads the rows of layer {module.read_layer}, {heads} heads of {size} numbers, and the "
            f"target has no such rows there; {REMEDY}"
        )
    return torch.zeros(1, heads, capacity, shapes[0][3])


def prepare_head(head: TargetHead, target: GraphModule, capacity: int, dump: Path | None) -> PreparedGraph:
    """Capture a head and run the passes that every block of it needs.

    Args:
        head: the head.
        target: the target's prepared graph.
        capacity: rows of the cache, which is the number of positions.
        dump: a directory for the graph after each pass.

    Raises:
        CaptureError: the head cannot be captured.
        PassError: a pass did not find what it rewrites.
    """
    graph = _capture_rows_head(head, target, capacity) if isinstance(head.module, RowsHead) else _capture_head(head)
    if head.module.vocabulary is not None:
        tables = {VOCABULARY: head.module.vocabulary, PLACES: _places(head.module.vocabulary, head.module.config)}
        nodes = {name: find.constant(graph, name, table) for name, table in tables.items()}
        find.set_outputs(graph, find.outputs(graph) | nodes)
    records = passes.run(passes.preparation(capacity), graph, dump)
    share_tied(graph)
    return PreparedGraph(graph, tuple(records))


def _places(vocabulary: Tensor, config: HeadConfig) -> Tensor:
    """Return for each of the target's tokens, [V], its number in the head's vocabulary, or that behind the last."""
    places = torch.full((config.target.vocab_size,), len(vocabulary))
    places[vocabulary] = torch.arange(len(vocabulary))
    return places


def graft(head: TargetHead) -> passes.Graft:
    """Capture what the target's engines compute for a head.

    Raises:
        CaptureError: it cannot be captured.
        PassError: a pass did not find what it rewrites.
    """
    title = f"the states of head {head.name}"
    graph: GraphModule = export_module(_Fuse(head.module), title, (head.taps,), ("state",))
    passes.run(passes.state_preparation(), graph)
    return passes.Graft(head.name, tuple(head.module.taps), graph)
