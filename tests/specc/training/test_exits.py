"""The logits of a draft model at its exits."""

from __future__ import annotations

import pytest
import torch
from graphs import SLOTS, logits, model, prepared, tokens

from specc import passes
from specc.passes.exit_after import ExitAfter
from specc.training.exits import exit_logits, parameters_read
from specc.training.recursive import share_layers

pytestmark = pytest.mark.torch


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_they_are_those_of_a_graph_that_ends_there(family: str) -> None:
    draft = model(family)
    rows = torch.arange(SLOTS)[None] % 3 != 1
    by_exit = exit_logits(draft, tokens(), rows, [1, 2, 3])
    for count, values in zip((1, 2), by_exit, strict=False):
        graph = prepared(family)
        passes.run([ExitAfter(count)], graph)
        torch.testing.assert_close(values, logits(graph)[rows[0]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(by_exit[2], draft(input_ids=tokens()).logits[rows])
    assert not torch.allclose(by_exit[1], by_exit[2], atol=1e-2)


def test_the_loss_of_an_exit_changes_no_layer_behind_it() -> None:
    draft = share_layers(model("llama"), 3, 2)  # a copy, whose weights may have slopes
    draft.requires_grad_(True)
    torch.autograd.backward(exit_logits(draft, tokens(), torch.ones(1, SLOTS, dtype=torch.bool), [2]).square().sum())
    layers = draft.get_submodule("model.layers")
    slopes = [layers.get_parameter(f"{index}.mlp.up_proj.down").grad for index in range(3)]
    assert slopes[0] is not None and slopes[1] is not None and slopes[2] is None


def test_a_draft_that_ends_early_reads_fewer_numbers_and_shared_ones_once_a_loop() -> None:
    draft = model("llama")
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in draft.get_submodule("model.layers").children()]
    whole = sum(parameter.numel() for parameter in draft.parameters())
    assert [parameters_read(draft, count) for count in (1, 2, 3)] == [whole - sum(sizes[1:]), whole - sizes[2], whole]
    recursive = share_layers(draft, 3, 2)
    first, second, third = (parameters_read(recursive, count) for count in (1, 2, 3))
    assert third - second == second - first > sizes[0]
    assert sum(parameter.numel() for parameter in recursive.parameters()) < third
