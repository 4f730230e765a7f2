"""Products whose weights stand as the operators of specc-kernels read them: in panels of 32 columns."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from specc.huggingface.gguf_blocks import Rows
from specc.passes import Pass
from specc.passes.arguments import int_arg, node_arg, optional_node
from specc.passes.find import ADD, aten, calls, weight

QUANTIZED = torch.ops.specc.quantized_linear.default
PANEL_LINEAR = torch.ops.specc.panel_linear.default
PANEL_QUANTIZED = torch.ops.specc.panel_quantized_linear.default
PANEL_EMBEDDING = torch.ops.specc.panel_embedding.default


def is_bf16(matrix: Tensor) -> bool:
    """Tell whether bf16 holds every value of a matrix, so that storing it so changes nothing."""
    return torch.equal(matrix.to(torch.bfloat16).to(matrix.dtype), matrix)


@dataclass(frozen=True)
class PackPanels(Pass):
    """A pass that lays the weights of products out in panels, so that loading a bundle packs nothing.

    Tables of embeddings whose values bf16 holds become panels of bf16, which a tied head of `bf16` weights shares.
    A matrix with values that bf16 does not hold stays fp32, unless `rounds` allows to round it.

    Given:   y = linear(x, weight, bias);  z = embedding(weight, ids)
    Result:  y = specc.panel_linear(x, panels, columns, k) + bias;  z = specc.panel_embedding(ids, panels, columns, k)
    """

    bf16: bool = False
    rounds: bool = False
    optional: ClassVar[bool] = True  # blocks of a GGUF file stand in panels before

    def __call__(self, graph: GraphModule) -> int:
        packer = _Packer(graph, self)
        changed = 0
        for node in calls(graph, aten.linear.default, aten.addmm.default, aten.embedding.default, QUANTIZED):
            with graph.graph.inserting_before(node):
                new = packer.replacement(node)
            if new is not None:
                new.meta = dict(node.meta)
                node.replace_all_uses_with(new)
                changed += 1
        return changed


class _Packer:
    """A maker of nodes that read panels. Each weight is packed once, however many nodes read it."""

    def __init__(self, graph: GraphModule, options: PackPanels) -> None:
        self.graph, self.options = graph, options
        self.pack: Any = importlib.import_module("specc_kernels.pack")

    def replacement(self, node: Node) -> Node | None:
        """Insert what computes the value of `node` from panels, or return None if its weight is not the model's."""
        if node.target is QUANTIZED:
            return self._quantized(node)
        if node.target is aten.embedding.default:
            return self._embedding(node)
        if node.target is aten.addmm.default:
            return self._product(node, node_arg(node, 1), node_arg(node, 2), node_arg(node, 0), has_rows_first=True)
        return self._product(node, node_arg(node, 0), node_arg(node, 1), optional_node(node, 2), has_rows_first=False)

    def _product(self, node: Node, x: Node, matrix: Node, bias: Node | None, *, has_rows_first: bool) -> Node | None:
        """Multiply x by a matrix, [K, columns] if `has_rows_first`, else [columns, K]."""
        if matrix.op != "get_attr":
            return None
        value = weight(self.graph, matrix)
        columns = value.shape[1 if has_rows_first else 0]
        is_stored_in_bf16 = self.options.bf16 and self._fits_bf16(value)
        prefix = "rows_" if has_rows_first else ""  # tells its buffer from that of the matrix's transpose
        value_KxN = value if has_rows_first else value.T
        panels = self._bf16(matrix, value_KxN, prefix) if is_stored_in_bf16 else self._f32(matrix, value_KxN, prefix)
        product = self.graph.graph.call_function(PANEL_LINEAR, (x, panels, columns, value_KxN.shape[0]))
        if bias is None:
            return product
        product.meta = dict(node.meta)
        return self.graph.graph.call_function(ADD, (product, bias))

    def _embedding(self, node: Node) -> Node | None:
        """Look up rows of a table, which is the transpose of what a tied head multiplies by."""
        table, ids = node_arg(node, 0), node_arg(node, 1)
        if table.op != "get_attr":
            return None
        value = weight(self.graph, table)
        if not self._fits_bf16(value):
            return None
        panels = self._bf16(table, value.T)
        return self.graph.graph.call_function(PANEL_EMBEDDING, (ids, panels, value.shape[0], value.shape[1]))

    def _fits_bf16(self, value: Tensor) -> bool:
        """Tell whether a matrix may become bf16: without a change, or because the user lets it be rounded."""
        return self.options.rounds or is_bf16(value)

    def _f32(self, matrix: Node, value_KxN: Tensor, prefix: str) -> Node:
        """Return the fp32 panels of a matrix."""

        def panels() -> Tensor:
            return torch.from_numpy(self.pack.f32(value_KxN.detach().numpy()))

        return self._stored(matrix, f"{prefix}panels", panels)

    def _bf16(self, matrix: Node, value_KxN: Tensor, prefix: str = "") -> Node:
        """Return the bf16 panels of a matrix."""

        def panels() -> Tensor:
            words = self.pack.to_bf16(value_KxN.detach().numpy())
            return torch.from_numpy(self.pack.bf16(words)).view(torch.bfloat16)

        return self._stored(matrix, f"{prefix}bf16_panels", panels)

    def _quantized(self, node: Node) -> Node:
        """Lay numbers of few bits out in panels. Numbers and scales stay as the quantiser chose them."""
        x, packed, scales = (node_arg(node, i) for i in range(3))
        columns_of_matrix, bits, block_size = (int_arg(node, i) for i in range(3, 6))
        packed_value, scale_value = weight(self.graph, packed), weight(self.graph, scales)

        def panels() -> Tensor:
            numbers = _unpacked(packed_value.numpy(), bits)[:, :columns_of_matrix]
            return torch.from_numpy(self.pack.nbits(numbers.T, bits, block_size))

        arguments = (
            x,
            self._stored(packed, "panels", panels),
            self._stored(scales, "panels", lambda: torch.from_numpy(self.pack.per_block(scale_value.numpy().T))),
            packed_value.shape[0],
            bits,
            block_size,
            columns_of_matrix,
        )
        return self.graph.graph.call_function(PANEL_QUANTIZED, arguments)

    def _stored(self, original: Node, suffix: str, make: Callable[[], Tensor]) -> Node:
        """Return a node that reads a buffer beside the original weight, which `make` computes if it is not there."""
        path, _, name = str(original.target).rpartition(".")
        module, buffer = self.graph.get_submodule(path), f"{name}_{suffix}"
        if buffer not in dict(module.named_buffers(recurse=False)):
            module.register_buffer(buffer, make())
        node = self.graph.graph.get_attr(f"{path}.{buffer}" if path else buffer)
        node.meta["val"] = weight(self.graph, node)
        return node


def pack_numbers(rows: Rows) -> Rows:
    """Lay the blocks of a matrix [columns, K] out in panels, as specc.LinearNBits reads them."""
    pack: Any = importlib.import_module("specc_kernels.pack")
    return Rows(
        pack.nbits(rows.numbers.T, rows.bits, rows.block),
        pack.per_block(rows.scales.T),
        None if rows.offsets is None else pack.per_block(rows.offsets.T),
        rows.bits,
        rows.block,
    )


def _unpacked(packed: np.ndarray, bits: int) -> np.ndarray:
    """Return numbers one a byte, [rows, blocks * block_size], of packed ones [rows, blocks, bytes], low bits first."""
    parts = [packed >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)]
    return np.ascontiguousarray(np.stack(parts, -1).reshape(len(packed), -1).astype(np.uint8))
