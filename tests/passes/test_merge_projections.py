"""MergeProjections: queries, keys and values by one product."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from expecttest import assert_expected_inline
from graphs import captured, logits, truth
from small_graphs import graph_text, rewrite, small
from torch import Tensor, nn
from torch.fx import GraphModule

from specc import passes
from specc.passes import find
from specc.passes.merge_projections import MergeProjections
from specc.runtime.errors import SpeccWarning

pytestmark = pytest.mark.torch

Between = Callable[[Tensor], Tensor]


def nothing(x: Tensor) -> Tensor:
    return x


class Projected(nn.Module):
    """Attention of two heads of two sizes behind three products, with `between` on the queries."""

    def __init__(self, between: Between = nothing, biases: str = "qkv", tied: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.between = between
        self.q, self.k, self.v = (nn.Linear(4, 4, bias=name in biases) for name in "qkv")
        if tied:
            self.v.weight = self.k.weight

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p(x).view(1, -1, 2, 2).transpose(1, 2) for p in (self.q, self.k, self.v))
        return torch.ops.specc.attention(self.between(q), k, v, None, 0.5, 0, 0.0, 0)  # type: ignore[no-any-return]


def values() -> Tensor:
    return torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_three_products_become_slices_of_one() -> None:
    model, x = Projected(), values()
    graph = small(model, x=x)
    assert_expected_inline(
        rewrite(graph, MergeProjections()),
        """\
inputs x
linear_1 = linear(x, self.q.weight, self.q.bias)
view_1 = view(linear_1, [1, -1, 2, 2])
transpose_1 = transpose(view_1, 1, 2)
linear_2 = linear(x, self.k.weight, self.k.bias)
view_2 = view(linear_2, [1, -1, 2, 2])
transpose_2 = transpose(view_2, 1, 2)
linear_3 = linear(x, self.v.weight, self.v.bias)
view_3 = view(linear_3, [1, -1, 2, 2])
transpose_3 = transpose(view_3, 1, 2)
attention_1 = specc.attention(transpose_1, transpose_2, transpose_3, None, 0.5, 0, 0.0, 0)
return {logits: attention_1}
--> MergeProjections() changed 1
inputs x
linear_1 = linear(x, self.q.merged_weight, self.q.merged_bias)
slice_1 = slice(linear_1, 2, 0, 4)
slice_2 = slice(linear_1, 2, 4, 8)
slice_3 = slice(linear_1, 2, 8, 12)
view_1 = view(slice_1, [1, -1, 2, 2])
transpose_1 = transpose(view_1, 1, 2)
view_2 = view(slice_2, [1, -1, 2, 2])
transpose_2 = transpose(view_2, 1, 2)
view_3 = view(slice_3, [1, -1, 2, 2])
transpose_3 = transpose(view_3, 1, 2)
attention_1 = specc.attention(transpose_1, transpose_2, transpose_3, None, 0.5, 0, 0.0, 0)
return {logits: attention_1}""",
    )
    merged = graph.get_buffer("model.q.merged_weight")
    assert torch.equal(merged, torch.cat([model.q.weight, model.k.weight, model.v.weight]))
    torch.testing.assert_close(graph(x)["logits"], model(x))
    whole, *slices = (node for node in graph.graph.nodes if node.op == "call_function")
    assert [tuple(node.meta["val"].shape) for node in (whole, *slices[:3])] == [(1, 3, 12), *[(1, 3, 4)] * 3]


@torch.no_grad()
@pytest.mark.parametrize("biases", ["", "qkv"])
def test_with_and_without_biases_the_value_is_kept(biases: str) -> None:
    model, x = Projected(biases=biases), values()
    graph = small(model, x=x)
    (record,) = passes.run([MergeProjections()], graph)
    assert record.changed == 1 and record.note == ""
    torch.testing.assert_close(graph(x)["logits"], model(x))


def rotated(q: Tensor) -> Tensor:
    tables = torch.ones(3, 1), torch.zeros(3, 1)
    return torch.ops.specc.rotary(q, *tables, torch.arange(3)[None], False)  # type: ignore[no-any-return]


def normed(q: Tensor) -> Tensor:
    return nn.functional.layer_norm(q, (2,))


def scaled(q: Tensor) -> Tensor:
    return q * 0.5


def by_slot(q: Tensor) -> Tensor:
    return q * torch.arange(3.0).view(1, 1, 3, 1)


@torch.no_grad()
@pytest.mark.parametrize("between", [rotated, normed, scaled, by_slot, lambda q: rotated(normed(scaled(q)))])
def test_what_stands_between_the_products_and_attention_stays(between: Between) -> None:
    model, x = Projected(between), values()
    graph = small(model, x=x)
    expected, linears = graph(x)["logits"], len(find.calls(graph, find.aten.linear.default))
    (record,) = passes.run([MergeProjections()], graph)
    assert (record.changed, record.note, linears) == (1, "", 3)
    assert len(find.calls(graph, find.aten.linear.default)) == 1
    torch.testing.assert_close(graph(x)["logits"], expected)


class TwoLayers(nn.Module):
    """Two attentions, one behind the other. Their products share matrices as `shared` says, and have own biases."""

    def __init__(self, shared: dict[str, str]) -> None:
        super().__init__()
        self.first, self.second = Projected(), Projected()
        for name, other in shared.items():
            self.second.get_submodule(name).weight = self.first.get_submodule(other).weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).transpose(1, 2).reshape(1, -1, 4))  # type: ignore[no-any-return]


@torch.no_grad()
def test_layers_that_share_their_matrices_share_the_merged_one() -> None:
    model, x = TwoLayers({"q": "q", "k": "k", "v": "v"}), values()
    graph = small(model, x=x)
    (record,) = passes.run([MergeProjections()], graph)
    assert record.changed == 2
    linears = find.calls(graph, find.aten.linear.default)
    assert len(linears) == 2 and linears[0].args[1] is linears[1].args[1]
    assert linears[0].args[2] is not linears[1].args[2]
    torch.testing.assert_close(graph(x)["logits"], model(x))


@pytest.mark.parametrize("shared", [{"q": "q"}, {"q": "k", "k": "q", "v": "v"}], ids=str)
def test_layers_that_share_matrices_in_another_way_stay_as_they_are(shared: dict[str, str]) -> None:
    graph = small(TwoLayers(shared), x=values())
    with pytest.warns(SpeccWarning, match="whose matrix is computed, or used elsewhere"):
        (record,) = passes.run([MergeProjections()], graph)
    assert record.changed == 0


MISSES: dict[str, tuple[Projected, str]] = {
    "one bias": (Projected(biases="qk"), "attention in model has products with a bias and products without one"),
    "one matrix": (
        Projected(tied=True),
        "attention in model has a product whose matrix is computed, or used elsewhere",
    ),
}


@pytest.mark.parametrize("name", MISSES)
def test_projections_that_stay_apart_are_named_with_the_reason(name: str) -> None:
    model, reason = MISSES[name]
    graph = small(model, x=values())
    before = graph_text(graph)
    with pytest.warns(SpeccWarning) as warned:
        (record,) = passes.run([MergeProjections()], graph)
    assert record.changed == 0 and graph_text(graph) == before
    assert [str(w.message) for w in warned] == [record.note]
    miss = record.note.removeprefix("MergeProjections changed nothing; nearest: ")
    assert miss == f"{reason}; the model compiles, but runs slower"


class TwoAttentions(nn.Module):
    """The outputs of two attentions of one input, added."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)  # type: ignore[no-any-return]


