"""FuseRMSNorm: RMSNorm however a model writes it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from expecttest import assert_expected_inline
from small_graphs import graph_text, rewrite, small
from torch import Tensor, nn
from torch.fx import GraphModule

from specc import passes
from specc.passes.find import RMS_NORM, calls
from specc.passes.fuse_rms_norm import FuseRMSNorm
from specc.runtime.errors import SpeccWarning

pytestmark = pytest.mark.torch

Norm = Callable[[Tensor, Tensor], Tensor]


class Written(nn.Module):
    """weight * (x / rms(x)), by a function of x and the weight."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.norm, self.weight = norm, nn.Parameter(1 + torch.arange(8.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x, self.weight)


def power(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


def product(x: Tensor, weight: Tensor) -> Tensor:
    return (torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * x) * weight


def square(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x * torch.rsqrt(torch.square(x).mean(-1, keepdim=True) + 1e-5))


def used_twice(x: Tensor, weight: Tensor) -> Tensor:
    normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)
    return weight * normed + normed


def weightless(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) - weight


def scaled(x: Tensor, weight: Tensor) -> Tensor:
    return 3 * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)) + 0 * weight


def gated(x: Tensor, weight: Tensor) -> Tensor:
    return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)) * (x + weight)


def torchs(x: Tensor, weight: Tensor) -> Tensor:
    return nn.functional.rms_norm(x, (8,), weight, 1e-5)


def torchs_own_eps(x: Tensor, weight: Tensor) -> Tensor:
    return nn.functional.rms_norm(x, (8,), weight)


def graph_of(norm: Norm) -> GraphModule:
    return small(Written(norm), x=values())


def values() -> Tensor:
    return torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))


def test_a_norm_and_its_weight_become_one_node() -> None:
    assert_expected_inline(
        rewrite(graph_of(power), FuseRMSNorm()),
        """\
inputs x
pow_1 = pow(x, 2)
mean_1 = mean(pow_1, [-1], True)
add_1 = add(mean_1, 1e-05)
rsqrt_1 = rsqrt(add_1)
mul_1 = mul(x, rsqrt_1)
mul_2 = mul(self.weight, mul_1)
return {logits: mul_2}
--> FuseRMSNorm() changed 1
inputs x
rms_norm_1 = specc.rms_norm(x, self.weight, 1e-05)
return {logits: rms_norm_1}""",
    )


def test_a_norm_without_a_weight_gets_one_of_ones() -> None:
    assert_expected_inline(
        rewrite(graph_of(weightless), FuseRMSNorm()),
        """\
inputs x
pow_1 = pow(x, 2)
mean_1 = mean(pow_1, [-1], True)
add_1 = add(mean_1, 1e-05)
rsqrt_1 = rsqrt(add_1)
mul_1 = mul(x, rsqrt_1)
sub_1 = sub(mul_1, self.weight)
return {logits: sub_1}
--> FuseRMSNorm() changed 1
inputs x
rms_norm_1 = specc.rms_norm(x, self.rms_ones, 1e-05)
sub_1 = sub(rms_norm_1, self.weight)
return {logits: sub_1}""",
    )


def test_a_weight_is_left_outside_if_the_normed_value_is_used_elsewhere() -> None:
    assert_expected_inline(
        rewrite(graph_of(used_twice), FuseRMSNorm()),
        """\
inputs x
pow_1 = pow(x, 2)
mean_1 = mean(pow_1, [-1], True)
add_1 = add(mean_1, 1e-05)
rsqrt_1 = rsqrt(add_1)
mul_1 = mul(x, rsqrt_1)
mul_2 = mul(self.weight, mul_1)
add_2 = add(mul_2, mul_1)
return {logits: add_2}
--> FuseRMSNorm() changed 1
inputs x
rms_norm_1 = specc.rms_norm(x, self.rms_ones, 1e-05)
mul_1 = mul(self.weight, rms_norm_1)
add_1 = add(mul_1, rms_norm_1)
return {logits: add_1}""",
    )


def test_torchs_own_operator_gets_the_eps_of_its_type() -> None:
    assert_expected_inline(
        rewrite(graph_of(torchs_own_eps), FuseRMSNorm()),
        """\
inputs x
rms_norm_1 = rms_norm(x, [8], self.weight)
return {logits: rms_norm_1}
--> FuseRMSNorm() changed 1
inputs x
rms_norm_1 = specc.rms_norm(x, self.weight, 1.1920928955078125e-07)
return {logits: rms_norm_1}""",
    )


@pytest.mark.parametrize(
    "norm", [power, product, square, used_twice, weightless, scaled, gated, torchs, torchs_own_eps]
)
@torch.no_grad()
def test_it_becomes_one_node_of_the_same_value(norm: Norm) -> None:
    x, graph = values(), graph_of(norm)
    (record,) = passes.run([FuseRMSNorm()], graph)
    assert record.changed == len(calls(graph, RMS_NORM)) == 1 and record.note == ""
    torch.testing.assert_close(graph(x)["logits"], norm(x, 1 + torch.arange(8.0)))


def root_and_quotient(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


def power_of_minus_a_half(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x * (x.pow(2).mean(-1, keepdim=True) + 1e-5).pow(-0.5))


def sum_of_squares(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) / 8 + 1e-5))


