"""A Hugging Face causal language model to an fx graph, attention kept as one operator. Knows no model family.

The graph takes `input_ids` and `position_ids`, both [1, slots] int64 with a symbolic number of slots, and returns
logits [1, slots, vocabulary]. Its weights are the model's own tensors, not copies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.graph import CodeGen
from torch.utils._python_dispatch import _disable_current_modes
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from specc.huggingface import one_line, quiet
from specc.passes import find
from specc.runtime.errors import CaptureError

ATTENTION = "specc"  # the name of our attention and mask functions in transformers' registries
IGNORED = {"position_ids", "cache_position"}  # tensors that hold nothing which the mask does not
EXAMPLE_SLOTS = 7  # a size that equals none of a model's, so that torch.export mistakes it for no other
MOST_SLOTS = 1 << 16
PROBED_SLOTS = 40  # of a mask, besides one far beyond the window
UNKNOWN_WINDOW = 1 << 13  # rows; the widest window that is looked for where transformers names none
MIXING_TOLERANCE = 1e-5  # relative to the largest logit; noise is 3e-7, a convolution at initial weights 2e-4
UNREACHED = (
    "{} cannot be compiled: it has no attention that transformers' AttentionInterface reaches, "
    "and specc needs it to place the cache"
)


@dataclass(frozen=True)
class _Window:
    """A stand-in for a layer's mask during capture: how many rows a slot sees, itself included; 0 means all."""

    rows: int

    def __getitem__(self, _: Any) -> _Window:
        """Return itself: models cut a mask to the length of the keys."""
        return self


def _mask(mask_function: Callable[..., Tensor], local_size: int | None = None, **_: Any) -> _Window | None:
    """Find the window of a mask. transformers calls this where it would make the mask.

    Args:
        mask_function: tells from batch, head, slot and row whether the slot sees the row.
        local_size: the window as the model's configuration has it.

    Returns:
        None if the mask is neither causal nor a sliding window.
    """
    far = 2 * (local_size or UNKNOWN_WINDOW)
    with _disable_current_modes():
        rows, zero = torch.arange(far + 9), torch.tensor(0)
        visible = {slot: mask_function(zero, zero, torch.tensor(slot), rows) for slot in (*range(PROBED_SLOTS), far)}
        window = int(visible[far].sum())
        fits = (torch.equal(row, (rows > slot - window) & (rows <= slot)) for slot, row in visible.items())
        return _Window(window if window <= far else 0) if all(fits) else None


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: _Window | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Call attention as one operator. transformers calls this where it would compute attention.

    Args:
        module: the layer's attention; its `layer_idx` names the layer.
        query: [1, heads, slots, size].
        key: [1, key heads, slots, size].
        value: [1, key heads, slots, size].
        attention_mask: what `_mask` returned.
        scaling: of the products of queries and keys; 1 / sqrt(size) by default.
        softcap: the limit of tanh on the scores, if there is one.
        s_aux: attention sinks, [heads].
        others: arguments that some models add.

    Returns:
        The output, [1, slots, heads, size], and no weights.

    Raises:
        CaptureError: the model passes a tensor that the operator does not take.
    """
    layer: Any = module.layer_idx
    unknown = [repr(name) for name, other in others.items() if isinstance(other, Tensor) and name not in IGNORED]
    if unknown or not isinstance(attention_mask, _Window):
        name = unknown[0] if unknown else "a mask that is neither causal nor a sliding window"
        raise CaptureError(f"layer {layer} hands {name} to attention, which specc cannot lower")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out: Tensor = torch.ops.specc.attention(
        query, key, value, s_aux, float(scale), attention_mask.rows, softcap or 0.0, layer
    )
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, _mask)


class _Logits(nn.Module):
    """A model that returns its logits alone."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        everything = torch.ones_like(input_ids)  # else transformers looks for several sequences in one
        logits: Tensor = self.model(
            input_ids=input_ids, attention_mask=everything, position_ids=position_ids, use_cache=False
        ).logits
        return logits


