"""Input-guided Aggressive Decoding: the copy, the mismatch, where it resumes, and its honest test."""

from __future__ import annotations

import numpy as np
from toys import Circle, Toy, ToyKV, World, propose

from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.drafters.aggressive_decoding import AggressiveDecoding, AggressiveDecodingDrafting
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Cache, Sequence

INPUT = [10, 11, 12, 13, 14, 15, 12, 13, 16, 9]


def drafting_of(count: int = 4) -> AggressiveDecodingDrafting:
    seq = Sequence(list(INPUT), {"target": Cache(ToyKV(), INPUT[:-1])})
    return AggressiveDecoding(count).open(seq)


def answer(drafting: AggressiveDecodingDrafting, copied: int, token: int) -> Draft:
    """Take a step in which the target accepts `copied` tokens and then says `token`. Return the next draft."""
    draft = propose(drafting)
    accepted = Accepted(tuple(range(copied + 1)), token)
    verified = Verified(Outputs(np.zeros(draft.tree.slots, np.int64).data), Sampling(), draft.tree)
    drafting.seq.append(draft, accepted)
    drafting.observe(draft, verified, accepted)
    return propose(drafting)


def test_the_first_step_is_a_plain_one_and_a_token_of_the_input_begins_the_copy() -> None:
    drafting = drafting_of()
    assert propose(drafting).tokens == (9,)
    assert answer(drafting, 0, 10).tokens == (10, 11, 12, 13, 14)


def test_the_copy_goes_on_while_the_target_agrees() -> None:
    drafting = drafting_of(count=2)
    assert answer(drafting, 0, 10).tokens == (10, 11, 12)
    assert answer(drafting, 2, 13).tokens == (13, 14, 15)
    assert answer(drafting, 2, 12).tokens == (12, 13, 16)


def test_after_a_mismatch_it_resumes_where_the_last_tokens_occur_once() -> None:
    """12 and 13 occur twice, and 12 13 too; 15 12 and 14 once."""
    drafting = drafting_of()
    answer(drafting, 0, 10)
    assert answer(drafting, 1, 30).tokens == (30,)
    assert answer(drafting, 0, 12).tokens == (12,)
    assert answer(drafting, 0, 13).tokens == (13,)
    assert answer(drafting, 0, 14).tokens == (14, 15, 12, 13, 16)
    assert answer(drafting, 0, 31).tokens == (31,)
    assert answer(drafting, 0, 15).tokens == (15, 12, 13, 16, 9)


def test_three_tokens_decide_where_two_occur_twice() -> None:
    drafting = drafting_of()
    for token in (15, 12):
        answer(drafting, 0, token)
    drafting.next = None
    assert answer(drafting, 0, 13).tokens == (13, 16, 9)


def test_at_the_end_of_the_input_it_takes_plain_steps() -> None:
    drafting = drafting_of()
    assert answer(drafting, 0, 16).tokens == (16, 9)
    assert answer(drafting, 1, 40).tokens == (40,)


def rewritten(runner: type[Toy], text: list[int]) -> float:
    """Return the tokens a step of an answer as long as `text`, and check them against plain decoding."""
    plain = World(120, runner=runner).method("plain").run(text, len(text))[0]
    tokens, accepted = World(120, runner=runner).method("aggressive-decoding").run(text, len(text))
    assert tokens == plain
    return len(tokens) / (len(tokens) - accepted)


def test_aggressive_decoding_of_a_text_that_is_written_unchanged_takes_more_than_five_tokens_a_step() -> None:
    """The honest test of methods.md. The text is one turn of a circle, which the answer repeats."""
    assert rewritten(Circle, list(range(120))) > 5


def test_an_answer_that_has_nothing_of_the_input_takes_about_a_step_for_a_token() -> None:
    assert 1 <= rewritten(Toy, list(range(60))) < 1.1