def maximum(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True).clamp(min=1e-5)))


def over_another_axis(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-5))


def torchs_over_two_axes(x: Tensor, weight: Tensor) -> Tensor:
    return nn.functional.rms_norm(x, (3, 8)) * weight


def torchs_without_weight(x: Tensor, weight: Tensor) -> Tensor:
    return nn.functional.rms_norm(x, (8,)) * weight


MISSES: dict[Norm, str] = {
    root_and_quotient: "div in model scales a value by its mean square through add, sqrt, div; a rsqrt is expected",
    power_of_minus_a_half: "mul in model scales a value by its mean square through add, pow, mul; a rsqrt is expected",
    sum_of_squares: "rsqrt in model takes div, which is not a mean over the last axis that keeps it",
    maximum: "rsqrt in model takes clamp, which is not the sum of a mean and a number",
    over_another_axis: "rsqrt in model takes mean, which is not a mean over the last axis that keeps it",
    torchs_over_two_axes: "rms_norm in model normalises over the axes [3, 8]; only the last one is fused",
    torchs_without_weight: "rms_norm in model has no weight",
}


@pytest.mark.parametrize("norm", MISSES)
def test_a_norm_in_an_unknown_form_is_named_with_the_reason(norm: Norm) -> None:
    """It stays as it is, and the compile goes on."""
    graph = graph_of(norm)
    before = graph_text(graph)
    with pytest.warns(SpeccWarning) as warned:
        (record,) = passes.run([FuseRMSNorm()], graph)
    assert record.changed == 0 and graph_text(graph) == before
    assert [str(w.message) for w in warned] == [record.note]
    miss = record.note.removeprefix("FuseRMSNorm changed nothing; nearest: ")
    assert miss == f"{MISSES[norm]}; the model compiles, but runs slower"


def cubes(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x * torch.rsqrt(x.pow(3).abs().mean(-1, keepdim=True) + 1e-5))


def of_another_value(x: Tensor, weight: Tensor) -> Tensor:
    return weight * ((x - 1) * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


def layer_norm(x: Tensor, weight: Tensor) -> Tensor:
    return nn.functional.layer_norm(x, (8,), weight)


def mean_square_error(x: Tensor, weight: Tensor) -> Tensor:
    return (x - weight).pow(2).mean(-1, keepdim=True) * weight


@pytest.mark.parametrize("norm", [cubes, of_another_value, layer_norm, mean_square_error])
@pytest.mark.filterwarnings("error")
def test_a_graph_without_rms_norm_gives_no_warning(norm: Norm) -> None:
    (record,) = passes.run([FuseRMSNorm()], graph_of(norm))
    assert (record.changed, record.note) == (0, "")


@pytest.mark.filterwarnings("error")
def test_a_norm_in_an_unknown_form_beside_known_ones_gives_no_warning() -> None:
    (record,) = passes.run([FuseRMSNorm()], graph_of(lambda x, weight: power(root_and_quotient(x, weight), weight)))
    assert (record.changed, record.note) == (1, "")


def mean_of_means(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True).mean(-1, keepdim=True) + 1e-5))


def divided(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x / torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


BY_FIT: dict[Norm, str] = {  # form -> a part of the reason, the form that fits least first
    root_and_quotient: "a rsqrt is expected",
    maximum: "not the sum of a mean and a number",
    over_another_axis: "not a mean over the last axis",
    mean_of_means: "not a square",
    divided: "does not multiply x, whose squares it takes",
}


@pytest.mark.parametrize(("worse", "better"), pairwise(BY_FIT), ids=lambda norm: norm.__name__)
def test_the_nearest_of_two_misses_is_the_one_that_fits_further(worse: Norm, better: Norm) -> None:
    """Whichever comes first in the graph."""
    for norm in (
        lambda x, weight: better(x, weight) + worse(x, weight),
        lambda x, weight: worse(x, weight) + better(x, weight),
    ):
        miss = FuseRMSNorm().nearest_miss(graph_of(norm))
        assert miss is not None and BY_FIT[better] in miss.reason


@pytest.mark.parametrize(
    ("better", "worse"), [(torchs_without_weight, mean_of_means), (mean_of_means, torchs_over_two_axes)]
)
def test_torchs_norm_without_a_weight_is_nearer_than_one_over_two_axes(better: Norm, worse: Norm) -> None:
    miss = FuseRMSNorm().nearest_miss(graph_of(lambda x, weight: worse(x, weight) + better(x, weight)))
    assert miss is not None and ("rms_norm" in miss.node.name) is (better is torchs_without_weight)


@pytest.mark.parametrize(("calls_between", "is_norm"), [(3, True), (4, False)])
def test_what_is_scaled_many_calls_behind_a_mean_is_not_taken_for_a_norm(calls_between: int, is_norm: bool) -> None:
    """Six calls lead from the mean of squares to the quotient, or seven: add, sqrt, div and those between."""

    def long(x: Tensor, weight: Tensor) -> Tensor:
        scale = x.pow(2).mean(-1, keepdim=True) + 1e-5
        for _ in range(calls_between):
            scale = scale.abs()
        return weight * (x / torch.sqrt(scale))

    miss = FuseRMSNorm().nearest_miss(graph_of(long))
    assert (miss is not None) is is_norm
