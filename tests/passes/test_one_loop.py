"""OneLoop: one loop of a recursive model, which each slot runs with the weights of a loop of its own."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from blocks import CAPACITY, run
from expecttest import assert_expected_inline
from graphs import model, prepared, tokens
from graphs import truth as plain_truth
from small_graphs import rewrite, small
from torch import Tensor, nn
from torch.fx import GraphModule

from specc import passes
from specc.compiler.graphs import add_one_loop, graph_key, prepare
from specc.huggingface.recursive import RelaxedLinear, find_layers
from specc.passes.one_loop import OneLoop
from specc.runtime.block import LOOP, Block
from specc.runtime.errors import PassError
from specc.runtime.tree import Tree
from specc.training.recursive import share_layers

pytestmark = pytest.mark.torch
LOOPS = 3
BLOCK = Block(Tree.chain(12), ("ids", "logits", "state:assistant"), model="assistant", inputs=("state", LOOP))


class Step(nn.Module):
    """A layer of attention, a product whose matrix layers share, and a norm of its own."""

    def __init__(self, index: int, shared: nn.Linear) -> None:
        super().__init__()
        self.index, self.mlp, self.norm = index, RelaxedLinear(shared, 1), nn.Parameter(torch.rand(4))
        for factor in (self.mlp.down, self.mlp.up):
            nn.init.normal_(factor)

    def forward(self, x: Tensor) -> Tensor:
        heads = x.unsqueeze(1)
        x = x + torch.ops.specc.attention(heads, heads, heads, None, 0.5, 0, 0.0, self.index).squeeze(1)
        normed: Tensor = torch.ops.specc.rms_norm(x, self.norm, 1e-5)
        return x + self.mlp(normed)  # type: ignore[no-any-return]


class Steps(nn.Module):
    """A model of one layer in two loops."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, shared = nn.Embedding(8, 4), nn.Linear(4, 4, bias=False)
        self.layers = nn.ModuleList([Step(0, shared), Step(1, shared)])
        self.head = nn.Linear(4, 8, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)  # type: ignore[no-any-return]


def test_a_slot_keeps_the_part_of_its_own_loop() -> None:
    steps, ids = Steps(), torch.tensor([[1, 2, 3]])
    graph = small(steps, input_ids=ids)
    assert_expected_inline(
        rewrite(graph, OneLoop(2, "x")),
        """\
inputs input_ids
embedding_1 = embedding(self.embed.weight, input_ids)
unsqueeze_1 = unsqueeze(embedding_1, 1)
attention_1 = specc.attention(unsqueeze_1, unsqueeze_1, unsqueeze_1, None, 0.5, 0, 0.0, 0)
squeeze_1 = squeeze(attention_1, 1)
add_1 = add(embedding_1, squeeze_1)
rms_norm_1 = specc.rms_norm(add_1, self.layers.0.norm, 1e-05)
linear_1 = linear(rms_norm_1, self.layers.0.mlp.down)
linear_2 = linear(linear_1, self.layers.0.mlp.up)
linear_3 = linear(rms_norm_1, self.layers.1.mlp.weight)
add_2 = add(linear_3, linear_2)
add_3 = add(add_1, add_2)
unsqueeze_2 = unsqueeze(add_3, 1)
attention_2 = specc.attention(unsqueeze_2, unsqueeze_2, unsqueeze_2, None, 0.5, 0, 0.0, 1)
squeeze_2 = squeeze(attention_2, 1)
add_4 = add(add_3, squeeze_2)
rms_norm_2 = specc.rms_norm(add_4, self.layers.1.norm, 1e-05)
linear_4 = linear(rms_norm_2, self.layers.1.mlp.down)
linear_5 = linear(linear_4, self.layers.1.mlp.up)
linear_6 = linear(rms_norm_2, self.layers.1.mlp.weight)
add_5 = add(linear_6, linear_5)
add_6 = add(add_4, add_5)
linear_7 = linear(add_6, self.head.weight)
return {logits: linear_7}
--> OneLoop(loops=2, name='x') changed 3
inputs input_ids, state, loop
matmul_1 = matmul(loop, self.spread_1)
embedding_1 = embedding(self.embed.weight, input_ids)
slice_1 = slice(loop, 2, 0, 1)
gt_1 = gt(slice_1, 0.5)
where_1 = where(gt_1, embedding_1, state)
unsqueeze_1 = unsqueeze(where_1, 1)
attention_1 = specc.attention(unsqueeze_1, unsqueeze_1, unsqueeze_1, None, 0.5, 0, 0.0, 0)
squeeze_1 = squeeze(attention_1, 1)
add_1 = add(where_1, squeeze_1)
rms_norm_1 = specc.rms_norm(add_1, self.ones_4, 1e-05)
matmul_2 = matmul(loop, self.layers.0.loops_norm)
mul_1 = mul(rms_norm_1, matmul_2)
linear_1 = linear(mul_1, self.layers.0.mlp.loops_down)
mul_2 = mul(linear_1, matmul_1)
linear_2 = linear(mul_2, self.layers.0.mlp.loops_up)
linear_3 = linear(mul_1, self.layers.1.mlp.weight)
add_2 = add(linear_3, linear_2)
add_3 = add(add_1, add_2)
linear_4 = linear(add_3, self.head.weight)
return {logits: linear_4, state:x: add_3}""",
    )
    both = graph(ids, torch.zeros(1, 3, 4), torch.tensor([[[1.0, 0.0]] * 3]))["state:x"]
    logits = graph(ids, both, torch.tensor([[[0.0, 1.0]] * 3]))["logits"]
    torch.testing.assert_close(logits, steps(ids))


