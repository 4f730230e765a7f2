"""Rewrite ONNX engines from the operators of specc-kernels to ONNX Runtime's own. They then load without the library.

Products become FusedMatMul on widened weights, or MatMulNBits on the same numbers of few bits. Attention becomes
GroupQueryAttention, which takes a tree as a bias. The result is what the fast lowering makes.

N  slots      T  span of the mask
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from specc.backends.lowering.masks import HIDDEN_FP32, TO_THE_END
from specc.backends.lowering.onnx_group_query import ROTATED_MULTIPLE
from specc.backends.lowering.onnx_kernels import DOMAIN
from specc.runtime.errors import BackendError

CONTRIB = "com.microsoft"
SUFFIXES = ("_bf16_panels", "_panels")
PAST_LEN, WIDTHS, POSITIONS, COS, SIN, MASK, SINKS, CACHES = range(8)  # inputs that all operators of attention have
# The first of these, by operator. Before them stand queries, keys and values, or what these are computed from.
ATTENTION = {"TreeAttention": 1, "ProjectedAttention": 13}
RESIDUAL, NORM = 1, 2  # inputs of operators with a sum and a norm behind their last product
GATE, UP, DOWN = 3, 8, 13  # inputs of GatedMLP: the panels of its matrices
FIRST, LAST = 3, 8  # inputs of ProjectedAttention, likewise


def has_lanes(model: ir.Model) -> bool:
    """Tell whether an engine runs several sequences in one call, which GroupQueryAttention does not."""
    attentions = (node for node in model.graph if node.op_type in ATTENTION)
    return any(node.inputs[ATTENTION[node.op_type] + WIDTHS] is not None for node in attentions)


def standardise(model: ir.Model) -> int:
    """Rewrite the nodes of specc-kernels in place, and return their number. Weights become tensors in memory.

    Raises:
        BackendError: an operator, or a size of its attention, has no counterpart in ONNX Runtime.
    """
    rewriter = _Rewriter(model)
    own = [node for node in model.graph if node.domain == DOMAIN]
    for node in own:
        rewriter.rewrite(node)
    for name, value in list(model.graph.initializers.items()):
        if not value.uses():
            del model.graph.initializers[name]
    model.opset_imports.pop(DOMAIN, None)
    model.opset_imports.setdefault(CONTRIB, 1)
    return len(own)


def dense(panels: np.ndarray, columns: int, k: int | None = None) -> np.ndarray:
    """Unpack a matrix in panels.

    Args:
        panels: [panels, ceil(K / 2), 32, 2] bf16, or [panels, K, 32] fp32.
        columns: of the matrix that was packed, without those that fill the last panel.
        k: rows of that matrix; None if all rows are its own.

    Returns:
        [columns, k] fp32, as checkpoints store weights.
    """
    if panels.ndim == 4:
        panels = panels.transpose(0, 1, 3, 2).reshape(len(panels), -1, panels.shape[2])
    rows = panels.transpose(0, 2, 1).reshape(-1, panels.shape[1])
    return np.ascontiguousarray(rows[:columns, :k].astype(np.float32))


def numbers(panels: np.ndarray, columns: int, bits: int) -> np.ndarray:
    """Unpack numbers of few bits in panels, and pack them as MatMulNBits reads them.

    Args:
        panels: [panels, blocks, block / 4, 64] uint8 for 4 bits, [panels, blocks, block / 4, 2, 64] for 8.
        columns: of the matrix that was packed.
        bits: 4 or 8.

    Returns:
        [columns, blocks, block * bits / 8] uint8, low bits first.
    """
    halves = np.stack([panels & 15, panels >> 4], 3) if bits == 4 else panels
    count, blocks, steps = halves.shape[:3]
    split = halves.reshape(count, blocks, steps, 2, 16, 4).transpose(0, 3, 4, 1, 2, 5)
    return _joined(split.reshape(-1, blocks, steps * 4)[:columns], bits)


def per_block(panels: np.ndarray, columns: int) -> np.ndarray:
    """Unpack scales or zero points, [panels, blocks, 32], to [columns, blocks]."""
    return np.ascontiguousarray(panels.transpose(0, 2, 1).reshape(-1, panels.shape[1])[:columns])


def with_offsets(
    panels: np.ndarray, scales: np.ndarray, offsets: np.ndarray, columns: int, bits: int, k: int
) -> np.ndarray:
    """Widen weights that are their block's scale times a number, plus their block's offset.

    Returns:
        [columns, k] fp32.
    """
    packed = numbers(panels, columns, bits)
    values = np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], -1) if bits == 4 else packed
    factors, shifts = (per_block(part.astype(np.float64), columns)[..., None] for part in (scales, offsets))
    return np.ascontiguousarray((values * factors + shifts).reshape(columns, -1)[:, :k].astype(np.float32))


def _joined(values: np.ndarray, bits: int) -> np.ndarray:
    """Join numbers of 4 bits, one a byte, to two a byte along the last axis, the first one low."""
    if bits == 8:
        return np.ascontiguousarray(values)
    padded = np.pad(values, [*[(0, 0)] * (values.ndim - 1), (0, values.shape[-1] % 2)])
    joined: np.ndarray = padded[..., 0::2] | padded[..., 1::2] << 4
    return joined


class _Counts(NamedTuple):
    """The counts that all layers share: slots [1], rows before them [1] and with them [1], int64.

    `last` [1] is the index of the last row in use, and `total` [] the number of rows in use, int32.
    """

    slots: ir.Value
    past_len: ir.Value
    rows: ir.Value
    last: ir.Value
    total: ir.Value


class _Rewriter:
    """A rewriter of one model. What all layers share is made once, before the first attention that needs it."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self._weights: dict[str, ir.Value] = {}
        self._biases: dict[tuple[str | None, int], ir.Value] = {}
        self._counts: _Counts | None = None
        self._operators: Mapping[str, Callable[[ir.Node], list[ir.Value]]] = {
            "LinearBF16": self._linear,
            "LinearF32": self._linear,
            "LinearNBits": self._linear,
            "GatherBF16": self._gather,
            "ArgMax": self._arg_max,
            "TreeAttention": self._tree_attention,
            "ProjectedAttention": self._projected_attention,
            "GatedMLP": self._gated_mlp,
        }

    def rewrite(self, node: ir.Node) -> None:
        """Replace a node.

        Raises:
            BackendError: it has no counterpart.
        """
        if node.op_type not in self._operators:
            raise BackendError(f"the operator {DOMAIN}::{node.op_type} has no standard counterpart; upgrade specc")
        results = self._operators[node.op_type](node)
        pairs = [(old, new) for old, new in zip(node.outputs, results, strict=True) if old.name]
        old_values, new_values = ([pair[index] for pair in pairs] for index in (0, 1))
        ir.convenience.replace_nodes_and_values(self.graph, node, [node], [], old_values, new_values)

    def _linear(self, node: ir.Node) -> list[ir.Value]:
        return [self._product(node, node.inputs[0], 1, _int(node, "columns"), _int_or_none(node, "k"))]

    def _product(self, node: ir.Node, x: ir.Value | None, first: int, columns: int, k: int | None) -> ir.Value:
        """Insert the product of x and the matrix whose panels are the input `first`, and the sum with its bias."""
        if _stored(node, first).dtype == ir.DataType.UINT8:
            product = self._product_of_few_bits(node, x, first, columns, k)
        else:
            product = self._times(node, x, self._weight(node, first, lambda panels: dense(panels, columns, k)))
        bias = _input(node, first + 4)
        return product if bias is None else self._emit(node, "Add", [product, bias])

    def _times(self, node: ir.Node, x: ir.Value | None, matrix: ir.Value) -> ir.Value:
        """Insert the product of x and the transpose of a matrix."""
        return self._insert(node, ir.node("FusedMatMul", [x, matrix], {"transB": 1}, domain=CONTRIB))

    def _gather(self, node: ir.Node) -> list[ir.Value]:
        columns, k = _int(node, "columns"), _int(node, "k")
        table = self._weight(node, 1, lambda panels: dense(panels, columns, k))
        return [self._insert(node, ir.node("Gather", [table, node.inputs[0]], {"axis": 0}))]

    def _arg_max(self, node: ir.Node) -> list[ir.Value]:
        return [self._insert(node, ir.node("ArgMax", node.inputs, {"axis": -1, "keepdims": 0}))]

    def _product_of_few_bits(
        self, node: ir.Node, x: ir.Value | None, first: int, columns: int, k: int | None
    ) -> ir.Value:
        """Insert the product of x and numbers of few bits: panels, scales, zero points and offsets from `first` on."""
        zeros, offsets = (_input(node, first + kind) for kind in (2, 3))
        shape = _stored(node, first).shape.numpy()
        bits, block = 4 if len(shape) == 4 else 8, shape[2] * 4
        k = k or shape[1] * block
        if offsets is not None:
            return self._widened(node, x, first, columns, bits, k)
        weights = self._weight(node, first, lambda panels: numbers(panels, columns, bits))
        scales = self._weight(node, first + 1, lambda panels: per_block(panels.astype(np.float32), columns))
        inputs = [x, weights, scales]
        if zeros is not None:
            inputs.append(self._weight(node, first + 2, lambda panels: _joined(per_block(panels, columns), bits)))
        # The activations are rounded to 8 bits, as LinearNBits does.
        attributes = {"K": k, "N": columns, "bits": bits, "block_size": block, "accuracy_level": 4}
        return self._insert(node, ir.node("MatMulNBits", inputs, attributes, domain=CONTRIB))

    def _widened(self, node: ir.Node, x: ir.Value | None, first: int, columns: int, bits: int, k: int) -> ir.Value:
        """Multiply by weights with offsets, widened to fp32: MatMulNBits has whole numbers as zero points only."""
        panels, scales, offsets = (_stored(node, first + kind).numpy() for kind in (0, 1, 3))
        matrix = self._weight(node, first, lambda _: with_offsets(panels, scales, offsets, columns, bits, k))
        return self._times(node, x, matrix)

    def _gated_mlp(self, node: ir.Node) -> list[ir.Value]:
        hidden, columns, k = (_int(node, name) for name in ("hidden", "columns", "k"))
        gate, up = (self._product(node, node.inputs[0], at, hidden, k) for at in (GATE, UP))
        swish = self._insert(node, ir.node("QuickGelu", [gate], {"alpha": 1.0}, domain=CONTRIB))
        product = self._product(node, self._emit(node, "Mul", [swish, up]), DOWN, columns, hidden)
        return self._norm_and_sum(node, product)[: len(node.outputs)]

    def _norm_and_sum(self, node: ir.Node, product: ir.Value) -> list[ir.Value]:
        """Insert the sum of a product and a residual, and its norm, if the node has them. Else return the product."""
        residual, norm = node.inputs[RESIDUAL], node.inputs[NORM]
        if norm is None:
            return [product, product]  # nothing reads the second one
        attributes = {"epsilon": node.attributes["epsilon"].as_float()}
        inputs = [residual, product, norm]
        new = ir.node("SkipSimplifiedLayerNormalization", inputs, attributes, domain=CONTRIB, num_outputs=4)
        self._insert(node, new)
        return [new.outputs[0], new.outputs[3]]

    def _weight(self, node: ir.Node, index: int, unpack: Callable[[np.ndarray], np.ndarray]) -> ir.Value:
        """Return the initializer that holds an input without panels."""
        packed = node.inputs[index]
        assert packed is not None and packed.name is not None
        if packed.name not in self._weights:
            value = unpack(_stored(node, index).numpy())
            name = _unpacked_name(packed.name)
            if name in self.graph.initializers:
                name = f"{name}.unpacked"
            tensor = ir.tensor(value, name=name)
            shape = ir.Shape(value.shape)
            stored = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
            self._weights[packed.name] = self.graph.initializers[name] = stored
        return self._weights[packed.name]

    def _tree_attention(self, node: ir.Node) -> list[ir.Value]:
        return self._attention(node, node.inputs[0])

    def _projected_attention(self, node: ir.Node) -> list[ir.Value]:
        heads, kv_heads, size = (_int(node, name) for name in ("num_heads", "kv_num_heads", "head_size"))
        packed = self._product(node, node.inputs[0], FIRST, (heads + 2 * kv_heads) * size, _int(node, "k"))
        out, *caches = self._attention(node, packed)
        product = self._product(node, out, LAST, _int(node, "columns"), heads * size)
        return [*self._norm_and_sum(node, product), *caches]

    def _attention(self, node: ir.Node, packed: ir.Value | None) -> list[ir.Value]:
        """Insert attention of queries, keys and values, [1, N, width]. Return its output and the caches."""
        first = ATTENTION[node.op_type]
        inputs = [*node.inputs[first:], *[None] * (first + CACHES + 2 - len(node.inputs))]
        cos, mask, window = inputs[COS], inputs[MASK], _int_or_none(node, "local_window_size") or 0
        if "tree" in node.attributes:
            raise BackendError("attention with the tree in an attribute has no standard counterpart; compile again")
        attributes: dict[str, Any] = {name: _int(node, name) for name in ("num_heads", "kv_num_heads")}
        attributes |= {
            name: node.attributes[name].as_float() for name in ("scale", "softcap") if name in node.attributes
        }
        if cos is not None:
            _check_rotation(cos)
            attributes |= {"do_rotary": 1, "rotary_interleaved": _int_or_none(node, "rotary_interleaved") or 0}
        if window and mask is None:
            attributes["local_window_size"] = window
        counts = self._counts = self._counts or self._count(node, packed, inputs[PAST_LEN])
        bias = None if mask is None else self._bias(node, counts, mask, inputs[POSITIONS], window)
        queries = [packed, None, None, inputs[CACHES], inputs[CACHES + 1], counts.last, counts.total, cos]
        queries.append(inputs[SIN])
        queries += [inputs[POSITIONS] if bias is not None else None, bias, inputs[SINKS]]
        while queries[-1] is None:
            queries.pop()
        new = ir.node("GroupQueryAttention", queries, attributes, domain=CONTRIB, num_outputs=3)
        self._insert(node, new)
        return list(new.outputs)

    def _count(self, node: ir.Node, packed: ir.Value | None, past_len: ir.Value | None) -> _Counts:
        """Insert the counts of slots and rows."""
        assert packed is not None and past_len is not None
        slots = self._emit(node, "Shape", [packed], start=1, end=2)
        rows = self._emit(node, "Add", [past_len, slots])
        total = self._emit(node, "Cast", [rows], to=int(ir.DataType.INT32))
        last = self._emit(node, "Sub", [total, self._constant(node, np.array([1], np.int32))])
        return _Counts(slots, past_len, rows, last, self._emit(node, "Squeeze", [total]))

    def _bias(
        self, node: ir.Node, counts: _Counts, mask: ir.Value, positions: ir.Value | None, window: int
    ) -> ir.Value:
        """Return a bias of the scores, [1, 1, N, rows in use]: 0 where a slot sees a row."""
        key = mask.name, window
        if key in self._biases:
            return self._biases[key]
        hidden = self._constant(node, np.array(HIDDEN_FP32, np.float32))
        governed = self._emit(node, "Where", [mask, self._constant(node, np.array(0, np.float32)), hidden])
        size = self._emit(node, "Concat", [counts.slots, counts.rows], axis=0)
        both = self._emit(node, "Concat", [self._emit(node, "ConstantOfShape", [size]), governed], axis=1)
        start = self._emit(node, "Neg", [counts.rows])
        bias = self._emit(node, "Slice", [both, start, self._ints(node, TO_THE_END), self._ints(node, 1)])
        if window:
            assert positions is not None
            bias = self._emit(node, "Where", [self._far(node, counts, mask, positions, window), hidden, bias])
        self._biases[key] = self._emit(node, "Unsqueeze", [bias, self._ints(node, 0, 1)])
        return self._biases[key]

    def _far(self, node: ir.Node, counts: _Counts, mask: ir.Value, positions: ir.Value, window: int) -> ir.Value:
        """Return the rows in use that lie outside each slot's window, [N, rows in use] bool.

        Rows before the slots' stand at their number. A slot's own row stands at its position, unless the mask also
        governs rows before the slots', when it stands at its number, too.
        """
        zero, one = (self._constant(node, np.array(number, np.int64)) for number in (0, 1))
        past, rows = (self._emit(node, "Squeeze", [value]) for value in (counts.past_len, counts.rows))
        numbered = self._emit(node, "Range", [past, rows, one])
        span = self._emit(node, "Shape", [mask], start=1, end=2)
        own_rows = self._emit(node, "Equal", [span, counts.slots])
        flat = self._emit(node, "Squeeze", [positions, self._ints(node, 0)])
        own = self._emit(node, "Where", [own_rows, flat, numbered])
        place = self._emit(node, "Concat", [self._emit(node, "Range", [zero, past, one]), own], axis=0)
        oldest = self._emit(node, "Sub", [flat, self._ints(node, window)])
        columns = self._emit(node, "Unsqueeze", [place, self._ints(node, 0)])
        return self._emit(node, "LessOrEqual", [columns, self._emit(node, "Unsqueeze", [oldest, self._ints(node, 1)])])

    def _ints(self, before: ir.Node, *values: int) -> ir.Value:
        return self._constant(before, np.array(values, np.int64))

    def _constant(self, before: ir.Node, value: np.ndarray) -> ir.Value:
        return self._emit(before, "Constant", [], value=ir.tensor(value))

    def _emit(self, before: ir.Node, operator: str, inputs: Sequence[ir.Value], **attributes: Any) -> ir.Value:
        """Insert a node of the ONNX standard before another one, and return its output."""
        return self._insert(before, ir.node(operator, inputs, attributes))

    def _insert(self, before: ir.Node, new: ir.Node) -> ir.Value:
        """Insert a node before another one, and return its first output."""
        self.graph.insert_before(before, new)
        return new.outputs[0]


