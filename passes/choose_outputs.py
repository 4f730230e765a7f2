"""Choose what an engine returns to the host."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from torch.fx import GraphModule, Node

from specc.runtime.errors import PassError

from .find import aten, layer_output, layers, outputs, set_outputs
from .protocol import Pass


@dataclass(frozen=True)
class ChooseOutputs(Pass):
    """A pass that replaces the logits by what a block returns: ids, top-k ids with log-probabilities, hidden states.

    Given:   {logits}
    Result:  {ids: argmax(logits)} for the output "ids"; {top_ids: topk(logits, k), top_logprobs:
             log_softmax(logits)[top_ids]} for "top_k:k". With both, the ids are the first of the top ids.
             The outputs "logits" and "hidden" stay as they are.
    """

    outputs: tuple[str, ...]

    def __call__(self, graph: GraphModule) -> int:
        named = outputs(graph)
        logits = named.pop("logits")
        values: dict[str, Node] = {}
        call = graph.graph.call_function
        with graph.graph.inserting_before(graph.graph.output_node()):
            for output in self.outputs:
                kind, _, number = output.partition(":")
                if kind == "ids":
                    values["ids"] = call(aten.argmax.default, (logits, -1))
                elif kind == "logits":
                    values["logits"] = logits
                elif kind == "top_k":
                    top = call(aten.topk.default, (logits, int(number)))
                    values["top_ids"] = call(operator.getitem, (top, 1))
                    logprobs = call(aten.log_softmax.int, (logits, -1))
                    values["top_logprobs"] = call(aten.gather.default, (logprobs, -1, values["top_ids"]))
                    if "ids" in values:
                        values["ids"] = call(aten.select.int, (values["top_ids"], -1, 0))
                elif kind == "hidden":
                    values[output.replace(":", "_")] = _hidden(graph, int(number))
        set_outputs(graph, values | named)
        return len(self.outputs)


def _hidden(graph: GraphModule, layer: int) -> Node:
    """Return the hidden states after a layer; -1 is the last one. Raises PassError if there is no such layer."""
    path_by_layer = layers(graph)
    index = max(path_by_layer) if layer == -1 else layer
    if index not in path_by_layer:
        raise PassError(f"no layer {layer}; the graph has {sorted(path_by_layer)}")
    return layer_output(graph, path_by_layer[index])
