"""Lookup and a trained head in one tree: what each adds, and what the head's rows stand on afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from toys import Circle, World, prompts, propose

from specc.runtime.drafters.eagle_lookup import EagleLookup
from specc.runtime.errors import RecipeError
from specc.runtime.sequence import Sequence

RANDOM = prompts(3)[2]
WHOLE: list[Any] = []  # Costs by which all nodes are drafted.


def test_a_copy_is_a_path_beside_the_heads_tree() -> None:
    """After 5 the text had 17, 18, 19. The toy's head counts on: 6, 7."""
    world = World(runner=Circle)
    seq = Sequence([4, 5, 17, 18, 19, 20, 2, 4, 5], world.caches)
    decoder = world.method("eagle3-lookup", num_speculative_tokens=6, step_costs=WHOLE, match_rates=[0.3, 0.5])
    world.prefill.extend(seq.cache, seq.tokens[:-1])
    draft = propose(decoder.drafter.open(seq))
    children = {draft.tokens[slot] for slot in draft.tree.children[0]}
    assert {6, 17} <= children
    below = draft.tree.children[draft.tokens.index(17)]
    assert [draft.tokens[slot] for slot in below] == [18]


def test_a_sure_copy_takes_the_whole_tree_and_an_unlikely_one_none_of_it() -> None:
    text = [4, 5, 17, 18, 19, 20, 21, 2, 4, 5]

    def tokens(rate: float) -> tuple[int, ...]:
        world = World(runner=Circle)
        seq = Sequence(list(text), world.caches)
        decoder = world.method("eagle3-lookup", num_speculative_tokens=4, step_costs=WHOLE, match_rates=[rate])
        world.prefill.extend(seq.cache, seq.tokens[:-1])
        return propose(decoder.drafter.open(seq)).tokens

    assert tokens(1.0) == (5, 17, 18, 19, 20)
    assert 17 not in tokens(0.0)


def test_without_a_match_it_drafts_what_eagle3_tree_drafts() -> None:
    text = list(range(20))
    drafts = []
    for recipe in ("eagle3-lookup", "eagle3-tree"):
        world = World()
        seq = Sequence(list(text), world.caches)
        world.prefill.extend(seq.cache, seq.tokens[:-1])
        drafts.append(propose(world.method(recipe, max_depth=3).drafter.open(seq)))
    assert drafts[0] == drafts[1]


def test_a_copy_is_no_longer_than_what_is_worth_drafting() -> None:
    world = World(runner=Circle)
    seq = Sequence([4, 5, 17, 18, 19, 20, 4, 5], world.caches, limit=8 + 3)
    decoder = world.method("eagle3-lookup", step_costs=WHOLE, match_rates=[0.9])
    world.prefill.extend(seq.cache, seq.tokens[:-1])
    assert propose(decoder.drafter.open(seq)).tree.depth.max() == 2


def test_after_copied_tokens_the_heads_rows_are_those_of_a_new_text() -> None:
    """The head runs accepted copies beside the target's states. So later drafts are those over rows made at once."""
    world = World(runner=Circle)
    text = [*range(24), *range(12)]
    decoder = world.method("eagle3-lookup", match_rates=[0.9])
    seq = Sequence(list(text), world.caches)
    copies = 0
    for (draft, accepted), _ in zip(decoder.steps(seq), range(6), strict=False):
        copies += len(accepted.slots) - 1
        assert len(draft.tokens) > 1
    assert copies > 20
    other = World(runner=Circle)
    again = Sequence(list(seq.tokens), other.caches)
    other.prefill.extend(again.cache, again.tokens[:-1])
    drafts = [
        propose(w.method("eagle3-lookup", match_rates=[0.9]).drafter.open(s)) for w, s in ((world, seq), (other, again))
    ]
    assert drafts[0] == drafts[1]
    rows = len(seq.tokens) - 1
    assert (world.stores["eagle3"].rows_LC[:, :rows] == other.stores["eagle3"].rows_LC[:, :rows]).all()


@pytest.mark.parametrize("rates", [[], 0.5, [1.5], ["x"], [0.1] * 17])
def test_rates_that_are_none_are_refused(rates: Any) -> None:
    engine = World().prefill
    with pytest.raises(RecipeError, match=r"match_rates is "):
        EagleLookup(engine, engine, engine, match_rates=rates)


def test_it_drafts_for_texts_that_repeat_and_for_those_that_do_not() -> None:
    world = World()
    plain = World().method("plain").run(RANDOM, 40)[0]
    tokens, hits = world.method("eagle3-lookup").run(RANDOM, 40)
    assert tokens == plain and hits > 5
