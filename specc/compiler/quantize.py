"""Products whose weights have 8 or 4 bits, by ONNX Runtime's quantiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from specc.passes import Pass
from specc.passes.arguments import node_arg, optional_node
from specc.passes.find import aten, calls, weight
from specc.runtime.engines.onnx_runtime import matrix_quantizers
from specc.runtime.errors import PassError

BITS = {"int8": 8, "int4": 4}
BLOCK_SIZE = 64  # weights that share a scale; specc bench against peers; LOG.md "4 bits in blocks of 64"
PRODUCTS = (aten.linear.default, aten.addmm.default)


@dataclass(frozen=True)
class QuantizeLinears(Pass):
    """A pass that quantises each product with a weight of the model, the head included. Embeddings stay as they are.

    Given:   y = linear(x, weight, bias)
    Result:  y = specc.quantized_linear(x, packed, scales, columns, bits, block_size) + bias

    Weights are rounded to the nearest of 2**bits symmetric values. Each `block_size` weights of a row share a scale.
    """

    bits: int
    block_size: int = BLOCK_SIZE
    # Called with the products that are done and their number.
    advance: Callable[[int, int], None] = field(default=lambda done, count: None, repr=False, compare=False)

    def __call__(self, graph: GraphModule) -> int:
        buffers: dict[tuple[str, bool], tuple[str, str]] = {}
        products = [product for product in map(Product.of, calls(graph, *PRODUCTS)) if product.matrix.op == "get_attr"]
        for number, product in enumerate(products):
            self.advance(number, len(products))
            key = str(product.matrix.target), product.transposed
            if key not in buffers:
                buffers[key] = self._register(graph, product)
            node = product.node
            with graph.graph.inserting_before(node):
                packed, scales = (_read(graph, target) for target in buffers[key])
                columns = weight(graph, product.matrix).shape[0 if product.transposed else 1]
                arguments = (product.x, packed, scales, columns, self.bits, self.block_size)
                result = graph.graph.call_function(torch.ops.specc.quantized_linear.default, arguments)
                result.meta = dict(node.meta)
                if product.bias is not None:
                    result = graph.graph.call_function(aten.add.Tensor, (result, product.bias))
                    result.meta = dict(node.meta)
            node.replace_all_uses_with(result)
        return len(products)

    def quantized(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise a matrix of float32, [rows, columns], as the operator MatMulNBits reads it.

        Returns:
            Packed weights, [rows, blocks, bytes] uint8, and scales, [rows, blocks] float32.

        Raises:
            PassError: the matrix has another type.
        """
        if matrix.dtype != torch.float32:
            raise PassError(f"a weight of type {matrix.dtype} cannot be quantised; convert the model to float32")
        quantizers = matrix_quantizers()
        config = quantizers.DefaultWeightOnlyQuantConfig(self.block_size, is_symmetric=True, bits=self.bits)
        columns_first = np.ascontiguousarray(matrix.detach().numpy().T)
        packed, scales, _ = quantizers.DefaultWeightOnlyQuantizer(config).qbits_block_quant(columns_first)
        return torch.from_numpy(packed), torch.from_numpy(scales)

    def _register(self, graph: GraphModule, product: Product) -> tuple[str, str]:
        """Store a product's quantised weight beside the original, as two buffers, and return their names."""
        path, _, name = str(product.matrix.target).rpartition(".")
        matrix = weight(graph, product.matrix)
        names = f"{name}_int{self.bits}", f"{name}_int{self.bits}_scales"
        for buffer, value in zip(names, self.quantized(matrix.T if product.transposed else matrix), strict=True):
            graph.get_submodule(path).register_buffer(buffer, value)
        return (f"{path}.{names[0]}", f"{path}.{names[1]}") if path else names


@dataclass(frozen=True, kw_only=True)
class Product:
    """A call that multiplies by a matrix. `transposed`: the matrix is [columns, rows], as in addmm."""

    node: Node
    x: Node
    matrix: Node
    bias: Node | None
    transposed: bool

    @classmethod
    def of(cls, node: Node) -> Product:
        """Read the arguments of a call. The bias of addmm is its first argument."""
        if node.target is aten.addmm.default:
            x, matrix = node_arg(node, 1), node_arg(node, 2)
            return cls(node=node, x=x, matrix=matrix, bias=node_arg(node, 0), transposed=True)
        x, matrix = node_arg(node, 0), node_arg(node, 1)
        return cls(node=node, x=x, matrix=matrix, bias=optional_node(node, 2), transposed=False)


def _read(graph: GraphModule, target: str) -> Node:
    node = graph.graph.get_attr(target)
    node.meta["val"] = weight(graph, node)
    return node
