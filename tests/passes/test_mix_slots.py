"""MixSlots: a slot that takes several tokens at once."""

from __future__ import annotations

import pytest
import torch
from blocks import IDS, build, prefilled, run
from graphs import model, prepared, tokens

from specc import passes
from specc.passes.find import calls, placeholder
from specc.passes.mix_slots import EMBEDDINGS, MixSlots
from specc.runtime.block import Block
from specc.runtime.errors import PassError
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

CHAIN = Block(Tree.chain(3), inputs=("mixture",))
WEIGHTS = torch.tensor([[[0.5, 0.3, 0.2], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_a_slot_reads_the_weighted_sum_of_embeddings(family: str) -> None:
    """As transformers does with these sums in the place of tokens; the identity leaves the tokens as they are."""
    graph, past, rows = build(family, CHAIN), prefilled(family), tokens().shape[1]
    with torch.no_grad():
        embed = model(family).get_input_embeddings()
        sums = torch.cat([embed(tokens()), (WEIGHTS @ embed(IDS[:, :3]))[:, :1]], 1)
        truth = model(family)(inputs_embeds=sums, use_cache=False).logits[0, -1]
    mixed = run(graph, IDS[:, :3], past, rows, mixture=WEIGHTS)["logits"]
    torch.testing.assert_close(mixed[0, 0], truth, atol=1e-4, rtol=1e-4)
    plain = run(build(family, Block(Tree.chain(3))), IDS[:, :3], past, rows)["logits"]
    same = run(graph, IDS[:, :3], past, rows, mixture=torch.eye(3)[None])["logits"]
    torch.testing.assert_close(same, plain, atol=1e-5, rtol=1e-5)


def test_a_graph_without_embeddings_is_refused() -> None:
    graph = prepared("llama")
    for node in calls(graph, *EMBEDDINGS):
        node.replace_all_uses_with(placeholder(graph, "input_ids"))
    graph.graph.eliminate_dead_code()
    with pytest.raises(PassError, match="no embedding reads input_ids"):
        passes.run([MixSlots(3)], graph)
