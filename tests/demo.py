"""The demo model, captured once, and every kind of block of it, for the builders of engines for GPUs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from torch.fx import GraphModule

from specc import passes
from specc.compiler.capture import capture
from specc.huggingface import load_model
from specc.runtime.block import Block, Frontier, Layers, Parents
from specc.runtime.tree import Tree

CAPACITY = 640
TREE = Tree((-1, 0, 0, 0, 1, 1, 2, 4, 4, 7, 9, 10))
BLOCKS = {
    "prefill": Block(Tree.chain(128), last_row=True),
    "decode": Block(Tree.chain(1)),
    "draft": Block(Frontier(4, 16), ("top_k:4",), Layers(exit_after=4)),
    "verify": Block(TREE, ("ids", "top_k:8", "logits")),
    "parents": Block(Parents(12)),
    "window": Block(Tree.window(5, 3, 5)),
}


@cache
def demo() -> GraphModule:
    graph = capture(load_model(str(Path(__file__).parents[1] / "examples/pycode-10m")))
    passes.run(passes.preparation(CAPACITY), graph)
    return graph
