"""Methods that draft by a second model."""

from __future__ import annotations

from specc.recipes.blocks import prefill
from specc.recipes.draft_model import DRAFT_MODEL
from specc.recipes.entry import Facts


def test_a_draft_model_has_a_cache_and_a_prefill_of_its_own() -> None:
    blocks = DRAFT_MODEL.plan(DRAFT_MODEL.settle({}), Facts(8, 500, assistant=True))
    assert blocks.engines["prefill"] == prefill("assistant")
    draft = blocks.engines["draft"]
    assert (draft.model, draft.cache, draft.slots) == ("assistant", "assistant", 1)
    assert DRAFT_MODEL.needs == ("assistant-model",)
    assert [block.slots for block in blocks.verify] == [1, 4]
