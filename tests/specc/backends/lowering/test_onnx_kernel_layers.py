"""Halves of layers as single operators: what becomes one, and what stays apart."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from engine_bench import Bench
from expecttest import assert_expected_inline
from graphs import prepared
from small_graphs import rewrite, small
from torch import Tensor, nn

from specc import passes
from specc.backends import Options
from specc.backends.lowering.onnx_kernel_layers import GatedMLPs
from specc.compiler.panels import PackPanels
from specc.runtime.block import Block
from specc.runtime.tree import Tree

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("translations")]
SLOTS = 3
X = torch.ones(1, SLOTS, 4)


class Network(nn.Module):
    """A gated network from 4 values to 4, by 6 between, with what comes behind it."""

    gate: Tensor
    up: Tensor
    down: Tensor
    norm: Tensor

    def __init__(self, down: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("gate", torch.ones(1, 4, 32))
        self.register_buffer("up", torch.ones(1, 4, 32))
        self.register_buffer(
            "down", torch.ones(1, 6, 32) if down == torch.float32 else torch.ones(1, 3, 32, 2, dtype=down)
        )
        self.register_buffer("norm", torch.ones(4))

    def network(self, x: Tensor) -> Tensor:
        gate = torch.ops.specc.panel_linear(x, self.gate, 6, 4)
        up = torch.ops.specc.panel_linear(x, self.up, 6, 4)
        return torch.ops.specc.panel_linear(nn.functional.silu(gate) * up, self.down, 4, 6)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        total = residual + self.network(x)
        return torch.ops.specc.rms_norm(total, self.norm, 1e-5) + total  # type: ignore[no-any-return]


class Alone(Network):
    """A gated network with no sum behind it."""

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.network(x) * residual


class GateIsRead(Network):
    """A gated network whose gate something else reads, too."""

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        gate = torch.ops.specc.panel_linear(x, self.gate, 6, 4)
        up = torch.ops.specc.panel_linear(x, self.up, 6, 4)
        return torch.ops.specc.panel_linear(nn.functional.silu(gate) * up, self.down, 4, 6) * gate[..., :4]  # type: ignore[no-any-return]


class TwoInputs(Network):
    """A gated network whose gate and values come from two inputs."""

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        gate = torch.ops.specc.panel_linear(x, self.gate, 6, 4)
        up = torch.ops.specc.panel_linear(residual, self.up, 6, 4)
        return torch.ops.specc.panel_linear(nn.functional.silu(gate) * up, self.down, 4, 6)  # type: ignore[no-any-return]


def test_a_gated_network_takes_in_the_sum_and_the_norm_behind_it() -> None:
    assert_expected_inline(
        rewrite(small(Network(torch.bfloat16), x=X, residual=X.clone()), GatedMLPs(SLOTS)),
        """\
inputs x, residual
panel_linear_1 = specc.panel_linear(x, self.gate, 6, 4)
panel_linear_2 = specc.panel_linear(x, self.up, 6, 4)
silu_1 = silu(panel_linear_1)
mul_1 = mul(silu_1, panel_linear_2)
panel_linear_3 = specc.panel_linear(mul_1, self.down, 4, 6)
add_1 = add(residual, panel_linear_3)
rms_norm_1 = specc.rms_norm(add_1, self.norm, 1e-05)
add_2 = add(rms_norm_1, add_1)
return {logits: add_2}
--> GatedMLPs(slots=3) changed 1
inputs x, residual
gated_mlp_1 = specc.GatedMLP(x, residual, self.norm, self.gate, None, None, None, None, self.up,
    None, None, None, None, self.down, hidden=6, columns=4, k=4, epsilon=1e-05)
item_1 = gated_mlp_1[0]
item_2 = gated_mlp_1[1]
add_1 = add(item_1, item_2)
return {logits: add_1}""",
    )


def test_a_gated_network_alone() -> None:
    assert_expected_inline(
        rewrite(small(Alone(), x=X, residual=X.clone()), GatedMLPs(SLOTS)),
        """\
inputs x, residual
panel_linear_1 = specc.panel_linear(x, self.gate, 6, 4)
panel_linear_2 = specc.panel_linear(x, self.up, 6, 4)
silu_1 = silu(panel_linear_1)
mul_1 = mul(silu_1, panel_linear_2)
panel_linear_3 = specc.panel_linear(mul_1, self.down, 4, 6)
mul_2 = mul(panel_linear_3, residual)
return {logits: mul_2}
--> GatedMLPs(slots=3) changed 1
inputs x, residual
gated_mlp_1 = specc.GatedMLP(x, None, None, self.gate, None, None, None, None, self.up, None, None,
    None, None, self.down, hidden=6, columns=4, k=4, epsilon=0.0)
item_1 = gated_mlp_1[0]
mul_1 = mul(item_1, residual)
return {logits: mul_1}""",
    )


@pytest.mark.parametrize("module", [GateIsRead, TwoInputs])
def test_values_that_something_else_needs_stay(module: type[Network]) -> None:
    graph = small(module(), x=X, residual=X.clone())
    (record,) = passes.run([GatedMLPs(SLOTS)], graph)
    assert record.changed == 0


def operators_of(family: str, directory: Path) -> list[str]:
    """Return the operators of specc-kernels in a decoding engine of a tiny model, in order."""
    graph = passes.fork(prepared(family))
    passes.run([PackPanels()], graph)
    bench = Bench(family, directory, {"decode": Block(Tree.chain(1))}, graph, options=Options("kernels"))
    model = ir.load(directory / bench.specs["decode"].file)
    return [node.op_type for node in model.graph if node.domain == "specc"]


@pytest.mark.parametrize(
    ("family", "layer"),
    [
        ("llama", ["ProjectedAttention", "GatedMLP"]),
        ("qwen2", ["ProjectedAttention", "GatedMLP"]),  # its queries, keys and values have biases
        ("qwen3", ["LinearF32", "TreeAttention", "LinearF32", "GatedMLP"]),  # it has norms before attention
        # Its queries, keys and values take turns, and its networks have no gates.
        ("gpt_neox", ["LinearF32", "TreeAttention", "LinearF32", "LinearF32", "LinearF32"]),
    ],
)
def test_a_layer_has_few_nodes(family: str, layer: list[str], tmp_path: Path) -> None:
    pytest.importorskip("specc_kernels", reason="specc-kernels is not built; pip install ./kernels")
    own = [name for name in operators_of(family, tmp_path) if name not in ("GatherBF16", "ArgMax")]
    assert own[: len(layer)] == layer
    assert own == [*layer * (len(own) // len(layer)), "LinearF32"]
