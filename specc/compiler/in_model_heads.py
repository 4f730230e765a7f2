"""The parts of trained heads that run in the blocks of the model itself, as graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from specc import passes
from specc.compiler.capture import EXAMPLE_SLOTS, export_module
from specc.compiler.heads import TargetHead
from specc.heads import Head
from specc.heads.guess_slots import SlotHead
from specc.heads.in_model import InModelHead, StreamHead


def guess_slots(heads: Iterable[TargetHead]) -> tuple[passes.GuessSlots, ...]:
    """Capture what slots begin with that guess by heads.

    Raises:
        CaptureError: it cannot be captured.
        PassError: a pass did not find what it rewrites.
    """
    return tuple(
        passes.GuessSlots(
            head.name,
            place.after,
            place.count,
            _captured(
                head,
                partial(head.module.starts_of, first=place.first, count=place.count),
                "slots",
                head.hidden_size,
            ),
            first=place.first,
            limit=head.module.count,
        )
        for head in heads
        if isinstance(head.module, SlotHead)
        for place in head.module.starting_places
    )


def bridges(heads: Iterable[TargetHead]) -> tuple[passes.Crossing, ...]:
    """Capture what stands in the place of layers that the drafts of heads leave out.

    Raises:
        CaptureError: it cannot be captured.
        PassError: a pass did not find what it rewrites.
    """
    crossings: list[passes.Crossing] = []
    for head in heads:
        if isinstance(head.module, StreamHead):
            crossings.append(_second_stream(head, head.module))
        elif isinstance(head.module, InModelHead) and (taps := head.module.bridge_taps):
            bridge = _captured(head, head.module.bridge, "bridge", len(taps) * head.hidden_size)
            crossings.append(passes.Bridge(head.name, taps, bridge))
    return tuple(crossings)


def _second_stream(head: TargetHead, module: StreamHead) -> passes.SecondStream:
    """Capture the parts of a second stream beside the model's first layers."""
    count, size = len(module.taps), head.hidden_size
    with torch.no_grad():
        wide = module.ask(0, torch.zeros(1, 1, size)).shape[-1]
    return passes.SecondStream(
        head.name,
        tuple(_captured(head, partial(module.ask, number), "queries", size) for number in range(count)),
        tuple(
            _captured(head, partial(module.move, number), "second stream", 3 * size + wide) for number in range(count)
        ),
        _captured(head, module.gate, "gate", count * size),
    )


class _Part(nn.Module):
    """A module of a function that belongs to a head."""

    def __init__(self, head: Head, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.head, self.function = head, function

    def forward(self, states: Tensor) -> tuple[Tensor]:
        return (self.function(states),)


def _captured(head: TargetHead, function: Callable[[Tensor], Tensor], title: str, width: int) -> GraphModule:
    """Capture a part of a head.

    Args:
        head: the head.
        function: what to capture: a method of the head, of states [1, slots, width].
        title: what it is, for messages.
        width: numbers of a state.
    """
    part, example = _Part(head.module, function), torch.zeros(1, EXAMPLE_SLOTS, width)
    graph = export_module(part, f"the {title} of head {head.name}", (example,), ("states",))
    passes.run(passes.state_preparation(), graph)
    return graph
