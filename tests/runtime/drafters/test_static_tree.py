"""A static tree by a draft model: what it costs, and how its siblings are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from toys import World, prompts, propose

from specc.runtime.block import Block
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Sequence
from specc.runtime.tree import Tree

PROMPT = prompts(3)[2]
SAMPLING = Sampling(1.0, rng=SeededRng(0))


def test_independent_chains_cost_a_call_a_token_whatever_their_number() -> None:
    """The last tokens are not run; what the last step accepted is read with the first call, or before it."""
    for chains in (2, 5):
        decoder = World().method("spectr", assistant=True, chains=chains, num_speculative_tokens=3)
        drafts = list(decoder.drafts(PROMPT, 20))[1:]
        assert {draft.tree.slots for draft, _ in drafts} == {1 + 3 * chains}
        assert min(calls for _, calls in drafts) == 3 and max(calls for _, calls in drafts) <= 4


def test_greedy_chains_begin_with_the_likeliest_tokens_and_go_on_with_the_likeliest_one() -> None:
    world = World()
    decoder = world.method("spectr", assistant=True, chains=3, num_speculative_tokens=2)
    single = world.engine(Block(Tree.chain(1), ("ids", "top_k:3", "logits"), model="assistant", cache="alone"))
    seq = Sequence(list(PROMPT), world.caches)
    world.prefill.extend(seq.cache, seq.cache.sync(PROMPT[:-1]))
    draft = propose(decoder.drafter.open(seq))
    for slot, below in enumerate(draft.tree.children):
        path = [draft.tokens[s] for s in np.flatnonzero(draft.tree.mask[slot])]
        cache = world.caches["alone"]
        single.extend(cache, cache.sync([*PROMPT[:-1], *path]))
        assert [draft.tokens[c] for c in below] == single.outputs.top(0)[0].tolist()[: len(below)]


def test_siblings_drawn_with_replacement_repeat_and_those_without_do_not() -> None:
    for acceptance, repeats in (("kseq", True), ("recursive", False)):
        decoder = World(4).method("spectr", assistant=True, acceptance=acceptance, chains=4, num_speculative_tokens=1)
        drafts = [draft for draft, _ in decoder.drafts([1, 2, 3], 40, SAMPLING)]
        assert any(len(set(draft.tokens[1:])) < 4 for draft in drafts) is repeats


def test_a_sampled_tree_states_the_distributions_that_its_children_were_drawn_from() -> None:
    decoder = World().method("spectr", assistant=True, chains=2, num_speculative_tokens=3)
    for draft, _ in decoder.drafts(PROMPT, 5, SAMPLING):
        inner = [slot for slot, below in enumerate(draft.tree.children) if below]
        assert sorted(draft.probs) == inner
        for slot in inner:
            assert draft.probs[slot].sum() == pytest.approx(1)
            assert all(draft.probs[slot][draft.tokens[child]] > 0 for child in draft.tree.children[slot])
    assert not np.array_equal(draft.probs[1], draft.probs[0])
