"""Rewrite the graph of an engine as onnxruntime-genai calls a decoder: with `attention_mask` instead of `past_len`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from specc.runtime.errors import BackendError

PAST_LEN, MASK, TOKENS, LOGITS = "past_len", "attention_mask", "input_ids", "logits"
ATTENTION = "GroupQueryAttention"


class AttentionHeads(NamedTuple):
    """How many heads attention has: of queries, and of keys and values."""

    queries: int
    keys: int


def adapt(model: ir.Model, layers: Sequence[str]) -> AttentionHeads:
    """Rewrite an engine in place.

    genai gives a mask of all tokens so far, `attention_mask` [1, T], so `past_len` becomes T less the number of slots.
    It counts layers from 0 without gaps, and reads logits only.

    Args:
        model: an engine that runs a chain of any number of slots.
        layers: the names of the layers whose rows the engine has, in order.

    Raises:
        BackendError: the number of slots is fixed, or the layers' attention differs in its number of heads.
    """
    heads = _heads(model.graph)
    take_mask(model, layers, "onnxruntime-genai")
    return heads


def take_mask(model: ir.Model, layers: Sequence[str], runtime: str) -> ir.Value:
    """Give an engine `attention_mask` instead of `past_len`, layers counted from 0, and logits as its only result.

    Args:
        model: an engine that runs a chain of any number of slots. It is rewritten in place.
        layers: the names of the layers whose rows the engine has, in order.
        runtime: who calls it, for the error message.

    Returns:
        The number of rows in use before the call, [1] int64.

    Raises:
        BackendError: the number of slots is fixed.
    """
    graph = model.graph
    inputs = {value.name: value for value in graph.inputs}
    tokens, past_len = inputs[TOKENS], inputs[PAST_LEN]
    if tokens.shape is None or isinstance(tokens.shape[1], int):
        raise BackendError(f"its number of slots is fixed, and {runtime} runs prompts of any length")
    mask = ir.val(MASK, ir.DataType.INT64, ir.Shape([1, "total"]))
    total = ir.node("Shape", [mask], {"start": 1, "end": 2})
    slots = ir.node("Shape", [tokens], {"start": 1, "end": 2})
    rows = ir.node("Sub", [total.outputs[0], slots.outputs[0]])
    graph.insert_before(graph[0], (total, slots, rows))
    ir.convenience.replace_all_uses_with(past_len, rows.outputs[0])
    graph.inputs.remove(past_len)
    graph.inputs.append(mask)
    _number_layers([*graph.inputs, *graph.outputs], layers)
    for value in [v for v in graph.outputs if v.name != LOGITS and not (v.name or "").startswith("present.")]:
        graph.outputs.remove(value)
    RemoveUnusedNodesPass()(model)
    return rows.outputs[0]


def _heads(graph: ir.Graph) -> AttentionHeads:
    """Return the heads of the attention, which genai's configuration gives for all layers at once."""
    kinds = {
        AttentionHeads(node.attributes["num_heads"].as_int(), node.attributes["kv_num_heads"].as_int())
        for node in graph
        if node.op_type == ATTENTION
    }
    if len(kinds) != 1:
        raise BackendError("its layers differ in their heads of attention, and onnxruntime-genai has one kind for all")
    return kinds.pop()


def _number_layers(values: Sequence[ir.Value], layers: Sequence[str]) -> None:
    """Name the rows of layer i in the order of `layers` by i, and leave their capacity open."""
    numbers = {name: str(number) for number, name in enumerate(layers)}
    for value in values:
        role, *rest = (value.name or "").split(".", 1)
        if role in ("past_key_values", "present") and rest:
            layer, _, part = rest[0].rpartition(".")
            value.name = f"{role}.{numbers[layer]}.{part}"
