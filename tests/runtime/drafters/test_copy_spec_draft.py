"""CopySpec over a draft model: a copy costs no call, and elsewhere the draft model drafts."""

from __future__ import annotations

from toys import World, prompts

PROMPT = prompts(1, seed=3)[0][:30]


def test_a_copy_costs_no_call_and_a_draft_some() -> None:
    decoder = World().method("copyspec-draft", assistant=True, min_matching_ngram_size=2)
    drafts = [(draft.tree.slots - 1, calls) for draft, calls in decoder.drafts(PROMPT * 3, 60)]
    copies = [tokens for tokens, calls in drafts if not calls]
    assert copies and max(copies) == 10
    assert {tokens for tokens, calls in drafts if calls} == {3}


def test_a_copy_changes_no_length_of_the_drafts() -> None:
    decoder = World().method("copyspec-draft", assistant=True, min_matching_ngram_size=1)
    lengths = {draft.tree.slots - 1 for draft, calls in decoder.drafts(PROMPT, 60) if calls}
    assert lengths <= {3}
