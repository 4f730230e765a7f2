"""Captured graphs of tiny models, each captured once a session and forked for every test."""

from __future__ import annotations

from collections import Counter
from functools import cache

import torch
from families import tiny
from torch import Tensor
from torch.fx import GraphModule
from transformers import PreTrainedModel

from specc import passes
from specc.capture import capture

EIGHT = ("llama", "qwen3", "gemma2", "phi", "gpt_neox", "cohere2", "opt", "mixtral", "gpt2")
SLOTS = 12


@cache
def model(family: str) -> PreTrainedModel:
    return tiny(family)


@cache
def _captured(family: str) -> GraphModule:
    return capture(model(family))


@cache
def _prepared(family: str) -> GraphModule:
    graph = captured(family)
    passes.run(passes.preparation(64), graph)
    return graph


def captured(family: str) -> GraphModule:
    return passes.fork(_captured(family))


def prepared(family: str) -> GraphModule:
    return passes.fork(_prepared(family))


def tokens() -> Tensor:
    return torch.randint(1, 100, (1, SLOTS), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(graph: GraphModule) -> Tensor:
    """What a graph before attention is lowered says of `tokens()`, [slots, vocabulary]."""
    value: Tensor = graph(tokens(), torch.arange(SLOTS)[None])["logits"][0]
    return value


@torch.no_grad()
def truth(family: str, ids: Tensor | None = None) -> Tensor:
    """What transformers says of them."""
    value: Tensor = model(family)(input_ids=tokens() if ids is None else ids).logits[0]
    return value


def operators(graph: GraphModule) -> dict[str, int]:
    """How often each operator is called."""
    named = (str(n.target).removesuffix(".default") for n in graph.graph.nodes if n.op == "call_function")
    return dict(sorted(Counter(named).items()))
