"""SecondStream: queries of a second stream beside a layer's own. tests/specc/training/test_m2r2.py runs a head."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from graphs import logits, prepared
from small_graphs import small
from torch import Tensor
from torch.fx import GraphModule

from specc import passes
from specc.passes.exit_after import ExitAfter
from specc.passes.find import ATTENTION, calls, layer_output, layers, outputs
from specc.passes.second_stream import SecondStream
from specc.runtime.errors import PassError

pytestmark = pytest.mark.torch
SLOTS = 7


def part(function: Callable[[Tensor], Tensor], width: int) -> GraphModule:
    """Return the graph of a function of states of so many numbers."""
    return small(function, "out", slots={"states": 1}, states=torch.ones(1, SLOTS, width))


def stream(graph: GraphModule, move: Callable[[Tensor, int], Tensor], widths: float = 1.0) -> SecondStream:
    """Return a pass of one layer, whose queries are the second stream itself and more.

    Args:
        graph: The model.
        move: What comes behind the layer, from all that is side by side, and the size of a state.
        widths: How wide the queries are, beside what the layer has.
    """
    node = calls(graph, ATTENTION)[0]
    _, heads, _, head_size = node.args[0].meta["val"].shape  # type: ignore[union-attr]  # a node, as all inputs are
    size = layer_output(graph, layers(graph)[0]).meta["val"].shape[-1]
    wide = int(heads * head_size * widths)

    def ask(states: Tensor) -> Tensor:
        return torch.cat([states] * (-(-wide // size)), -1)[..., :wide]

    return SecondStream(
        "fast",
        (part(ask, size),),
        (part(lambda joined: move(joined, size), 3 * size + wide),),
        part(lambda states: states[..., :1], size),
    )


@torch.no_grad()
def test_a_stream_that_is_the_models_own_leaves_the_exit_as_it_is() -> None:
    ours, theirs = prepared("llama"), prepared("llama")
    passes.run([ExitAfter(1), stream(ours, lambda joined, size: joined[..., 2 * size : 3 * size])], ours)
    passes.run([ExitAfter(1)], theirs)
    torch.testing.assert_close(logits(ours), logits(theirs))
    assert "state:fast" in outputs(ours)


@torch.no_grad()
def test_the_layers_own_attention_stays_and_one_call_serves_both_streams() -> None:
    graph = prepared("llama")
    before = len(calls(graph, ATTENTION))
    heads = calls(graph, ATTENTION)[0].meta["val"].shape[1]
    truth = logits(prepared("llama"))
    passes.run([stream(graph, lambda joined, size: joined[..., 2 * size : 3 * size])], graph)
    assert len(calls(graph, ATTENTION)) == before
    assert calls(graph, ATTENTION)[0].meta["val"].shape[1] == 2 * heads
    torch.testing.assert_close(logits(graph), truth)


@torch.no_grad()
def test_what_the_second_stream_attends_to_reaches_it() -> None:
    ours, theirs = prepared("llama"), prepared("llama")
    passes.run([ExitAfter(1), stream(ours, lambda joined, size: joined[..., -size:])], ours)
    passes.run([ExitAfter(1)], theirs)
    assert not torch.allclose(logits(ours), logits(theirs), atol=1e-2)


def test_queries_of_other_heads_are_refused() -> None:
    graph = prepared("llama")
    with pytest.raises(PassError, match="it needs as many, and attention without sinks"):
        passes.run([stream(graph, lambda joined, size: joined[..., :size], widths=0.5)], graph)


def test_a_model_whose_neighbours_turn_is_refused() -> None:
    graph = prepared("cohere")
    with pytest.raises(PassError, match="turns neighbours, and a second stream is trained to turn halves"):
        passes.run([stream(graph, lambda joined, size: joined[..., :size])], graph)
