"""Blocks that run in torch, on a cache of tensors, and what transformers says along each path of a tree.

Each path of a tree from its root is a sequence of its own; transformers decodes it whole.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from graphs import prepared, tokens, truth
from torch import Tensor
from torch.fx import GraphModule

from specc import passes
from specc.runtime.block import Block
from specc.runtime.tree import Tree

CAPACITY = 40
TREE = Tree((-1, 0, 0, 1, 1, 2, 3, 3))
IDS = torch.arange(10, 10 + TREE.slots)[None]  # the tokens in its slots


def build(family: str, block: Block) -> GraphModule:
    """Return the graph of a block of a family's tiny model."""
    graph = prepared(family)
    passes.run(passes.pipeline(block, CAPACITY), graph)
    return graph


@torch.no_grad()
def run(graph: GraphModule, ids: Tensor, past: dict[str, Tensor], *past_len: int, **more: Tensor) -> dict[str, Any]:
    """Call a block with its inputs by name. A cache that `past` does not hold is empty.

    past_len: the rows of the cache, or of the cache of each lane.
    """
    by_name = {"input_ids": ids, "past_len": torch.tensor(past_len), **more}
    inputs = []
    for node in graph.graph.find_nodes(op="placeholder"):
        name = str(node.target)
        inputs.append(by_name[name] if name in by_name else past.get(name, node.meta["val"].clone()))
    outputs: dict[str, Any] = graph(*inputs)
    return outputs


def presents(outputs: dict[str, Any]) -> dict[str, Tensor]:
    """Return the caches that a block gives back, under the names of its inputs."""
    names = (name for name in outputs if name.startswith("present."))
    return {name.replace("present.", "past_key_values_").replace(".", "_"): outputs[name] for name in names}


@cache
def prefilled(family: str) -> dict[str, Tensor]:
    """Return the cache after `tokens()`."""
    graph = build(family, Block(Tree.chain(tokens().shape[1])))
    outputs = run(graph, tokens(), {}, 0)
    torch.testing.assert_close(outputs["logits"][0], truth(family), atol=1e-4, rtol=1e-4)
    return presents(outputs)


@cache
def along_paths(family: str) -> Tensor:
    """Return what transformers says at the end of each slot's path, [slots, vocabulary]."""
    rows = []
    for slot in range(TREE.slots):
        path = torch.from_numpy(TREE.mask[slot].nonzero()[0])
        rows.append(truth(family, torch.cat([tokens(), IDS[:, path]], 1))[-1])
    return torch.stack(rows)
