"""A draft model keeps a cache of its own, which follows the text."""

from __future__ import annotations

from dataclasses import replace

import pytest
from toys import Toy, ToyKV, World, prompts, propose

from specc.runtime.block import Block
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Sequence

PROMPT = prompts(3)[2]


class Twin(Toy):
    """A runner to which every model is the target."""

    def __init__(self, block: Block, rows: ToyKV, vocabulary: int) -> None:
        super().__init__(block, rows, vocabulary)
        self.embedding_V = Toy(replace(block, model="target"), rows, vocabulary).embedding_V


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_leviathan_accepts_the_whole_draft_where_the_draft_model_is_the_target(temperature: float) -> None:
    """Alpha is 1, and each step gives gamma + 1 tokens. The rule itself is enumerated in test_speculative.py."""
    decoder = World(runner=Twin).method("draft-model", True, "speculative", num_speculative_tokens=4)
    seq = Sequence(list(PROMPT), decoder.world.caches, Sampling(temperature, rng=SeededRng(1)))
    lengths = [len(accepted.slots) for (_, accepted), _ in zip(decoder.steps(seq), range(30), strict=False)]
    assert lengths == [5] * 30


@pytest.mark.parametrize("count", [1, 3])
def test_a_draft_costs_a_call_a_token(count: int) -> None:
    """The first one also reads the prompt, with another engine. A token accepted at the very end was not run yet."""
    decoder = World().method("draft-model", assistant=True, num_speculative_tokens=count)
    for draft, calls in list(decoder.drafts(PROMPT))[1:]:
        assert draft.tree.slots == 1 + count
        assert count <= calls <= count + 1


def test_its_cache_holds_the_text_and_the_draft_but_for_the_last_token() -> None:
    decoder = World().method("draft-model", assistant=True, num_speculative_tokens=3)
    seq = Sequence(list(PROMPT), decoder.world.caches)
    steps, cache = decoder.steps(seq), decoder.world.caches["assistant"]
    for _ in range(5):
        next(steps)
        draft = propose(decoder.drafter.open(seq))
        assert draft.tree.slots == 4
        assert cache.tokens == [*seq.tokens[:-1], *draft.tokens[:-1]]