def capture(model: PreTrainedModel) -> GraphModule:
    """Export a model as a graph. The model stays as it was.

    Raises:
        CaptureError: torch.export fails, or a slot needs more of earlier ones than their keys and values.
    """
    example = torch.zeros(1, EXAMPLE_SLOTS, dtype=torch.long), torch.arange(EXAMPLE_SLOTS)[None]
    name = type(model).__name__
    with _exportable(model):
        if model.config._attn_implementation != ATTENTION:
            raise CaptureError(UNREACHED.format(name))
        graph = export_module(_Logits(model), name, example, ("logits",))
    if not find.calls(graph, find.ATTENTION):
        raise CaptureError(UNREACHED.format(name))
    if _mixes_slots(graph):
        raise CaptureError(
            f"{name} cannot be compiled: it carries more from token to token than keys and values "
            "(a recurrence, a convolution, positions counted from the first slot)"
        )
    return graph


def export_module(
    module: nn.Module,
    name: str,
    example: tuple[Tensor, ...],
    outputs: Sequence[str],
    fixed: tuple[Tensor, ...] = (),
) -> GraphModule:
    """Export a module as a graph with inputs and outputs by name.

    Args:
        module: the module, whose outputs are one tensor or a tuple.
        name: what the module is, for messages.
        example: inputs whose second axis is the slots, EXAMPLE_SLOTS of them.
        outputs: the names of the outputs, in order.
        fixed: further inputs, whose shapes are fixed.

    Raises:
        CaptureError: torch.export fails.
    """
    slots = torch.export.Dim("slots", min=2, max=MOST_SLOTS)
    with quiet(), torch.no_grad():
        try:
            shapes = (*({1: slots} for _ in example), *(None for _ in fixed))
            program = torch.export.export(module, (*example, *fixed), dynamic_shapes=shapes, strict=False)
        except CaptureError as e:
            raise CaptureError(f"{name} cannot be compiled: its {e}") from e
        except Exception as e:
            raise CaptureError(f"{name} cannot be compiled: torch.export cannot capture it: {one_line(e)}") from e
    graph = program.module(check_guards=False)
    assert isinstance(graph, GraphModule)
    _name_inputs_and_outputs(graph, outputs)
    return graph


def _name_inputs_and_outputs(graph: GraphModule, names: Sequence[str]) -> None:
    """Put the inputs first and return the outputs by name, so that passes can add inputs and outputs."""
    graph.graph.set_codegen(CodeGen())
    output = graph.graph.output_node()
    results: Any = output.args[0]
    output.args = (dict(zip(names, results, strict=True)),)
    for node in reversed(graph.graph.find_nodes(op="placeholder")):
        next(iter(graph.graph.nodes)).prepend(node)
    graph.recompile()


@contextlib.contextmanager
def _exportable(model: PreTrainedModel) -> Iterator[None]:
    """Switch a model to what torch.export can trace, and back.

    Attention becomes our operator, experts become plain products, and rotary frequencies stay as they are.
    `huggingface.describe` limits the context to lengths for which these frequencies do not change.
    """
    attention, experts = model.config._attn_implementation, model.get_experts_implementation()
    rotary: dict[Any, Any] = {m: m.rope_type for m in model.modules() if hasattr(m, "rope_type")}
    try:
        model.set_attn_implementation(ATTENTION)
        if model._can_set_experts_implementation():
            model.set_experts_implementation("batched_mm")
        for module, kind in rotary.items():
            module.rope_type = dict.fromkeys(kind, "default") if isinstance(kind, dict) else "default"
        yield
    finally:
        model.set_attn_implementation(attention)
        if model._can_set_experts_implementation():
            model.set_experts_implementation(experts)
        for module, kind in rotary.items():
            module.rope_type = kind


class _Alone(torch.fx.Interpreter):
    """An interpreter in which a slot attends to itself alone."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target is find.ATTENTION:
            query, _, value, *_ = args
            return value.repeat_interleave(query.shape[1] // value.shape[1], 1)
        return super().call_function(target, args, kwargs)


@torch.no_grad()
def _mixes_slots(graph: GraphModule) -> bool:
    """Test whether a slot depends on others without attention: whether its logits change if those before it go."""
    tokens, positions = torch.tensor([[3, 1, 4, 1, 5]]), torch.tensor([[0, 1, 2, 3, 4]])
    whole, end = (_Alone(graph).run(tokens[:, i:], positions[:, i:])["logits"][:, -2:] for i in (0, 3))
    limit = MIXING_TOLERANCE * float(whole.abs().max())
    return not torch.allclose(whole, end, rtol=MIXING_TOLERANCE, atol=limit)