BY_FIT: dict[Callable[[], Projected], str] = {  # a part of the reason, the form that fits least first
    lambda: Projected(biases="qk"): "products with a bias and products without one",
    lambda: Projected(tied=True): "whose matrix is computed, or used elsewhere",
}


@pytest.mark.parametrize(("worse", "better"), pairwise(BY_FIT), ids=lambda form: BY_FIT[form])
def test_the_nearest_of_two_misses_is_the_one_that_fits_further(
    worse: Callable[[], Projected], better: Callable[[], Projected]
) -> None:
    """Whichever comes first in the graph."""
    for model in (TwoAttentions(worse(), better()), TwoAttentions(better(), worse())):
        miss = MergeProjections().nearest_miss(small(model, x=values()))
        assert miss is not None and BY_FIT[better] in miss.reason


class OneProduct(Projected):
    """Queries, keys and values as parts of one product already."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x).view(1, -1, 2, 2).transpose(1, 2).expand(3, 2, -1, 2).unsqueeze(1)
        return torch.ops.specc.attention(q, k, v, None, 0.5, 0, 0.0, 0)  # type: ignore[no-any-return]


class OtherInputs(Projected):
    """Keys and values of another input than the queries."""

    def forward(self, x: Tensor) -> Tensor:
        y = x + 1
        q, k, v = (p(z).view(1, -1, 2, 2).transpose(1, 2) for p, z in ((self.q, x), (self.k, y), (self.v, y)))
        return torch.ops.specc.attention(q, k, v, None, 0.5, 0, 0.0, 0)  # type: ignore[no-any-return]


@pytest.mark.parametrize("model", [OneProduct(), OtherInputs()], ids=lambda m: type(m).__name__)
@pytest.mark.filterwarnings("error")
def test_a_graph_without_three_products_of_one_input_gives_no_warning(model: nn.Module) -> None:
    (record,) = passes.run([MergeProjections()], small(model, x=values()))
    assert (record.changed, record.note) == (0, "")


def test_a_graph_without_attention_has_no_miss() -> None:
    graph: GraphModule = small(lambda x: x * 2, x=torch.ones(2))
    assert MergeProjections()(graph) == 0 and MergeProjections().nearest_miss(graph) is None


@pytest.mark.parametrize("family", ["qwen3", "gemma3_text", "opt"])
@pytest.mark.filterwarnings("error::specc.runtime.errors.SpeccWarning")
def test_a_family_with_norms_or_scales_of_queries_is_merged(family: str) -> None:
    graph = captured(family)
    records = passes.run(passes.preparation(64), graph)
    assert [record.changed for record in records if record.name == "MergeProjections()"] == [3]
    torch.testing.assert_close(logits(graph), truth(family), atol=1e-4, rtol=1e-4)