@cache
def draft(family: str) -> Any:
    """Make a recursive model of a family's tiny model. Its loops have norms, biases and products of their own."""
    return share_layers(model(family), LOOPS, 4)


@torch.no_grad()
def truth(family: str, loops: int, ids: Tensor) -> Tensor:
    """Return the logits that PyTorch computes by the first loops of the recursive model."""
    first: Any = copy.deepcopy(draft(family))
    layers = find_layers(first)
    assert layers is not None
    del layers[loops:]
    first.config.num_hidden_layers = loops
    logits: Tensor = first(input_ids=ids).logits
    return logits


def build(family: str, block: Block) -> GraphModule:
    """Return the graph of a block of one loop."""
    graphs = {("assistant", "fp32"): prepare(draft(family), CAPACITY, None)}
    graphs = add_one_loop(graphs, [block], LOOPS)
    graph = graphs[graph_key(graphs, block)].graph
    passes.run(passes.pipeline(block, CAPACITY), graph)
    return graph


def loop_of(*numbers: int) -> Tensor:
    """Return the input that says which loop each slot runs, [1, slots, LOOPS]."""
    return torch.eye(LOOPS)[list(numbers)][None]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "phi", "gpt_neox", "opt"])
def test_an_exit_after_each_loop_has_pytorch_s_values(family: str) -> None:
    graph, ids, state = build(family, BLOCK), tokens(), torch.zeros(1, 12, 64)
    for loop in range(LOOPS):
        outputs = run(graph, ids, {}, 0, state=state, loop=loop_of(*[loop] * 12))
        torch.testing.assert_close(outputs["logits"], truth(family, 1 + loop, ids), atol=1e-4, rtol=1e-4)
        state = outputs["state_assistant"]


def test_two_requests_at_different_loops_share_a_call() -> None:
    """One text is at its first loop, the other at its second, and each has the values of its own."""
    one, two = build("llama", BLOCK), build("llama", replace(BLOCK, lanes=2))
    first, second = tokens(), (7 * tokens() + 3) % 100
    state = run(one, second, {}, 0, state=torch.zeros(1, 12, 64), loop=loop_of(*[0] * 12))["state_assistant"]
    outputs = run(
        two,
        torch.cat([first, second], 1),
        {},
        0,
        0,
        widths=torch.tensor([12, 12]),
        state=torch.cat([torch.full_like(state, torch.nan), state], 1),
        loop=loop_of(*[0] * 12, *[1] * 12),
    )
    for slots, loops, text in ((slice(0, 12), 1, first), (slice(12, 24), 2, second)):
        torch.testing.assert_close(outputs["logits"][:, slots], truth("llama", loops, text), atol=1e-4, rtol=1e-4)
    assert (truth("llama", 1, second) - truth("llama", 2, second)).abs().max() > 0.1, "a control: loops differ"


def test_a_model_that_is_not_recursive_has_one_loop() -> None:
    graph, ids = prepared("llama"), tokens()
    passes.run([OneLoop(1, "x")], graph)
    outputs = graph(ids, torch.arange(12)[None], torch.zeros(1, 12, 64), torch.ones(1, 12, 1))
    torch.testing.assert_close(outputs["logits"][0], plain_truth("llama"), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "loops", "message"),
    [
        ("gemma2", 3, "attention, attention_1, attention_2 differ"),  # in their windows
        ("llama", 3, "reads weights of its own in each loop"),  # as the layers share no matrix
        ("llama", 2, "3 layers do not run in 2 loops"),
    ],
)
def test_loops_that_cannot_share_a_call_are_refused(family: str, loops: int, message: str) -> None:
    graph = prepare(draft(family), CAPACITY, None).graph if family == "gemma2" else prepared(family)
    with pytest.raises(PassError, match=message):
        passes.run([OneLoop(loops, "x")], graph)
