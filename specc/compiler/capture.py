"""A Hugging Face causal language model to an fx graph, attention kept as one operator. Knows no model family.

The graph takes `input_ids` and `position_ids`, both [1, slots] int64 with a symbolic number of slots, and returns
logits [1, slots, vocabulary]. Its weights are the model's own tensors, not copies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
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

ATTENTION = "specc"
IGNORED = {"position_ids", "cache_position"}  # tensors that say nothing which the mask does not
UNREACHED = (
    "{} cannot be compiled: it has no attention that transformers' AttentionInterface reaches, "
    "and specc needs it to place the cache"
)


@dataclass(frozen=True)
class _Seen:
    """What stands for a layer's mask while it is captured: how many rows a slot sees, itself included; 0 is all."""

    window: int

    def __getitem__(self, _: Any) -> _Seen:
        return self  # models cut a mask to the keys' length


def _mask(mask_function: Callable[..., Tensor], local_size: int | None = None, **_: Any) -> _Seen | None:
    """The mask function that transformers calls: tries which rows some slots see. None where that is no window."""
    far = 2 * (local_size or 1 << 13)
    with _disable_current_modes():
        rows, zero = torch.arange(far + 9), torch.tensor(0)
        seen = {slot: mask_function(zero, zero, torch.tensor(slot), rows) for slot in (*range(40), far)}
        window = int(seen[far].sum())
        fits = (torch.equal(row, (rows > slot - window) & (rows <= slot)) for slot, row in seen.items())
        return _Seen(window if window <= far else 0) if all(fits) else None


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: _Seen | None,
    scaling: float | None = None, softcap: float | None = None, s_aux: Tensor | None = None, **others: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """The attention function that transformers calls: one operator, with all that it must carry."""
    unknown = [repr(k) for k, v in others.items() if isinstance(v, Tensor) and k not in IGNORED]
    if not isinstance(attention_mask, _Seen):
        unknown.append("a mask that is neither causal nor a sliding window")
    if unknown:
        raise CaptureError(f"layer {module.layer_idx} hands {unknown[0]} to attention, which specc cannot lower")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = torch.ops.specc.attention(
        query, key, value, s_aux, float(scale), attention_mask.window, softcap or 0.0, module.layer_idx
    )
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, _mask)


class _Logits(nn.Module):
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
    """Export the model. Raises CaptureError where a slot could not run on a cache of keys and values alone."""
    slots = torch.export.Dim("slots", min=2, max=1 << 16)
    example = torch.zeros(1, 7, dtype=torch.long), torch.arange(7)[None]
    name = type(model).__name__
    with quiet(), torch.no_grad(), _exportable(model):
        if model.config._attn_implementation != ATTENTION:
            raise CaptureError(UNREACHED.format(name))
        try:
            program = torch.export.export(
                _Logits(model), example, dynamic_shapes=({1: slots}, {1: slots}), strict=False
            )
        except CaptureError as e:
            raise CaptureError(f"{name} cannot be compiled: its {e}") from e
        except Exception as e:
            raise CaptureError(f"{name} cannot be compiled: torch.export cannot capture it: {one_line(e)}") from e
    graph = program.module(check_guards=False)
    assert isinstance(graph, GraphModule)
    graph.graph.set_codegen(CodeGen())  # inputs in a row and outputs by name, for passes to add to
    graph.graph.output_node().args = ({"logits": graph.graph.output_node().args[0][0]},)
    for node in reversed(graph.graph.find_nodes(op="placeholder")):
        next(iter(graph.graph.nodes)).prepend(node)
    graph.recompile()
    if not find.calls(graph, find.ATTENTION):
        raise CaptureError(UNREACHED.format(name))
    if _mixes(graph):
        raise CaptureError(
            f"{name} cannot be compiled: it carries more from token to token than keys and values "
            "(a recurrence, a convolution, positions counted from the first slot)"
        )
    return graph


@contextlib.contextmanager
def _exportable(model: PreTrainedModel) -> Iterator[None]:
    """Attention as our operator, experts as plain products, rotary frequencies as they stand: `describe` keeps to the
    lengths for which they do not change."""
    attention, experts = model.config._attn_implementation, model.get_experts_implementation()
    changing = {m: m.rope_type for m in model.modules() if hasattr(m, "rope_type")}
    try:
        model.set_attn_implementation(ATTENTION)
        if model._can_set_experts_implementation():
            model.set_experts_implementation("batched_mm")
        for module, kind in changing.items():
            module.rope_type = dict.fromkeys(kind, "default") if isinstance(kind, dict) else "default"
        yield
    finally:
        model.set_attn_implementation(attention)
        if model._can_set_experts_implementation():
            model.set_experts_implementation(experts)
        for module, kind in changing.items():
            module.rope_type = kind


class _Alone(torch.fx.Interpreter):
    """A graph whose slots attend to themselves only."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target is find.ATTENTION:
            query, _, value, *_ = args
            return value.repeat_interleave(query.shape[1] // value.shape[1], 1)
        return super().call_function(target, args, kwargs)


@torch.no_grad()
def _mixes(graph: GraphModule) -> bool:
    """Whether a slot depends on others without attention: its logits differ without those before it."""
    tokens, positions = torch.tensor([[3, 1, 4, 1, 5]]), torch.tensor([[0, 1, 2, 3, 4]])
    all_, last = (_Alone(graph).run(tokens[:, i:], positions[:, i:])["logits"][:, -2:] for i in (0, 3))
    return not torch.allclose(all_, last, rtol=1e-3, atol=1e-3 * float(all_.abs().max()))
