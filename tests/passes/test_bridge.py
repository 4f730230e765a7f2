"""Bridge: a trained module in the place of layers that a block leaves out."""

from __future__ import annotations

import pytest
import torch
from blocks import CAPACITY, run
from graphs import model, prepared, stack, tokens, truth
from small_graphs import Layer, Layers, hidden_states, small
from torch import Tensor, nn

from specc import passes
from specc.passes.bridge import Bridge
from specc.passes.exit_after import ExitAfter
from specc.passes.guess_slots import GuessSlots
from specc.passes.skip_sublayers import SkipSublayers
from specc.runtime import block as blocks

pytestmark = pytest.mark.torch


class Double(nn.Module):
    """A module that doubles states, and adds a vector."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.randn(size, generator=torch.Generator().manual_seed(5)))

    def forward(self, states: Tensor) -> Tensor:
        return 2 * states + self.vector


def bridge(size: int) -> Bridge:
    return Bridge("mask", (0,), small(Double(size), "states", states=torch.ones(1, 7, size)))


def test_the_module_stands_in_the_place_of_the_skipped_layer() -> None:
    whole, x = Layers(Layer(0), Layer(1), Layer(2)), hidden_states()
    graph = small(whole, x=x)
    passes.run([SkipSublayers((1,), (1,)), bridge(x.shape[-1])], graph)
    first, _, last = whole.layers
    torch.testing.assert_close(graph(x)["logits"], whole.head(last(Double(x.shape[-1])(first(x)))))


def test_a_bridge_reads_several_layers_and_stands_before_the_exit() -> None:
    whole, x = Layers(Layer(0), Layer(1), Layer(2)), hidden_states()
    size = x.shape[-1]
    both = small(lambda states: states[..., :size] - states[..., size:], "states", states=torch.cat([x, x], -1))
    graph = small(whole, x=x)
    passes.run([ExitAfter(2), Bridge("fast", (0, 1), both)], graph)
    first = whole.layers[0](x)
    torch.testing.assert_close(graph(x)["logits"], whole.head(first - whole.layers[1](first)))


@torch.no_grad()
def test_slots_that_guess_cross_the_bridge_too() -> None:
    """The last guess is what transformers says of the mask behind the text, without the skipped layer."""
    size, mask = model("llama").config.hidden_size, torch.full((64,), 0.3)
    starts = small(lambda states: 0 * states[:, :, None] + mask, "starts", states=torch.ones(1, 7, size))
    count = tokens().shape[1]
    topology = blocks.GuessTree((*range(-1, count),), count, "mask")
    skipped = blocks.Layers(skip_attention=(1,), skip_mlp=(1,), bridge="mask")
    guesses = GuessSlots("mask", None, 1, starts)
    graph = prepared("llama")
    passes.run(
        passes.pipeline(blocks.Block(topology, layers=skipped), CAPACITY, guesses=[guesses], bridges=[bridge(size)]),
        graph,
    )
    ids = torch.cat([tokens(), torch.zeros(1, 1, dtype=torch.long)], 1)
    ours = run(graph, ids, {}, 0)["logits"][0]
    _, layers = stack("llama")

    def enter(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return torch.cat([args[0][:, :-1], mask.expand(1, 1, -1)], 1), *args[1:]

    states: list[Tensor] = []
    hooks = [
        layers[0].register_forward_pre_hook(enter),
        layers[0].register_forward_hook(lambda module, args, output: states.append(Double(size)(output))),
        layers[1].register_forward_hook(lambda module, args, output: states[0]),
    ]
    try:
        torch.testing.assert_close(ours, truth("llama", ids), atol=1e-4, rtol=1e-4)
    finally:
        for hook in hooks:
            hook.remove()
