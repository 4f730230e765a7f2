"""ExitAfter and SkipSublayers against the model with the same sublayers taken out of its module tree."""

from __future__ import annotations

import copy

import pytest
import torch
from families import tiny
from graphs import EIGHT, logits, prepared, tokens
from torch import nn
from torch.fx import GraphModule

from specc import passes
from specc.passes.exit_after import ExitAfter
from specc.passes.find import layers, sublayers
from specc.passes.skip_sublayers import SkipSublayers
from specc.runtime.errors import PassError

pytestmark = pytest.mark.torch


def _stack(model: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds the list of layers, and its name there."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == 3 and hasattr(child[0], "forward"):
                return module, name
    raise AssertionError("no list of layers")


@torch.no_grad()
def _without(family: str, gone: set[int]) -> torch.Tensor:
    model = copy.deepcopy(tiny(family))
    holder, name = _stack(model)
    for i in gone:
        getattr(holder, name)[i].forward = lambda hidden, *args, **kwargs: hidden  # type: ignore[method-assign]
    value: torch.Tensor = model(input_ids=tokens(), use_cache=False).logits[0]
    return value


def _run(graph: GraphModule, *chosen: passes.Pass) -> torch.Tensor:
    passes.run(list(chosen), graph)
    return logits(graph)


@pytest.mark.parametrize("family", EIGHT)
def test_an_exit_is_the_model_without_the_layers_after_it(family: str) -> None:
    graph = prepared(family)
    torch.testing.assert_close(_run(graph, ExitAfter(1)), _without(family, {1, 2}), atol=1e-4, rtol=1e-4)
    assert list(sublayers(graph)) == ["0"]


@pytest.mark.parametrize("family", EIGHT)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_layer_skipped_whole_is_the_model_without_it(family: str, layer: int) -> None:
    graph = prepared(family)
    found = _run(graph, SkipSublayers((layer,), (layer,)))
    torch.testing.assert_close(found, _without(family, {layer}), atol=1e-4, rtol=1e-4)
    assert list(sublayers(graph)) == [str(i) for i in range(3) if i != layer]


@pytest.mark.parametrize("family", EIGHT)
def test_half_layers_add_up(family: str) -> None:
    """Attention out and MLP out of one layer, one after the other, is the whole layer out."""
    whole, halves = prepared(family), prepared(family)
    expected = _run(whole, SkipSublayers((1,), (1,)))
    passes.run([SkipSublayers(attention=(1,))], halves)
    assert list(sublayers(halves)) == ["0", "1.mlp", "2"]
    alone = logits(halves)
    assert not torch.allclose(alone, expected, atol=1e-3) and not torch.allclose(
        alone, logits(prepared(family)), atol=1e-3
    )
    both = _run(prepared(family), SkipSublayers(attention=(1,), mlp=(1,)))
    torch.testing.assert_close(both, expected)


@pytest.mark.parametrize("bad", [0, 3, -1])
def test_an_exit_out_of_range_names_the_layers(bad: int) -> None:
    with pytest.raises(PassError, match=rf"no exit after layer {bad}; the graph has 3 layers: take 1..2"):
        passes.run([ExitAfter(bad)], prepared("llama"))


def test_a_layer_that_is_not_there_and_a_model_that_no_longer_attends() -> None:
    with pytest.raises(PassError, match=r"no layer 7; the graph has 0..2"):
        passes.run([SkipSublayers(mlp=(7,))], prepared("llama"))
    with pytest.raises(PassError, match="keep one layer's attention"):
        passes.run([SkipSublayers(attention=(0, 1, 2))], prepared("llama"))


def test_layers_are_found_by_module_path() -> None:
    assert layers(prepared("gpt2")) == {i: f"model.transformer.h.{i}" for i in range(3)}
