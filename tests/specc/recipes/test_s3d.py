"""S3D's plan: one draft call without the middle layers, and chains that verify it."""

from __future__ import annotations

import pytest

from specc.recipes.entry import Facts, HeadFacts
from specc.recipes.s3d import S3D
from specc.runtime.block import GuessTree, Layers
from specc.runtime.errors import RecipeError

LAYERS = Layers(skip_attention=(3, 4), skip_mlp=(3, 4), bridge="s3d")
HEAD = HeadFacts(stack=3, recurrent=False, attends=False, in_model=True, draft_layers=LAYERS)
FACTS = Facts(layers=8, vocab_size=500, heads={"s3d": HEAD})


def test_the_draft_leaves_out_the_heads_layers_and_the_widest_chain_verifies_all_guesses() -> None:
    blocks = S3D.plan(S3D.settle({}), FACTS)
    draft = blocks.engines["draft"]
    assert draft.topology == GuessTree((-1, 0, 1, 2), 1, "s3d")
    assert draft.layers == LAYERS
    assert blocks.verify[-1].slots == 5 and not blocks.parts


def test_a_threshold_that_is_no_probability_is_refused() -> None:
    with pytest.raises(RecipeError, match="assistant_confidence_threshold is 2; give a number from 0 to 1"):
        S3D.plan(S3D.settle({"assistant_confidence_threshold": 2}), FACTS)
