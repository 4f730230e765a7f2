"""Lower halves of layers to single operators of specc-kernels: a step then has few nodes between its products.

A node costs microseconds, in which no thread reads weights. The operators are described in kernels/README.md.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch.fx import GraphModule, Node

from specc.backends.lowering.emit import Emitted, emit_several, emitted, shape, shape_at, swap
from specc.passes import Pass
from specc.passes.arguments import float_arg, int_arg, node_arg, operands, optional_node
from specc.passes.find import ADD, MUL, PANEL_LINEARS, RMS_NORM, aten, calls, tensor_value

DENSE, QUANTISED = PANEL_LINEARS
SYMBOLIC = torch.ops.onnx_symbolic._symbolic_multi_out.default
CACHES = 8  # inputs of TreeAttention before the caches


def lowering(slots: int) -> list[Pass]:
    """Return the passes of whole halves of layers. They come behind attention, and before single products.

    Args:
        slots: The number of slots that the block is traced with.
    """
    return [ProjectedAttentions(slots), GatedMLPs(slots)]


class Product(NamedTuple):
    """A product with a matrix in panels, and the sum with its bias if there is one.

    Attributes:
        node: The product, or the sum.
        product: The product.
        x: What the matrix multiplies.
        columns: Of the matrix.
        k: Rows of the matrix.
        bias: A number for each column, or None.
    """

    node: Node
    product: Node
    x: Node
    columns: int
    k: int
    bias: Node | None

    @classmethod
    def of(cls, node: Node) -> Product | None:
        """Read a product, or the sum of a product and a bias; None if the node is neither."""
        product, bias = _without_bias(node)
        if product.target is DENSE:
            return cls(node, product, node_arg(product, 0), int_arg(product, 2), int_arg(product, 3), bias)
        if product.target is QUANTISED:
            return cls(node, product, node_arg(product, 0), int_arg(product, 3), int_arg(product, 6), bias)
        return None

    def matrix(self) -> list[Node | None]:
        """Return the inputs that an operator has for each product: panels, scales, zero points, offsets, bias."""
        panels = node_arg(self.product, 1)
        if self.product.target is DENSE:
            return [panels, None, None, None, self.bias]
        return [panels, node_arg(self.product, 2), None, optional_node(self.product, 7), self.bias]

    def form(self) -> tuple[object, ...]:
        """Return what is equal if two products read the same activations: the type, bits, blocks, offsets."""
        if self.product.target is DENSE:
            panels = tensor_value(node_arg(self.product, 1))
            return DENSE, None if panels is None else panels.dtype
        offsets = optional_node(self.product, 7)
        return QUANTISED, int_arg(self.product, 4), int_arg(self.product, 5), offsets is None


def _without_bias(node: Node) -> tuple[Node, Node | None]:
    """Return the product in a sum of a product and a bias, and the bias; else the node itself and None."""
    if node.target is ADD and len(operands(node)) == 2:
        product, bias = operands(node)
        is_bias = bias.op == "get_attr" and len(shape(bias)) == 1 and product.target in PANEL_LINEARS
        if is_bias and only_user(product) is node:
            return product, bias
    return node, None


class SumAndNorm(NamedTuple):
    """A residual sum and the RMSNorm that reads it.

    Attributes:
        total: The sum.
        residual: The addend that is not the product.
        norm: The RMSNorm.
    """

    total: Node
    residual: Node
    norm: Node


def sum_and_norm(product: Node) -> SumAndNorm | None:
    """Return the sum that alone reads a product, and the first norm of it; None if there are none."""
    total = only_user(product)
    if total is None or total.target is not ADD or len(operands(total)) != 2:
        return None
    others = [addend for addend in operands(total) if addend is not product]
    if len(others) != 1 or others[0].op == "get_attr" or shape(others[0]) != shape(product):
        return None
    for norm in total.users:
        if norm.target is RMS_NORM and node_arg(norm, 0) is total:
            weight = node_arg(norm, 1)
            if weight.op == "get_attr" and len(shape(weight)) == 1:
                return SumAndNorm(total, others[0], norm)
    return None


def only_user(node: Node) -> Node | None:
    """Return the node that uses a value, if there is one alone."""
    return next(iter(node.users)) if len(node.users) == 1 else None


@dataclass(frozen=True)
class GatedMLPs(Pass):
    """A pass that rewrites gated feed-forward networks to one node, with the sum and the norm behind them if there are.

    Given:   y = panel_linear(silu(panel_linear(x, gate)) * panel_linear(x, up), down);  s = r + y;  n = rms_norm(s, w)
    Result:  n, s = specc.GatedMLP(x, r, w, gate, up, down), or y = specc.GatedMLP(x, "", "", gate, up, down)
    """

    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        changed = 0
        for node in calls(graph, *PANEL_LINEARS):
            network = _network(node)
            if network is not None:
                self._replace(graph, *network)
                changed += 1
        return changed

    def _replace(self, graph: GraphModule, gate: Product, up: Product, down: Product) -> None:
        """Insert the operator where the sum stands, or else the last product."""
        behind = sum_and_norm(down.node)
        last = down.node if behind is None else behind.total
        size = shape_at(down.node, self.slots)
        matrices = [part for product in (gate, up, down) for part in product.matrix()]
        with graph.graph.inserting_before(last):
            before = residual_inputs(graph, behind)
            new = emit_several(
                graph.graph,
                "specc::GatedMLP",
                [gate.x, *before, *_without_tail(matrices)],
                [size] if behind is None else [size, size],
                hidden=gate.columns,
                columns=down.columns,
                k=gate.k,
                epsilon=0.0 if behind is None else float_arg(behind.norm, 2),
            )
            hand_on(graph, new, down.node, behind)


@dataclass(frozen=True)
class ProjectedAttentions(Pass):
    """A pass that takes the products around attention into its node, with the sum and the norm behind if there are.

    Given:   a, keys, values = specc.TreeAttention(panel_linear(x, packed), …);  y = panel_linear(a, out);  s = r + y;
             n = rms_norm(s, w)
    Result:  n, s, keys, values = specc.ProjectedAttention(x, r, w, packed, out, …), or y in the place of n and s
    """

    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        changed = 0
        for node in calls(graph, SYMBOLIC):
            attention = emitted(node, "specc::TreeAttention")
            products = attention and _products_around(node, attention)
            if attention and products:
                self._replace(graph, node, attention, *products)
                changed += 1
        return changed

    def _replace(self, graph: GraphModule, node: Node, attention: Emitted, first: Product, last: Product) -> None:
        """Insert the operator where the sum stands, or else the last product."""
        behind = sum_and_norm(last.node)
        end = last.node if behind is None else behind.total
        size, pasts = shape_at(last.node, self.slots), attention.inputs[CACHES:]
        heads = attention.attributes["num_heads"] + 2 * attention.attributes["kv_num_heads"]
        with graph.graph.inserting_before(end):
            new = emit_several(
                graph.graph,
                "specc::ProjectedAttention",
                [first.x, *residual_inputs(graph, behind), *first.matrix(), *last.matrix(), *attention.inputs[1:]],
                [size, size, *(shape(past) for past in pasts if past is not None)],
                head_size=first.columns // heads,
                columns=last.columns,
                k=first.k,
                epsilon=0.0 if behind is None else float_arg(behind.norm, 2),
                **attention.attributes,
            )
            hand_on(graph, new, last.node, behind)
            for item in list(node.users):
                if int_arg(item, 1) > 0:
                    swap(item, graph.graph.call_function(operator.getitem, (new, int_arg(item, 1) + 1)))


def _products_around(node: Node, attention: Emitted) -> tuple[Product, Product] | None:
    """Return the products before and behind attention, whose values nothing else reads; None if there are none."""
    packed = attention.inputs[0]
    first = None if packed is None or only_user(packed) is None else Product.of(packed)
    result = next((item for item in node.users if int_arg(item, 1) == 0), None)
    user = None if result is None else only_user(result)
    last = None if user is None else Product.of(_with_bias(user))
    return (first, last) if first is not None and last is not None and last.x is result else None


def _with_bias(node: Node) -> Node:
    """Return the sum of a product and its bias, or the product if it has none."""
    total = only_user(node)
    return node if total is None or _without_bias(total)[1] is None else total


def residual_inputs(graph: GraphModule, behind: SumAndNorm | None) -> list[Node | None]:
    """Return the residual and the weights of the norm, which may have stood behind the insertion point."""
    if behind is None:
        return [None, None]
    scale = node_arg(behind.norm, 1)
    weight = graph.graph.get_attr(str(scale.target))
    weight.meta = dict(scale.meta)
    return [behind.residual, weight]


def hand_on(graph: GraphModule, new: Node, product: Node, behind: SumAndNorm | None) -> None:
    """Give the operator's first two results to the users of the norm and the sum, or of the product alone."""
    replaced: Iterable[Node] = [product] if behind is None else [behind.norm, behind.total]
    for index, old in enumerate(replaced):
        swap(old, graph.graph.call_function(operator.getitem, (new, index)))


def _network(node: Node) -> tuple[Product, Product, Product] | None:
    """Return the products of a gated network whose last one is `node`; None if it is not one."""
    down = Product.of(node)
    if down is None or down.x.target is not MUL or only_user(down.x) is None or len(operands(down.x)) != 2:
        return None
    for activation, values in (operands(down.x), operands(down.x)[::-1]):
        if activation.target is not aten.silu.default or only_user(activation) is None:
            continue
        gate, up = Product.of(node_arg(activation, 0)), Product.of(values)
        if gate is None or up is None or only_user(gate.node) is None or only_user(up.node) is None:
            continue
        if gate.x is up.x and gate.columns == up.columns and gate.form() == up.form():
            return gate, up, down
    return None


def _without_tail(inputs: list[Node | None]) -> list[Node | None]:
    """Leave out the absent inputs behind the last one."""
    last = max(index for index, value in enumerate(inputs) if value is not None)
    return inputs[: last + 1]
