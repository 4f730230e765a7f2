"""Jacobi iteration in blocks: what a block runs, when the next one begins, and the honest test."""

from __future__ import annotations

import numpy as np
import pytest
from toys import ToyKV, World, prompts, propose

from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.drafters.gauss_seidel import GaussSeidel, GaussSeidelDrafting
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Cache, Sequence


def answer(drafting: GaussSeidelDrafting, right: int, answers: list[int]) -> Draft:
    """Take a step in which `right` guesses are accepted. Return the next draft."""
    draft = propose(drafting)
    assert len(answers) == draft.tree.slots
    verified = Verified(Outputs(np.array([*answers, 99]).data), Sampling(), draft.tree)  # 99 is padding
    accepted = Accepted(tuple(range(right + 1)), answers[right])
    drafting.seq.append(draft, accepted)
    drafting.observe(draft, verified, accepted)
    return propose(drafting)


def drafting_of(block_size: int, parallel_tokens: int | None = None) -> GaussSeidelDrafting:
    seq = Sequence([5], {"target": Cache(ToyKV())})
    return GaussSeidel(block_size, parallel_tokens).open(seq)


def test_a_block_runs_only_what_is_not_fixed_and_the_next_one_begins_anew() -> None:
    drafting = drafting_of(4)
    assert propose(drafting).tokens == (5, 5, 5, 5) and propose(drafting).tree.is_chain
    assert answer(drafting, 0, [6, 7, 8, 9]).tokens == (6, 7, 8)
    assert answer(drafting, 1, [7, 8, 9]).tokens == (8,)
    assert answer(drafting, 0, [9]).tokens == (9, 9, 9, 9)


def test_a_block_that_is_right_at_once_takes_one_step() -> None:
    assert answer(drafting_of(3), 2, [5, 5, 7]).tokens == (7, 7, 7)


def test_a_hybrid_goes_on_by_plain_steps_after_its_parallel_tokens() -> None:
    """The last block holds what is left of them."""
    drafting = drafting_of(3, 5)
    assert answer(drafting, 2, [5, 5, 7]).tokens == (7, 7)
    assert answer(drafting, 1, [7, 8]).tokens == (8,)
    assert answer(drafting, 0, [9]).tokens == (9,)


def test_no_more_is_guessed_than_is_worth_drafting() -> None:
    seq = Sequence([5], {"target": Cache(ToyKV())}, limit=3)
    assert propose(GaussSeidel(6).open(seq)).tokens == (5, 5)


@pytest.mark.parametrize("name", ["jacobi", "gauss-seidel-jacobi", "hybrid-jacobi"])
def test_jacobi_takes_fewer_than_nine_steps_for_ten_tokens_of_text_that_repeats(name: str) -> None:
    """The honest test of methods.md. A text of four words repeats much. No prompt takes more steps than tokens."""
    world, steps = World(4), []
    for prompt in prompts(10, vocabulary=4):
        tokens, accepted = world.method(name).run(prompt, 150)
        steps.append(len(tokens) - accepted)
    assert max(steps) <= 150 and sum(steps) < 0.9 * 10 * 150
