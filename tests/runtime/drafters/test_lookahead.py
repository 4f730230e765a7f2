"""Lookahead's window and its pool of n-grams."""

from __future__ import annotations

import numpy as np
from toys import ToyKV, World, prompts, propose

from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.drafters.lookahead import Lookahead, LookaheadDrafting
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Cache, Sequence

W, N, G = 2, 3, 3  # Columns; tokens of an n-gram; guesses.


def sequence(*tokens: int) -> Sequence:
    return Sequence(list(tokens), {"target": Cache(ToyKV(), tokens[:-1])})


def say(drafting: LookaheadDrafting, *tokens: int) -> None:
    """Let the text grow. All its tokens but the last one get rows."""
    drafting.seq.tokens += tokens
    drafting.seq.cache.tokens[:] = drafting.seq.tokens[:-1]


def parts(draft: Draft) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return the rows of the window, and the guesses."""
    window, guesses = draft.tokens[1 : 1 + W * (N - 1)], draft.tokens[1 + W * (N - 1) :]
    return list(zip(window[::W], window[1::W], strict=True)), list(zip(guesses[::2], guesses[1::2], strict=True))


def test_guesses_are_the_n_grams_of_the_text_that_begin_with_the_pending_token_latest_first() -> None:
    """Four of them, of which the pool keeps three."""
    drafter = Lookahead(W, N, G)
    drafting = drafter.open(sequence(7, 1, 1, 7, 2, 2, 7, 3, 3, 7, 4, 4, 7))
    draft = propose(drafting)
    assert parts(draft)[1] == [(4, 4), (3, 3), (2, 2)]
    say(drafting, 2, 2, 7)
    draft = propose(drafting)
    assert parts(draft)[1] == [(2, 2), (4, 4), (3, 3)]


def test_each_column_of_the_window_with_the_answer_below_it_becomes_an_n_gram() -> None:
    """The window moves up by a row, and its columns are guesses when their first token is pending."""
    drafting = Lookahead(W, N, G).open(sequence(5, 6, 8))
    draft = propose(drafting)
    (a, b), (c, d) = parts(draft)[0]
    ids = np.zeros(draft.tree.slots, np.int64)
    ids[3:5] = 20, 21
    drafting.observe(draft, Verified(Outputs(ids.data), Sampling()), Accepted((0,), a))
    say(drafting, a)
    draft = propose(drafting)
    assert parts(draft)[0] == [(c, d), (20, 21)]
    assert (c, 20) in parts(draft)[1]
    say(drafting, b)
    assert (d, 21) in parts(propose(drafting))[1]


def test_another_text_is_read_from_its_beginning() -> None:
    """Though it is longer than the last one."""
    drafter = Lookahead(W, N, G)
    propose(drafter.open(sequence(1, 2, 3, 4)))
    draft = propose(drafter.open(sequence(7, 8, 9, 0, 0, 0, 7)))
    assert (8, 9) in parts(draft)[1]


def test_lookahead_takes_more_than_1_2_tokens_a_step_where_the_text_repeats() -> None:
    """A text of four words repeats much. Guesses of the pool are accepted after some steps."""
    world, steps = World(4), 0
    for prompt in prompts(3, vocabulary=4):
        tokens, accepted = world.method("lookahead").run(prompt, 120)
        steps += len(tokens) - accepted
    assert 1.2 * steps < 3 * 120
