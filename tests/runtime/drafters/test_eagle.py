"""Chains by a trained head: what they cost, where they end, and what they stand on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from chance import distribution, total_variation
from toys import Decoder, Toy, World, prompts

from specc.recipes.blocks import head_block
from specc.runtime.drafters.eagle import Eagle
from specc.runtime.errors import RecipeError
from specc.runtime.rng import Rng, SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Sequence
from specc.runtime.tree import Tree

PROMPT = prompts(3)[2]
UNKNOWN = 1


class Forgetful(Toy):
    """A toy whose head reads zeros in the place of its own states."""

    def run(self) -> None:
        if self.block.inputs and not self.block.last_row:
            self.inputs["state"][:] = 0
        super().run()


@pytest.mark.parametrize("count", [1, 3])
def test_a_draft_costs_a_call_a_token_and_the_first_also_runs_what_was_accepted(count: int) -> None:
    world = World()
    decoder = world.method("eagle3", num_speculative_tokens=count)
    seq = Sequence(list(PROMPT), world.caches)
    calls = 0
    for (draft, _), _ in zip(decoder.steps(seq), range(20), strict=False):
        total = sum(engine.calls for engine in decoder.drafter.engines)
        first = -(-(len(PROMPT) - 1) // 64) if not calls else 1
        assert draft.tree.slots == 1 + count and total - calls == first + count - 1
        calls = total


def test_it_ends_after_a_token_of_little_confidence() -> None:
    decoder = World().method("eagle3", num_speculative_tokens=4, assistant_confidence_threshold=0.5)
    lengths = {draft.tree.slots for draft, _ in decoder.drafts(PROMPT)}
    assert lengths > {2, 5}


def test_each_token_stands_on_the_state_that_the_head_returned_before() -> None:
    """With states of zeros, other tokens are drafted: the toy's logits depend on them a little."""

    def drafts(world: World) -> list[tuple[int, ...]]:
        return [draft.tokens for draft, _ in world.method("eagle3").drafts(PROMPT, steps=30)]

    assert drafts(World(runner=Forgetful)) != drafts(World())


def test_it_drafts_nothing_where_nothing_is_worth_drafting_and_runs_nothing() -> None:
    world = World()
    decoder = world.method("eagle3")
    seq = Sequence(list(PROMPT), world.caches, limit=len(PROMPT) + 1)
    draft, _ = next(decoder.steps(seq))
    assert draft.tokens == (PROMPT[-1],) and not any(engine.calls for engine in decoder.drafter.engines)


class Pruned(Toy):
    """A toy whose head does not know one token."""

    def head(self, token_N: np.ndarray, x_N: np.ndarray) -> None:
        super().head(token_N, x_N)
        if self.block.model == "eagle3" and "logits" in self.outputs:
            self.outputs["logits"][..., UNKNOWN] = -np.inf


def two_tokens(decoder: Decoder, rng: Rng) -> tuple[int, ...]:
    return tuple(decoder.run([2, 0, 1, 1], 2, Sampling(1.3, rng=rng))[0])


@pytest.mark.parametrize("count", [1, 2])
def test_sampled_drafts_of_a_pruned_vocabulary_keep_the_distribution(count: int) -> None:
    decoder = World(3, runner=Pruned).method("eagle3", acceptance="speculative", num_speculative_tokens=count)
    plain = World(3).method("plain")
    expected = distribution(lambda rng: two_tokens(plain, rng))
    assert total_variation(distribution(lambda rng: two_tokens(decoder, rng)), expected) < 1e-12
    assert sum(p for tokens, p in expected.items() if UNKNOWN in tokens) > 0.3


def test_tokens_that_the_head_does_not_know_are_never_drafted_and_have_the_probability_0() -> None:
    decoder = World(3, runner=Pruned).method("eagle3", acceptance="speculative")
    sampling = Sampling(1.3, rng=SeededRng(5))
    for draft, _ in decoder.drafts([2, 0, 1, 1], steps=30, sampling=sampling):
        assert UNKNOWN not in draft.tokens[1:] and len(draft.probs) == draft.tree.slots - 1 > 0
        assert all(probs_V[UNKNOWN] == 0 and probs_V.sum() == pytest.approx(1) for probs_V in draft.probs.values())


def test_a_head_without_logits_is_refused_where_a_rule_needs_its_probabilities() -> None:
    world = World()
    draft, feed, prefill = (
        world.engine(head_block("eagle3", Tree.chain(1), logits=logits)) for logits in (True, True, False)
    )
    with pytest.raises(
        RecipeError, match="the head returns no probabilities to sample drafts from; compile the bundle"
    ):
        Eagle(draft, feed, prefill, sample=True)
    Eagle(draft, feed, prefill)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"num_speculative_tokens": 0}, "num_speculative_tokens is 0"),
        ({"assistant_confidence_threshold": 2}, "assistant_confidence_threshold is 2"),
    ],
)
def test_a_parameter_out_of_range_is_refused(parameters: dict[str, Any], message: str) -> None:
    engine = World().prefill
    with pytest.raises(RecipeError, match=message):
        Eagle(engine, engine, engine, **parameters)


def test_the_toy_head_reads_states() -> None:
    """The control of the tests above."""
    world = World()
    decoder = world.method("eagle3")
    list(decoder.drafts(PROMPT, steps=2))
    assert np.any(decoder.drafter.engine.runner.inputs["state"])
