"""What crosses to the host."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from torch.fx import GraphModule, Node

from specc.runtime.errors import PassError

from .find import aten, layer_output, layers, outputs, set_outputs


@dataclass(frozen=True)
class ChooseOutputs:
    """Next ids by argmax, top-k ids and log-probabilities, logits, hidden states.

    Given:   {logits}
    Result:  {ids: argmax(logits), top_ids: topk(logits, k), top_logprobs: log_softmax(logits)[top_ids]}

    for ("ids", "top_k:k"); the argmax is then the first of the top k.
    """

    outputs: tuple[str, ...]

    def __call__(self, graph: GraphModule) -> int:
        named = outputs(graph)
        logits = named.pop("logits")
        chosen: dict[str, Node] = {}
        call = graph.graph.call_function
        with graph.graph.inserting_before(graph.graph.output_node()):
            for output in self.outputs:
                kind, _, number = output.partition(":")
                if kind == "ids":
                    chosen["ids"] = call(aten.argmax.default, (logits, -1))
                elif kind == "logits":
                    chosen["logits"] = logits
                elif kind == "top_k":
                    top = call(aten.topk.default, (logits, int(number)))
                    chosen["top_ids"] = call(operator.getitem, (top, 1))
                    logprobs = call(aten.log_softmax.int, (logits, -1))
                    chosen["top_logprobs"] = call(aten.gather.default, (logprobs, -1, chosen["top_ids"]))
                    if "ids" in chosen:
                        chosen["ids"] = call(aten.select.int, (chosen["top_ids"], -1, 0))
                elif kind == "hidden":
                    chosen[output.replace(":", "_")] = _hidden(graph, int(number))
        set_outputs(graph, chosen | named)
        return len(self.outputs)


def _hidden(graph: GraphModule, layer: int) -> Node:
    found = layers(graph)
    index = max(found) if layer == -1 else layer
    if index not in found:
        raise PassError(f"no layer {layer}; the graph has {sorted(found)}")
    return layer_output(graph, found[index])
