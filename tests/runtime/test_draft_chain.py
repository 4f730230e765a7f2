"""Chains that an engine drafts: what they cost, and where they end."""

from __future__ import annotations

import numpy as np
import pytest
from toys import World, prompts, propose

from specc.runtime.block import Block
from specc.runtime.call import Call, finish
from specc.runtime.draft import Outputs
from specc.runtime.draft_chain import chaining, draft_chain
from specc.runtime.drafters.layer_skip import LayerSkip
from specc.runtime.lengths import Length, Schedule, Stop
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Sequence
from specc.runtime.tree import Tree

PROMPT = prompts(3)[2]
OUTPUTS = ("ids", "top_k:3", "logits")
FIVE = Length(Schedule(5))


@pytest.mark.parametrize("count", [1, 3])
def test_it_costs_a_call_a_token(count: int) -> None:
    decoder = World().method("layer-skip", num_speculative_tokens=count)
    for draft, calls in decoder.drafts(PROMPT):
        assert draft.tree.slots == 1 + count and calls == count


def test_it_ends_after_a_token_of_little_confidence() -> None:
    decoder, lengths = World().method("layer-skip", num_speculative_tokens=4, assistant_confidence_threshold=0.5), set()
    for draft, calls in decoder.drafts(PROMPT):
        last = np.exp(decoder.drafter.engine.outputs.top_logprobs_NK[0, 0])
        assert calls == draft.tree.slots - 1 and (last < 0.5 or calls == 4)
        lengths.add(calls)
    assert lengths == {1, 2, 3, 4}


@pytest.mark.parametrize(("limit", "drafted"), [(3, 0), (4, 0), (5, 1), (6, 2), (99, 5)])
def test_it_goes_no_further_than_the_request(limit: int, drafted: int) -> None:
    world = World()
    seq = Sequence([1, 2, 3], world.caches, limit=limit)
    world.prefill.extend(seq.cache, [1, 2])
    drafter = LayerSkip(world.engine(Block(Tree.chain(1), OUTPUTS)), num_speculative_tokens=5)
    assert propose(drafter.open(seq)).tree.slots == 1 + drafted


@pytest.mark.parametrize(("free", "drafted"), [(1, 0), (2, 1), (3, 2), (9, 5)])
def test_it_goes_no_further_than_the_cache(free: int, drafted: int) -> None:
    """Verify runs the pending token and the drafted ones, which all need rows."""
    world = World()
    seq = Sequence([1, 2, 3], world.caches)
    world.prefill.extend(seq.cache, [1, 2])
    engine = world.engine(Block(Tree.chain(1), OUTPUTS))
    world.stores["target"].capacity = 3 + free
    assert finish(draft_chain(engine, seq, seq.cache, room=5, length=FIVE, sample=False)).tree.slots == 1 + drafted


def test_a_sampled_chain_states_the_distributions_that_it_was_sampled_from() -> None:
    """They are the engine's, under the request's sampling; a greedy request samples nothing."""
    for temperature in (0.0, 0.7):
        world = World()
        seq = Sequence(list(PROMPT), world.caches, Sampling(temperature, top_k=4, rng=SeededRng(1)))
        world.prefill.extend(seq.cache, PROMPT[:-1])
        engine = world.engine(Block(Tree.chain(1), OUTPUTS))
        draft = finish(draft_chain(engine, seq, seq.cache, room=3, length=FIVE, sample=True))
        assert sorted(draft.probs) == ([0, 1, 2] if temperature else [])
        for slot in range(3):
            logits_NV = Call(engine, seq.cache, slot, draft.tokens[slot : slot + 1], Tree.chain(1)).run().logits_NV
            assert logits_NV is not None
            if temperature:
                assert np.array_equal(draft.probs[slot], seq.sampling.draws(logits_NV[0], SeededRng(0)).probs())
                assert draft.probs[slot][draft.tokens[slot + 1]] > 0
            else:
                assert draft.tokens[slot + 1] == logits_NV[0].argmax()


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_chain_keeps_the_logits_after_each_slot_if_a_rule_asks_for_them(count: int, temperature: float) -> None:
    """The logits are the engine's own, without the request's sampling. The last slot costs a further call."""
    world = World()
    seq = Sequence([1, 2, 3], world.caches, Sampling(temperature, rng=SeededRng(1)))
    world.prefill.extend(seq.cache, [1, 2])
    engine = world.engine(Block(Tree.chain(1), OUTPUTS))
    draft = finish(draft_chain(engine, seq, seq.cache, room=count, length=FIVE, sample=True, keep_logits=True))
    assert (list(draft.logits), engine.calls) == (list(range(1 + count)), 1 + count)
    for slot, token in enumerate(draft.tokens):
        outputs = Call(engine, seq.cache, slot, [token], Tree.chain(1)).run()
        assert outputs.logits_NV is not None
        np.testing.assert_array_equal(draft.logits[slot], outputs.logits_NV[0])


def test_slot_0_that_has_run_is_not_run_again_for_its_logits() -> None:
    """As at the end of an answer, where nothing is drafted, by a drafter whose exact engine ran the pending token."""
    world = World()
    seq = Sequence([1, 2, 3], world.caches)
    world.prefill.extend(seq.cache, [1, 2])
    engine = world.engine(Block(Tree.chain(1), OUTPUTS))
    first = Call(engine, seq.cache, 0, [3], Tree.chain(1)).run().copy()

    def refuse(slot: int, token: int, before: Outputs | None) -> Call:
        raise AssertionError(f"slot {slot} runs")

    draft = finish(chaining(refuse, seq, room=0, length=FIVE, first=first, keep_logits=True))
    assert draft.tokens == (3,) and first.logits_NV is not None
    np.testing.assert_array_equal(draft.logits[0], first.logits_NV[0])


class RefuseThird(Stop):
    """A stop that refuses the third token of each draft."""

    def begin(self) -> None:
        self.tokens = 0

    def takes(self, outputs: Outputs) -> bool:
        self.tokens += 1
        return self.tokens < 3


@pytest.mark.parametrize("keep_logits", [False, True])
def test_a_token_that_the_policy_refuses_costs_a_call_and_is_not_drafted(keep_logits: bool) -> None:
    """That call gave the logits of the last slot."""
    world = World()
    seq = Sequence([1, 2, 3], world.caches)
    world.prefill.extend(seq.cache, [1, 2])
    engine = world.engine(Block(Tree.chain(1), OUTPUTS))
    length = Length(Schedule(5), [RefuseThird()])
    for _ in range(2):
        calls = engine.calls
        draft = finish(
            draft_chain(engine, seq, seq.cache, room=9, length=length, sample=False, keep_logits=keep_logits)
        )
        assert (draft.tree.slots, engine.calls - calls) == (3, 3)
        assert list(draft.logits) == ([0, 1, 2] if keep_logits else [])
