"""Captured graphs of tiny models: each is captured once a session, and forked for every test."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from families import tiny
from torch import Tensor, nn
from torch.fx import GraphModule
from transformers import PreTrainedModel

from specc import passes
from specc.compiler.capture import capture
from specc.runtime.errors import SpeccWarning

EIGHT = ("llama", "qwen3", "gemma2", "phi", "gpt_neox", "cohere2", "opt", "mixtral", "gpt2", "codegen")
SLOTS = 12


@cache
def model(family: str) -> PreTrainedModel:
    """Make the tiny model of a family, once."""
    return tiny(family)


@cache
def _captured(family: str) -> GraphModule:
    return capture(model(family))


@cache
def _prepared(family: str) -> GraphModule:
    graph = captured(family)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpeccWarning)  # of what a family has in a form that stays
        passes.run(passes.preparation(64), graph)
    return graph


def captured(family: str) -> GraphModule:
    """Return the graph of a family's tiny model as it is captured."""
    return passes.fork(_captured(family))


def prepared(family: str) -> GraphModule:
    """Return the graph of a family's tiny model after the preparation, for 64 positions."""
    return passes.fork(_prepared(family))


def tokens() -> Tensor:
    """Return the tokens that graphs are run on, [1, SLOTS] int64."""
    return torch.randint(1, 100, (1, SLOTS), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(graph: GraphModule) -> Tensor:
    """Run a graph whose attention is not lowered on `tokens()`; return its logits [slots, vocabulary]."""
    value: Tensor = graph(tokens(), torch.arange(SLOTS)[None])["logits"][0]
    return value


@torch.no_grad()
def truth(family: str, ids: Tensor | None = None) -> Tensor:
    """Run the model in transformers on `ids`, or on `tokens()`; return its logits [slots, vocabulary]."""
    value: Tensor = model(family)(input_ids=tokens() if ids is None else ids).logits[0]
    return value


def stack(family: str) -> tuple[str, nn.ModuleList]:
    """Return the path of the original model's list of layers, and the list."""
    return next((n, m) for n, m in model(family).named_modules() if isinstance(m, nn.ModuleList) and len(m) == 3)


@contextmanager
def without(family: str, attention: int = -1, mlp: int = -1, exit_after: int | None = None) -> Iterator[None]:
    """Let two sublayers of the original model give zeros, or take its last layers away."""
    original, (path, layers) = model(family), stack(family)
    holder, _, name = path.rpartition(".")

    def nothing(module: nn.Module, args: Any, output: Any) -> Any:
        return (0 * output[0], *output[1:]) if isinstance(output, tuple) else 0 * output

    hooks = []
    for layer, names in ((attention, {"self_attn", "attn", "attention"}), (mlp, {"mlp", "fc2"})):
        if layer >= 0:
            (sublayer,) = (child for n, child in layers[layer].named_children() if n in names)
            hooks.append(sublayer.register_forward_hook(nothing))
    setattr(original.get_submodule(holder), name, layers[:exit_after])
    try:
        yield
    finally:
        setattr(original.get_submodule(holder), name, layers)
        for hook in hooks:
            hook.remove()


def operators(graph: GraphModule) -> dict[str, int]:
    """Count the calls of each operator."""
    named = (str(n.target).removesuffix(".default") for n in graph.graph.nodes if n.op == "call_function")
    return dict(sorted(Counter(named).items()))
