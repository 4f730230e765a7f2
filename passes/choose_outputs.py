"""Choose what an engine returns to the host."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from math import inf

import torch
from torch.fx import GraphModule, Node

from specc.runtime.block import STATE
from specc.runtime.draft import STATES
from specc.runtime.errors import PassError

from .find import aten, layer_outputs, outputs, set_outputs
from .protocol import Pass


@dataclass(frozen=True)
class ChooseOutputs(Pass):
    """A pass that replaces the logits by what a block returns: ids, top-k ids with log-probabilities, hidden states.

    Given:   {logits}
    Result:  {ids: argmax(logits)} for the output "ids"; {top_ids: topk(logits, k), top_logprobs:
             log_softmax(logits)[top_ids]} for "top_k:k". With both, the ids are the first of the top ids.
             The outputs "logits" and "hidden" stay as they are, and so do "state:NAME" and "next_state", if asked for.
             With an output `vocabulary` [tokens] int64, the graph knows some of the model's tokens only: ids become
             vocabulary[ids], and logits become gather(cat(logits, -inf), places). `places` [the model's tokens] int64
             has the number of each token in the vocabulary, or that behind the last.
    """

    outputs: tuple[str, ...]

    def __call__(self, graph: GraphModule) -> int:
        named = outputs(graph)
        logits = named["logits"]
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
                    (values[output.replace(":", "_")],) = layer_outputs(graph, [int(number)])
                elif output in named:
                    values[output.replace(STATE, STATES)] = named[output]
                else:
                    raise PassError(f"no output {output!r}; the graph has {', '.join(named)}")
            if "vocabulary" in named:
                _map_back(graph, values, named)
        rows = {name: node for name, node in named.items() if name.startswith("present")}
        set_outputs(graph, values | rows)
        return len(self.outputs)


def _map_back(graph: GraphModule, values: dict[str, Node], named: dict[str, Node]) -> None:
    """Replace the numbers of tokens in a vocabulary of some tokens by the tokens themselves, and spread the logits."""
    call = graph.graph.call_function
    for name in ("ids", "top_ids"):
        if name in values:
            values[name] = call(aten.index.Tensor, (named["vocabulary"], [values[name]]))
    if "logits" in values:
        padded = call(aten.constant_pad_nd.default, (values["logits"], [0, 1], -inf))
        # The index of `gather` needs a row for each slot. To index by one row alone takes seven times as long.
        row = call(
            aten.zeros_like.default, (call(aten.slice.Tensor, (values["logits"], -1, 0, 1)),), {"dtype": torch.int64}
        )
        values["logits"] = call(aten.gather.default, (padded, -1, call(aten.add.Tensor, (row, named["places"]))))
