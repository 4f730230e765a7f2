"""Products whose weights have 8 or 4 bits, by ONNX Runtime's quantiser."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, DefaultWeightOnlyQuantizer
from torch import Tensor
from torch.fx import GraphModule, Node

from specc.passes.find import aten, calls, weight
from specc.runtime.errors import PassError

BITS = {"int8": 8, "int4": 4}
BLOCK_SIZE = 64  # weights that share a scale; see examples/LOG.md for others


@dataclass(frozen=True)
class QuantizeLinears:
    """Every product with a weight of the model's, the head's included; embeddings stay as they are.

    Given:   y = linear(x, weight, bias)
    Result:  y = specc.quantized_linear(x, packed, scales, columns, bits, block_size) + bias

    Symmetric, round to nearest, a scale for each `block_size` weights of a row.
    """

    bits: int
    block_size: int = BLOCK_SIZE

    def __call__(self, graph: GraphModule) -> int:
        @cache
        def held(target: str, turned: bool) -> tuple[str, str]:
            path, _, name = target.rpartition(".")
            owner = graph.get_submodule(path)
            names = f"{name}_int{self.bits}", f"{name}_int{self.bits}_scales"
            matrix = getattr(owner, name)
            for held_name, value in zip(names, self.quantized(matrix.T if turned else matrix), strict=True):
                owner.register_buffer(held_name, value)
            return (f"{path}.{names[0]}", f"{path}.{names[1]}") if path else names

        found = [
            (node, x, matrix, bias)
            for node in calls(graph, aten.linear.default, aten.addmm.default)
            for x, matrix, bias in [_operands(node)]
            if matrix.op == "get_attr"
        ]
        for node, x, matrix, bias in found:
            with graph.graph.inserting_before(node):
                turned = node.target is aten.addmm.default
                packed, scales = (_read(graph, target) for target in held(str(matrix.target), turned))
                columns = weight(graph, matrix).shape[0 if turned else 1]
                new = graph.graph.call_function(
                    torch.ops.specc.quantized_linear.default,
                    (x, packed, scales, columns, self.bits, self.block_size),
                )
                new.meta = dict(node.meta)
                if bias is not None:
                    new = graph.graph.call_function(aten.add.Tensor, (new, bias))
                    new.meta = dict(node.meta)
            node.replace_all_uses_with(new)
        return len(found)

    def quantized(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """[rows, columns] as MatMulNBits reads it: packed [rows, blocks, bytes] uint8, scales [rows, blocks]."""
        if matrix.dtype != torch.float32:
            raise PassError(f"a weight of type {matrix.dtype} cannot be quantised; only float32")
        config = DefaultWeightOnlyQuantConfig(self.block_size, is_symmetric=True, bits=self.bits)
        columns_first = np.ascontiguousarray(matrix.detach().numpy().T)
        packed, scales, _ = DefaultWeightOnlyQuantizer(config).qbits_block_quant(columns_first)
        return torch.from_numpy(packed), torch.from_numpy(scales)


def _operands(node: Node) -> tuple[Node, Node, Node | None]:
    """(x, matrix, bias); addmm has its matrix turned and its bias first."""
    x, matrix, bias = (*node.args, None)[:3]
    return (x, matrix, bias) if node.target is aten.linear.default else (matrix, bias, x)


def _read(graph: GraphModule, target: str) -> Node:
    node = graph.graph.get_attr(target)
    node.meta["val"] = weight(graph, node)
    return node
