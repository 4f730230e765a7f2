"""SWIFT's search while it decodes: comparisons on the last tokens, which change no row and no token."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from typing import Any

import numpy as np
import pytest
from toys import SETS, Toy, World, prompts

from specc.runtime.drafters.layer_sets import LayerSets
from specc.runtime.errors import RecipeError
from specc.runtime.sequence import Sequence

PROMPT = prompts(1, seed=6)[0]
WHOLE = [[[1], [1, 2]], [[], []]]  # The second draft is the target itself.


def swift(world: World, **values: Any) -> Any:
    return world.method("swift", **{"context_tokens": 8, "patience": 99, "target_matchness": 1.0, **values})


def test_swift() -> None:
    """The test of the system: matchness of what serves never falls below the others', and tokens are plain's."""
    decoder = swift(World(), skip_sets=SETS["skip_sets"])
    tokens, _ = decoder.run(PROMPT, 300)
    assert tokens == World().method("plain").run(PROMPT, 300)[0]
    drafter: LayerSets = decoder.drafter
    measured = [m for m in drafter.matchness if m is not None]
    assert len(measured) == len(SETS["skip_sets"]) and all(0 <= m <= 1 for m in measured)
    assert drafter.matchness[drafter.best] == max(measured)


def test_the_draft_that_is_the_target_itself_matches_wholly_and_ends_the_search() -> None:
    """A comparison computes what the target computed: same positions, same rows before, none of the target's own."""
    decoder = swift(World(), skip_sets=WHOLE, target_matchness=0.99)
    decoder.run(PROMPT, 60)
    drafter: LayerSets = decoder.drafter
    assert drafter.best == 1 and drafter.matchness[1] == 1.0 and not drafter.searches
    assert drafter.engine is drafter.drafts[1]


class Blind(Toy):
    """A runner whose slots see all rows before them, the target's own of these tokens included."""

    def topology(self) -> tuple[np.ndarray, np.ndarray]:
        mask_NT, depth_N = super().topology()
        return np.ones_like(mask_NT), depth_N


def test_a_comparison_that_sees_the_rows_of_the_target_is_noticed() -> None:
    """The control of the test above."""
    world = World()
    decoder = swift(world, skip_sets=WHOLE, target_matchness=0.99)
    world.runner = Blind
    decoder.drafter.checks = [world.engine(engine.block) for engine in decoder.drafter.checks]
    decoder.run(PROMPT, 60)
    assert decoder.drafter.matchness[1] < 1


def test_comparisons_leave_the_rows_of_the_target_alone() -> None:
    world = World()
    decoder = swift(world, context_tokens=4)
    seq = Sequence(list(PROMPT), world.caches)
    for _ in zip(decoder.steps(seq), range(30), strict=False):
        rows = len(world.cache)
        reference = World()
        reference.prefill.extend(reference.cache, world.cache.tokens)
        got, right = (w.stores["target"].rows_LC[:, :rows] for w in (world, reference))
        assert np.array_equal(got, right)
    assert decoder.drafter.checks[0].calls > 2


def test_no_comparison_runs_before_so_many_tokens_were_generated_or_after_the_search() -> None:
    decoder = swift(World(), context_tokens=16)
    decoder.run(PROMPT, 12)
    assert [engine.calls for engine in decoder.drafter.checks] == [0, 0, 0]
    decoder = swift(World(), context_tokens=4, patience=2)
    decoder.run(PROMPT, 200)
    calls = [engine.calls for engine in decoder.drafter.checks]
    assert not decoder.drafter.searches
    decoder.drafter.share = decoder.drafter.share_at_end = 0.0
    decoder.run(PROMPT, 100)
    assert [engine.calls for engine in decoder.drafter.checks] == calls


def test_the_search_goes_on_when_drafts_are_accepted_less_often() -> None:
    drafter: LayerSets = swift(World(), patience=1).drafter
    drafter.learn({0: 0.5, 1: 0.4})
    assert not drafter.searches and drafter.best == 0
    drafter.count(4, 4)
    assert not drafter.searches
    for _ in range(30):
        drafter.count(4, 1)
    assert drafter.searches
    drafter.learn({0: 0.1, 2: 0.9})
    assert drafter.best == 2 and drafter.unchanged == 0 and drafter.searches


def test_each_other_draft_is_a_rival_in_turn() -> None:
    drafter: LayerSets = swift(World()).drafter
    assert [drafter.rival() for _ in range(4)] == [1, 2, 1, 2]
    drafter.best = 1
    assert [drafter.rival() for _ in range(4)] == [0, 2, 0, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target_matchness": 2}, "target_matchness is 2; give a number from 0 to 1"),
        ({"patience": 0}, "patience is 0; give a whole number"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        swift(World(), **values)


@pytest.mark.parametrize("roles", [(), ("draft_0", "draft_1"), ("draft_0", "draft_1", "check_0"), ("check_0",)])
def test_drafts_without_an_engine_for_comparisons_are_refused(roles: Tokens[str]) -> None:
    engine: Any = object()
    with pytest.raises(RecipeError, match="give draft_0, draft_1"):
        LayerSets([(0.0, 1)], **dict.fromkeys(roles, engine))
