"""Lookup and a trained head in turns: lookup copies what it finds, and the head drafts where lookup finds nothing."""

from __future__ import annotations

from typing import Any

from toys import Circle, World, propose

from specc.runtime.draft import Draft
from specc.runtime.sequence import Sequence

SHORT: dict[str, Any] = {"max_matching_ngram_size": 2, "min_matching_ngram_size": 2}


def draft(tokens: list[int], room: int = 40, **parameters: Any) -> tuple[Draft, int]:
    """Return the draft after a text by a head that counts on, and the rows that the head then has."""
    world = World(runner=Circle)
    seq = Sequence(tokens, world.caches, limit=len(tokens) + 1 + room)
    drafter = world.method("eagle3-cascade", **SHORT | parameters).drafter
    world.prefill.extend(seq.cache, seq.tokens[:-1])
    return propose(drafter.open(seq)), len(world.caches["eagle3"])


def test_a_draft_that_begins_with_a_copy_runs_no_head() -> None:
    copy, rows = draft([4, 5, 17, 18, 19, 20, 2, 4, 5], prompt_lookup_num_tokens=4)
    assert (copy.tokens, rows) == ((5, 17, 18, 19, 20), 0)


def test_without_a_match_the_head_drafts_as_in_eagle3() -> None:
    alone, rows = draft([2, 3, 5, 8, 4], num_speculative_tokens=3)
    assert (alone.tokens, rows) == ((4, 5, 6, 7), 4)
    world = World(runner=Circle)
    seq = Sequence([2, 3, 5, 8, 4], world.caches)
    drafter = world.method("eagle3", num_speculative_tokens=3).drafter
    world.prefill.extend(seq.cache, seq.tokens[:-1])
    assert propose(drafter.open(seq)).tokens == alone.tokens


def test_a_drafted_token_that_leads_to_a_match_ends_the_drafting() -> None:
    mixed, _ = draft([4, 5, 17, 18, 19, 2, 4], num_speculative_tokens=3, prompt_lookup_num_tokens=4)
    assert mixed.tokens == (4, 5, 17, 18, 19)


def test_a_match_that_is_too_short_is_none() -> None:
    assert draft([4, 17, 18, 4], num_speculative_tokens=2)[0].tokens == (4, 5, 6)
    assert draft([4, 17, 18, 4], min_matching_ngram_size=1)[0].tokens[1] == 17


def test_a_draft_is_no_longer_than_what_is_worth_drafting() -> None:
    assert draft([2, 3, 5, 8, 4], room=2)[0].tokens == (4, 5, 6)
    assert draft([4, 5, 17, 18, 19, 2, 4, 5], room=2)[0].tokens == (5, 17, 18)


def test_the_head_reads_the_tokens_that_were_copied_when_it_drafts_again() -> None:
    world = World()
    text = [4, 5, 17, 18, 19, 20, 21, 22, 2, 4, 5]
    decoder, plain = world.method("eagle3-cascade", **SHORT), World().method("plain")
    tokens, accepted = decoder.run(text, 80)
    assert tokens == plain.run(text, 80)[0] and accepted > 0
