"""LowerAttention, BakeTree, ParentsInput, MaskInput, KeepRow, ChooseOutputs: blocks run in torch, against the model.

Each path of a tree from its root is a sequence of its own; transformers decodes it whole.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from graphs import EIGHT, SLOTS, operators, prepared, stack, tokens, truth
from torch import Tensor
from torch.fx import GraphModule

from specc import passes
from specc.runtime.block import Block, Frontier, Parents
from specc.runtime.errors import PassError
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

CAPACITY = 40
TREE = Tree((-1, 0, 0, 1, 1, 2, 3, 3))
IDS = torch.arange(10, 10 + TREE.slots)[None]  # the tokens in its slots


def build(family: str, block: Block) -> GraphModule:
    graph = prepared(family)
    passes.run(passes.pipeline(block, CAPACITY), graph)
    return graph


@torch.no_grad()
def run(graph: GraphModule, ids: Tensor, past: dict[str, Tensor], past_len: int, **more: Tensor) -> dict[str, Any]:
    """Call a block with its inputs by name; a past that is not given is empty."""
    given = {"input_ids": ids, "past_len": torch.tensor([past_len]), **more}
    inputs = []
    for node in graph.graph.find_nodes(op="placeholder"):
        name = str(node.target)
        inputs.append(given[name] if name in given else past.get(name, node.meta["val"].clone()))
    return graph(*inputs)  # type: ignore[no-any-return]


def presents(outputs: dict[str, Any]) -> dict[str, Tensor]:
    names = (n for n in outputs if n.startswith("present."))
    return {n.replace("present.", "past_key_values_").replace(".", "_"): outputs[n] for n in names}


@cache
def prefilled(family: str) -> dict[str, Tensor]:
    """The cache after `tokens()`."""
    graph = build(family, Block(Tree.chain(tokens().shape[1])))
    outputs = run(graph, tokens(), {}, 0)
    torch.testing.assert_close(outputs["logits"][0], truth(family), atol=1e-4, rtol=1e-4)
    return presents(outputs)


@cache
def along_paths(family: str) -> Tensor:
    """Row by row what transformers says at the end of each slot's path, [slots, vocabulary]."""
    rows = []
    for slot in range(TREE.slots):
        path = torch.from_numpy(TREE.mask[slot].nonzero()[0])
        rows.append(truth(family, torch.cat([tokens(), IDS[:, path]], 1))[-1])
    return torch.stack(rows)


@pytest.mark.parametrize("family", EIGHT)
def test_a_baked_tree_runs_every_path_at_once(family: str) -> None:
    past = prefilled(family)
    found = run(build(family, Block(TREE)), IDS, past, tokens().shape[1])
    torch.testing.assert_close(found["logits"][0], along_paths(family), atol=1e-4, rtol=1e-4)
    assert torch.equal(found["ids"], found["logits"].argmax(-1))


@pytest.mark.parametrize("family", EIGHT)
def test_parents_as_an_input_give_the_same(family: str) -> None:
    past = prefilled(family)
    parents = torch.tensor(TREE.parents)
    found = run(build(family, Block(Parents(TREE.slots))), IDS, past, tokens().shape[1], parents=parents)
    torch.testing.assert_close(found["logits"][0], along_paths(family), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", EIGHT)
def test_a_frontier_grows_the_same_tree_in_two_calls(family: str) -> None:
    past, start = prefilled(family), tokens().shape[1]
    graph = build(family, Block(Frontier(4, TREE.slots)))
    rows = []
    for first in (0, 4):
        mask = torch.ones(4, TREE.slots, dtype=torch.bool)
        mask[:, 4 - first :] = torch.from_numpy(TREE.mask[first : first + 4, : first + 4].copy())
        depth = torch.from_numpy(TREE.depth[first : first + 4].copy()) - first
        found = run(graph, IDS[:, first : first + 4], past, start + first, mask=mask, depth=depth)
        past = presents(found)
        rows.append(found["logits"][0])
    torch.testing.assert_close(torch.cat(rows), along_paths(family), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", EIGHT)
def test_one_row_is_all_that_the_head_runs_on(family: str) -> None:
    graph = build(family, Block(Tree.chain(SLOTS), last_row=True))
    found = run(graph, tokens(), {}, 0, row=torch.tensor([7]))
    assert found["logits"].shape[:2] == (1, 1)
    torch.testing.assert_close(found["logits"][0, 0], truth(family)[7], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", EIGHT)
def test_top_k_and_hidden_states_leave_by_name(family: str) -> None:
    """A hidden state is what its layer hands on, before any norm of the model's own."""
    graph = build(family, Block(Tree.chain(SLOTS), outputs=("top_k:3", "hidden:-1", "hidden:0")))
    found = run(graph, tokens(), {}, 0)
    seen: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda *a: seen.append(a[2])) for layer in stack(family)[1]]
    expected = truth(family).log_softmax(-1).topk(3)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(found["top_logprobs"][0], expected.values, atol=1e-4, rtol=1e-4)
    assert torch.equal(found["top_ids"][0], expected.indices) and "logits" not in found
    for name, layer in (("hidden_0", 0), ("hidden_-1", 2)):
        state = seen[layer][0] if isinstance(seen[layer], tuple) else seen[layer]
        torch.testing.assert_close(found[name], state, atol=1e-4, rtol=1e-4)


def test_a_hidden_layer_that_is_not_there() -> None:
    with pytest.raises(PassError, match=r"no layer 9; the graph has \[0, 1, 2\]"):
        build("llama", Block(Tree.chain(2), outputs=("hidden:9",)))


def test_no_attention_of_a_whole_sequence_is_left() -> None:
    found = operators(build("llama", Block(TREE)))
    assert found["specc.cached_attention"] == 3 and "specc.attention" not in found
