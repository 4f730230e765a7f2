"""EasySpec: exact rows under drafts of an inexact model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toys import Decoder, World, prompts

from specc.recipes import METHODS
from specc.recipes.blocks import draft_model
from specc.recipes.draft_model import EASYSPEC
from specc.recipes.entry import Facts
from specc.runtime.block import Layers
from specc.runtime.errors import RecipeError
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Sequence
from specc.runtime.tree import Tree

PROMPTS = prompts(6, seed=3)


def rows(world: World, count: int) -> np.ndarray:
    """Return the first rows of the draft model."""
    result: np.ndarray = world.stores["assistant"].rows_LC[:, :count]
    return result


def easyspec(**values: Any) -> Decoder:
    return World().method("easyspec", assistant=True, **values)


def test_committed_rows_are_those_of_the_exact_draft_model() -> None:
    """The calibrating pass: drafts were made by the inexact one, and nothing of them is left."""
    decoder = easyspec(parallel_layers=4)
    decoder.run(PROMPTS[0], 60)
    cache, exact = decoder.world.caches["assistant"], World()
    engine = exact.engine(draft_model(Tree.chain(1))["draft"])
    engine.extend(exact.caches["assistant"], cache.tokens)
    assert len(cache) > 60
    assert np.array_equal(rows(decoder.world, len(cache)), rows(exact, len(cache)))


def test_groups_of_one_layer_draft_what_the_exact_draft_model_does() -> None:
    def drafts(decoder: Decoder) -> list[tuple[int, ...]]:
        return [draft.tokens for draft, _ in decoder.drafts(PROMPTS[1])]

    exact = drafts(World().method("draft-model", assistant=True))
    assert drafts(easyspec(parallel_layers=1)) == exact != drafts(easyspec(parallel_layers=4))


def test_the_first_drafted_token_is_the_exact_models() -> None:
    """The same call that puts the rows right gives it, so it costs no call of its own."""
    decoder, exact = easyspec(parallel_layers=4, num_speculative_tokens=3), World()
    engine = exact.engine(draft_model(Tree.chain(1))["draft"])
    seq = Sequence(list(PROMPTS[2]), decoder.world.caches, Sampling())
    calls = decoder.drafter.engine.calls
    for number, (draft, accepted) in zip(range(1, 9), decoder.steps(seq), strict=False):
        before = seq.tokens[: -len(accepted.slots)]
        cache = exact.caches["assistant"]
        engine.extend(cache, cache.sync(before))
        assert draft.tokens[1] == engine.outputs.ids_N[0]
        assert decoder.drafter.engine.calls - calls == 2 * number


def test_the_plan_has_an_exact_model_for_a_step_and_an_inexact_one_for_a_token() -> None:
    facts = Facts(8, 500, assistant=True, assistant_layers=6)
    blocks = EASYSPEC.plan(EASYSPEC.settle({"num_speculative_tokens": 5, "parallel_layers": 3}), facts)
    assert blocks.engines["draft"].layers == Layers(parallel_group=3) and blocks.engines["draft"].slots == 1
    assert blocks.engines["calibrate"].layers == Layers() and blocks.engines["calibrate"].slots == 6
    with pytest.raises(RecipeError, match="parallel_layers is 7, and the draft model has 6 layers; give fewer"):
        EASYSPEC.plan(METHODS["easyspec"].settle({"parallel_layers": 7}), facts)
