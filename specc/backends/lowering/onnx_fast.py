"""Lower all but attention to the operators that are fastest on ONNX Runtime's CPU provider, in few nodes.

Most are contrib operators, which are described in docs/ContribOperators.md of ONNX Runtime. FusedMatMul reads a weight
as the checkpoint has it, so one copy serves embedding and head.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from specc.backends.lowering.emit import emit, emit_several, shape, shape_at, swap, swap_each
from specc.passes import Pass
from specc.passes.arguments import RotaryCall, float_arg, int_arg, node_arg, operands, optional_node
from specc.passes.find import ADD, RMS_NORM, ROTARY, aten, calls


def lowering(slots: int) -> list[Pass]:
    """Return the passes of this lowering, in order. Attention comes before them, and takes in what it can.

    Args:
        slots: The number of slots that the block is traced with.
    """
    return [
        Rotary(slots),
        SkipNorms(slots),
        Norms(slots),
        Swish(slots),
        Linears(slots),
        FewBits(slots),
    ]


@dataclass(frozen=True)
class Linears(Pass):
    """A pass that rewrites products with a weight.

    Given:   y = linear(x, weight, bias)
    Result:  y = FusedMatMul(x, weight, transB=1) + bias
    """

    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        def product(node: Node) -> Node:
            inputs, bias = [node_arg(node, 0), node_arg(node, 1)], optional_node(node, 2)
            new = emit(graph.graph, "com.microsoft::FusedMatMul", inputs, shape_at(node, self.slots), transB=1)
            return new if bias is None else graph.graph.call_function(ADD, (new, bias))

        return swap_each(graph, aten.linear.default, product)


@dataclass(frozen=True)
class FewBits(Pass):
    """A pass that rewrites products with a quantised weight. Their arithmetic is in 8 bits (accuracy level 4).

    Given:   y = specc.quantized_linear(x, packed, scales, columns, bits, block_size)
    Result:  y = MatMulNBits(x, packed, scales, K=columns, …)
    """

    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        def product(node: Node) -> Node:
            x, packed, scales = (node_arg(node, i) for i in range(3))
            columns, bits, block_size = (int_arg(node, i) for i in range(3, 6))
            return emit(
                graph.graph,
                "com.microsoft::MatMulNBits",
                [x, packed, scales],
                shape_at(node, self.slots),
                K=columns,
                N=shape(packed)[0],
                bits=bits,
                block_size=block_size,
                accuracy_level=4,
            )

        return swap_each(graph, torch.ops.specc.quantized_linear.default, product)


@dataclass(frozen=True)
class SkipNorms(Pass):
    """A pass that fuses an RMSNorm with the residual sum before it.

    Given:   s = x + z;  y = specc.rms_norm(s, weight, eps)
    Result:  y, _, _, s = SkipSimplifiedLayerNormalization(x, z, weight, epsilon=eps)
    """

    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        changed = 0
        for node in calls(graph, RMS_NORM):
            total, scale = node_arg(node, 0), node_arg(node, 1)
            if not _sum_of_two(total) or scale.op != "get_attr" or len(shape(scale)) != 1:
                continue
            size = shape_at(node, self.slots)
            with graph.graph.inserting_before(total):
                weight = graph.graph.get_attr(str(scale.target))  # the norm's own may stand behind the sum
                weight.meta = dict(scale.meta)
                both = emit_several(
                    graph.graph,
                    "com.microsoft::SkipSimplifiedLayerNormalization",
                    [*operands(total), weight],
                    [size, [1], [1], size],
                    epsilon=float_arg(node, 2),
                )
                for old, result in ((node, 0), (total, 3)):
                    swap(old, graph.graph.call_function(operator.getitem, (both, result)))
            changed += 1
        return changed


def _sum_of_two(node: Node) -> bool:
    """Tell whether a node adds two values of one shape with three axes, neither of which is a weight."""
    addends = operands(node)
    if node.target is not ADD or len(addends) != 2:
        return False
    first, second = (shape(addend) for addend in addends)
    return first == second and len(first) == 3 and all(addend.op != "get_attr" for addend in addends)


@dataclass(frozen=True)
class Swish(Pass):
    """A pass that rewrites silu, which is x * sigmoid(x).

    Given:   y = silu(x)
    Result:  y = QuickGelu(x, alpha=1)
    """

    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        def gelu(node: Node) -> Node:
            inputs, size = [node_arg(node, 0)], shape_at(node, self.slots)
            return emit(graph.graph, "com.microsoft::QuickGelu", inputs, size, alpha=1.0)

        return swap_each(graph, aten.silu.default, gelu)


@dataclass(frozen=True)
class Norms(Pass):
    """A pass that rewrites the RMSNorms that stand behind no residual sum.

    Given:   y = specc.rms_norm(x, weight, eps)
    Result:  y = SimplifiedLayerNormalization(x, weight, epsilon=eps)

    The operator is ONNX Runtime's own, older than RMSNormalization of opset 23 and equal to it.
    """

    slots: int
    dtype: torch.dtype = torch.float32
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        def norm(node: Node) -> Node:
            inputs, size = [node_arg(node, 0), node_arg(node, 1)], shape_at(node, self.slots)
            attributes = {"epsilon": float_arg(node, 2), "axis": -1, "stash_type": 1}
            return emit(graph.graph, "SimplifiedLayerNormalization", inputs, size, self.dtype, **attributes)

        return swap_each(graph, RMS_NORM, norm)


@dataclass(frozen=True)
class Rotary(Pass):
    """A pass that rewrites the rotary embeddings that GroupQueryAttention did not take in.

    Given:   y = specc.rotary(x, cos, sin, positions, interleaved)
    Result:  y = com.microsoft.RotaryEmbedding(x, positions, cos, sin)
    """

    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        def rotary(node: Node) -> Node:
            call = RotaryCall.of(node)
            _, heads, _, size = shape(call.x)
            attributes: dict[str, Any] = {"interleaved": int(call.interleaved)}
            if call.rotated_sizes < size:
                attributes |= {"rotary_embedding_dim": call.rotated_sizes, "num_heads": heads}
            inputs = [call.x, call.positions, call.cos, call.sin]
            name = "com.microsoft::RotaryEmbedding"
            return emit(graph.graph, name, inputs, shape_at(node, self.slots), **attributes)

        return swap_each(graph, ROTARY, rotary)
