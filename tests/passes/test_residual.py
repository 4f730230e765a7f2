"""The residual sums of a layer, however it writes them."""

from __future__ import annotations

import pytest
import torch
from graphs import EIGHT, prepared
from small_graphs import Layer, Layers, ParallelLayer, hidden_states, small
from torch import Tensor, nn

from specc.passes.find import layers
from specc.passes.residual import residual_sums
from specc.runtime.errors import PassError

pytestmark = pytest.mark.torch

PATH = "model.layers.0"


class Turned(Layer):
    """The branch before the stream, and a view of the sum."""

    def forward(self, x: Tensor) -> Tensor:
        x = (self.self_attn(x) + x).view(x.shape)
        return self.mlp(x) + x  # type: ignore[no-any-return]


class Nested(Layer):
    """A parallel layer that adds its branches first."""

    def forward(self, x: Tensor) -> Tensor:
        return (self.mlp(x) + self.self_attn(x)) + x  # type: ignore[no-any-return]


class Scaled(Layer):
    """Branches that the layer scales before it adds them."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(x) * 0.5
        return x + self.mlp(x) * 0.5  # type: ignore[no-any-return]


class NormedBehind(Layer):
    """Norms behind the sums: the second sum's stream is not a sum itself."""

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.layer_norm(x + self.self_attn(x), (4,))
        return nn.functional.layer_norm(self.mlp(x) + x, (4,))


SUMS = {  # layer -> the add and the branch of attention, of the MLP, and of the input
    Layer: (("add", "attention"), ("add_1", "linear"), ("add", "x")),
    Turned: (("add", "attention"), ("add_1", "linear"), ("add", "x")),
    ParallelLayer: (("add", "attention"), ("add_1", "linear"), ("add", "x")),
    Nested: (("add", "attention"), ("add", "linear"), ("add_1", "x")),
    NormedBehind: (("add", "attention"), ("add_1", "linear"), ("add", "x")),
    Scaled: (("add", "mul"), ("add_1", "mul_1"), ("add", "x")),
}


@pytest.mark.parametrize("kind", SUMS, ids=lambda kind: kind.__name__)
def test_each_addend_has_its_role(kind: type[Layer]) -> None:
    graph = small(Layers(kind(0), Layer(1)), x=hidden_states())
    sums = residual_sums(graph, PATH)
    roles = tuple((sums[role].add.name, sums[role].branch.name) for role in ("attention", "mlp", "input"))
    assert roles == SUMS[kind] and len(sums) == 3


class TwoMlps(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.self_attn(x) + self.mlp(x) + self.mlp(x * 2)  # type: ignore[no-any-return]


class NoMlp(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.self_attn(x)  # type: ignore[no-any-return]


class NoSum(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.self_attn(x))  # type: ignore[no-any-return]


class TwoAttentions(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.self_attn(x) + self.self_attn(x * 2)  # type: ignore[no-any-return]


BAD = {
    TwoMlps: "two addends of its residual sum look like its mlp",
    TwoAttentions: "two addends of its residual sum look like its attention",
    NoMlp: "its residual sum has no addend for mlp",
    NoSum: "its residual sum has no addend for attention, input, mlp",
}


@pytest.mark.parametrize("kind", BAD, ids=lambda kind: kind.__name__)
def test_a_layer_of_another_kind_is_refused_with_what_is_wrong(kind: type[Layer]) -> None:
    graph = small(Layers(kind(0), Layer(1)), x=hidden_states())
    with pytest.raises(PassError, match=rf"{PATH}: {BAD[kind]}$"):
        residual_sums(graph, PATH)


@pytest.mark.parametrize("family", EIGHT)
def test_the_layers_of_models_have_every_role(family: str) -> None:
    graph = prepared(family)
    for path in layers(graph).values():
        assert sorted(residual_sums(graph, path)) == ["attention", "input", "mlp"]


def test_the_sums_are_named_tuples_of_an_add_and_a_branch() -> None:
    add, branch = residual_sums(small(Layers(), x=hidden_states()), PATH)["mlp"]
    assert branch in add.args and add.target is torch.ops.aten.add.Tensor
