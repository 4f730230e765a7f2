"""A graph in half precision; what crosses to the host stays float32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from specc.passes.find import aten, calls, outputs, set_outputs, weight

HOST = (aten.argmax.default, aten.topk.default, aten.log_softmax.int)
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Half:
    """Weights, caches and what is computed from them in `dtype`; logits are float32 before anything is read off them.

    Given:   logits = linear(hidden, head);  ids = argmax(logits)               all float32
    Result:  logits = linear(hidden, head);  ids = argmax(to(logits, float32))  hidden, head in `dtype`
    """

    dtype: torch.dtype

    def __call__(self, graph: GraphModule) -> int:
        named, changed = outputs(graph), 0
        logits = named.get("logits") or next(
            (n.args[0] for n in reversed(calls(graph, *HOST))), None
        )  # routers pick too
        host = [n for n in calls(graph, *HOST) if n.args[0] is logits]
        hidden = {n for name, n in named.items() if name.startswith("hidden")}
        told = hidden | ({logits} if logits is not None else set())
        for node in told:
            with graph.graph.inserting_after(node):
                wide = graph.graph.call_function(aten.to.dtype, (node, torch.float32))
            wide.meta = dict(node.meta)
            for user in host:
                user.replace_input_with(node, wide)
            named = {name: wide if n is node else n for name, n in named.items()}
        set_outputs(graph, named)
        for node in graph.graph.nodes:
            if node.op == "get_attr" and _floats(node):
                _put(graph, str(node.target), weight(graph, node).to(self.dtype))
                node.meta["val"] = weight(graph, node)
            elif node.op == "placeholder" and _floats(node):
                node.meta["val"] = node.meta["val"].to(self.dtype)
            else:
                continue
            changed += 1
        return changed


def _floats(node: object) -> bool:
    value = node.meta.get("val") if isinstance(node, Node) else None
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def _put(graph: GraphModule, target: str, value: torch.Tensor) -> None:
    path, _, name = target.rpartition(".")
    holder = graph.get_submodule(path)
    if name in holder._parameters:
        del holder._parameters[name]
    setattr(holder, name, value) if name in holder._buffers else holder.register_buffer(name, value)
