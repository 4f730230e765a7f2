"""ExitAfter and SkipSublayers against the model with the same sublayers taken out of its module tree."""

from __future__ import annotations

import pytest
import torch
from graphs import EIGHT, logits, prepared, truth, without

from specc import passes
from specc.passes.exit_after import ExitAfter
from specc.passes.find import layers, sublayers
from specc.passes.skip_sublayers import SkipSublayers
from specc.runtime.errors import PassError

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("family", [*EIGHT, "minicpm3"])
@pytest.mark.parametrize("layer", [1, 2])
def test_an_exit_is_the_model_without_the_layers_after_it(family: str, layer: int) -> None:
    """Nothing of them is left, though what a layer writes in place is used by nobody."""
    graph = prepared(family)
    passes.run([ExitAfter(layer)], graph)
    with without(family, exit_after=layer):
        torch.testing.assert_close(logits(graph), truth(family), atol=1e-4, rtol=1e-4)
    assert list(sublayers(graph)) == [str(i) for i in range(layer)]


@pytest.mark.parametrize("family", EIGHT)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_layer_skipped_whole_is_the_model_without_it(family: str, layer: int) -> None:
    graph = prepared(family)
    passes.run([SkipSublayers((layer,), (layer,))], graph)
    with without(family, attention=layer, mlp=layer):
        torch.testing.assert_close(logits(graph), truth(family), atol=1e-4, rtol=1e-4)
    assert list(sublayers(graph)) == [str(i) for i in range(3) if i != layer]


@pytest.mark.parametrize("family", EIGHT)
def test_sublayers_of_different_layers(family: str) -> None:
    graph = prepared(family)
    passes.run([SkipSublayers(attention=(1,), mlp=(2,))], graph)
    with without(family, attention=1, mlp=2):
        torch.testing.assert_close(logits(graph), truth(family), atol=1e-4, rtol=1e-4)
    assert list(sublayers(graph)) == ["0", "1.mlp", "2.attention"]


@pytest.mark.parametrize("family", EIGHT)
def test_what_is_left_out_would_show(family: str) -> None:
    """The control of the tests above."""
    whole = truth(family)
    for gone in ({"exit_after": 2}, {"attention": 1}, {"mlp": 1}):
        with without(family, **gone):
            assert not torch.allclose(truth(family), whole, atol=1e-2)


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
