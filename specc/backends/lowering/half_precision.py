"""Compute in half precision, and hand float32 to the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from specc.passes import Pass
from specc.passes.arguments import node_arg
from specc.passes.find import after_placeholders, aten, calls, nodes, outputs, set_outputs, tensor_value, weight
from specc.runtime.block import INPUTS
from specc.runtime.draft import STATES

WIDE = ("hidden", STATES, "next_state")  # What the names of states begin with that leave as float32.
READS_LOGITS = (aten.argmax.default, aten.topk.default, aten.log_softmax.int)
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Half(Pass):
    """A pass that changes weights, caches and what is computed from them to `dtype`.

    Logits and states become float32 before anything is read off them or they leave. States that a trained head reads
    come as float32.

    Given:   logits = linear(hidden, head);  ids = argmax(logits)               all float32
    Result:  logits = linear(hidden, head);  ids = argmax(to(logits, float32))  hidden, head in `dtype`
    """

    dtype: torch.dtype

    def __call__(self, graph: GraphModule) -> int:
        self._widen_outputs(graph)
        changed = 0
        for node in nodes(graph):
            value = tensor_value(node)
            if value is None or value.dtype != torch.float32:
                continue
            if node.op == "get_attr":
                _put(graph, str(node.target), weight(graph, node).to(self.dtype))
                node.meta["val"] = weight(graph, node)
            elif node.op == "placeholder" and node.name in INPUTS:
                self._narrow(graph, node)
            elif node.op == "placeholder":
                node.meta["val"] = value.to(self.dtype)
            else:
                continue
            changed += 1
        return changed

    def _narrow(self, graph: GraphModule, node: Node) -> None:
        """Insert a cast behind an input that the host fills."""
        with graph.graph.inserting_before(after_placeholders(graph)):
            narrow = graph.graph.call_function(aten.to.dtype, (node, self.dtype))
        narrow.meta = {**node.meta, "val": node.meta["val"].to(self.dtype)}
        node.replace_all_uses_with(narrow, lambda user: user is not narrow)

    def _widen_outputs(self, graph: GraphModule) -> None:
        """Insert casts to float32 behind the logits and the hidden states that are outputs."""
        named = outputs(graph)
        logits = named.get("logits") or _logits(graph)
        wide_values = {node for name, node in named.items() if name.startswith(WIDE)}
        if logits is not None:
            wide_values.add(logits)
        readers = [node for node in calls(graph, *READS_LOGITS) if node.args[0] is logits]
        for node in wide_values:
            with graph.graph.inserting_after(node):
                wide = graph.graph.call_function(aten.to.dtype, (node, torch.float32))
            wide.meta = dict(node.meta)
            for reader in readers:
                reader.replace_input_with(node, wide)
            named = {name: wide if output is node else output for name, output in named.items()}
        set_outputs(graph, named)


def _logits(graph: GraphModule) -> Node | None:
    """Return what the last pick of tokens reads, or None if there is none. Routers of experts pick before it."""
    picks = calls(graph, *READS_LOGITS)
    return node_arg(picks[-1], 0) if picks else None


def _put(graph: GraphModule, target: str, value: torch.Tensor) -> None:
    """Replace a parameter or a buffer by a buffer of another type."""
    path, _, name = target.rpartition(".")
    owner = graph.get_submodule(path)
    if name in owner._parameters:
        del owner._parameters[name]
    if name in owner._buffers:
        setattr(owner, name, value)
    else:
        owner.register_buffer(name, value)