def _input(node: ir.Node, index: int) -> ir.Value | None:
    """Return an input of a node; None if it is absent, or the node has fewer."""
    return node.inputs[index] if index < len(node.inputs) else None


def _stored(node: ir.Node, index: int) -> ir.TensorProtocol:
    """Return the tensor that is an input."""
    value = _input(node, index)
    if value is None or value.const_value is None:
        raise BackendError(f"input {index} of {node.op_type} is not a stored weight, so it stays packed; compile again")
    return value.const_value


def _unpacked_name(name: str) -> str:
    """Return the name of a weight without what says that it stands in panels."""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def _int(node: ir.Node, name: str) -> int:
    return node.attributes[name].as_int()


def _int_or_none(node: ir.Node, name: str) -> int | None:
    """Return an attribute that bundles of earlier versions do not have."""
    return _int(node, name) if name in node.attributes else None


def _check_rotation(cos: ir.Value) -> None:
    """Check that GroupQueryAttention can turn queries and keys by a table [positions, pairs]."""
    assert cos.shape is not None
    pairs = int(cos.shape.numpy()[1])
    if pairs % ROTATED_MULTIPLE:
        raise BackendError(
            f"{2 * pairs} numbers of each head turn by their position, and ONNX Runtime's attention turns a multiple "
            f"of {2 * ROTATED_MULTIPLE}; compile the model with --lowering fast"
        )
