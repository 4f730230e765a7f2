"""Jacobi's guesses are the last pass's answers, or samples of its rows."""

from __future__ import annotations

import numpy as np
import pytest
from chance import distribution, total_variation
from toys import ToyKV, World, prompts, propose

from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.drafters.jacobi import Jacobi, JacobiDrafting
from specc.runtime.errors import RecipeError
from specc.runtime.rng import Rng, SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Cache, Sequence


def test_answers_below_the_last_accepted_slot_are_the_next_guesses() -> None:
    """Slots without an answer repeat the pending token. Padding slots of a wider engine count for nothing."""
    seq = Sequence([5], {"target": Cache(ToyKV())})
    drafting = Jacobi(num_speculative_tokens=3).open(seq)
    draft = propose(drafting)
    assert draft.tokens == (5, 5, 5, 5) and draft.tree.is_chain
    verified = Verified(Outputs(np.array([5, 6, 7, 8, 99]).data), Sampling())
    accepted = Accepted((0, 1), 6)
    seq.append(draft, accepted)
    drafting.observe(draft, verified, accepted)
    assert propose(drafting).tokens == (6, 7, 8, 6)


def sampled(drafter: Jacobi, count: int, rng: Rng) -> tuple[int, ...]:
    """Return the first `count` tokens that a world of three words samples by a drafter and speculative sampling."""
    decoder = World(3).method("speculative-jacobi")
    decoder.drafter = drafter
    return tuple(decoder.run([2, 0, 1, 1], count, Sampling(1.3, rng=rng))[0])


def deviation(drafter: Jacobi, count: int) -> float:
    """Return how far these tokens are from plain sampling, as total variation over every way they can fall."""
    plain = World(3).method("plain")
    target = distribution(lambda rng: tuple(plain.run([2, 0, 1, 1], count, Sampling(1.3, rng=rng))[0]))
    return total_variation(distribution(lambda rng: sampled(drafter, count, rng)), target)


class Stale(Jacobi):
    """The control: it keeps the tokens that it guessed before, and states the new rows for them."""

    def open(self, seq: Sequence) -> StaleDrafting:
        return StaleDrafting(self, seq)


class StaleDrafting(JacobiDrafting):
    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        super().observe(draft, verified, accepted)
        old = draft.tokens[len(accepted.slots) + 1 :]
        self.guess = (*old, *self.guess[len(old) :])


@pytest.mark.parametrize(("guesses", "count"), [(1, 3), (2, 2)])
def test_fresh_samples_with_their_rows_keep_the_targets_distribution(guesses: int, count: int) -> None:
    assert deviation(Jacobi(guesses, vocab_size=3, sample=True), count) < 1e-12


def test_stale_tokens_with_new_rows_do_not() -> None:
    assert deviation(Stale(2, vocab_size=3, sample=True), 2) > 0.01


def test_a_slot_without_an_answer_states_that_its_token_is_certain() -> None:
    seq = Sequence([2], {"target": Cache(ToyKV())}, Sampling(1.0))
    draft = propose(Jacobi(2, vocab_size=3, sample=True).open(seq))
    assert draft.tokens == (2, 2, 2)
    assert [row.tolist() for row in draft.probs.values()] == [[0, 0, 1]] * 2


def test_sampled_guesses_save_steps() -> None:
    """The honest test of methods.md: fewer passes than tokens."""
    _, accepted = World(4).method("speculative-jacobi").run([1], 200, Sampling(0.7, rng=SeededRng(0)))
    assert accepted > 40


def test_speculative_jacobi_at_temperature_zero_is_jacobi_decoding() -> None:
    for prompt in prompts(5):
        assert World().method("speculative-jacobi").run(prompt, 60) == World().method("jacobi").run(prompt, 60)


def test_sampled_guesses_need_the_size_of_the_vocabulary() -> None:
    with pytest.raises(RecipeError, match="vocab_size is missing, and sampled guesses need it; compile the bundle"):
        Jacobi(sample=True)


def kept(threshold: float) -> tuple[float, float]:
    """Return the steps a token of the lossy variant, and the share of its tokens that differ from plain decoding.

    The toy is never as sure as a trained model, so thresholds are small here.
    """
    steps, other, texts = 0, 0, prompts(10, vocabulary=8)
    for prompt in texts:
        tokens, accepted = World(8).method("fastcot", confidence_threshold=threshold).run(prompt, 60)
        steps += len(tokens) - accepted
        other += sum(a != b for a, b in zip(tokens, World(8).method("plain").run(prompt, 60)[0], strict=True))
    return steps / (60 * len(texts)), other / (60 * len(texts))


def test_guesses_kept_unverified_save_steps_and_change_tokens() -> None:
    """The honest test of methods.md: the steps saved, and the divergence from greedy decoding over the threshold."""
    curve = [kept(threshold) for threshold in (0.0, 0.6, 1.0)]
    assert [steps for steps, _ in curve] == sorted(steps for steps, _ in curve)
    assert curve[0][0] < 0.5 and curve[0][1] > 0.3
    assert curve[2][1] == 0


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_with_a_threshold_of_one_every_guess_is_verified(temperature: float) -> None:
    for seed, prompt in enumerate(prompts(10)):
        sampling = Sampling(temperature, rng=SeededRng(seed))
        exact = World().method("fastcot", confidence_threshold=1.0).run(prompt, 60, sampling)
        assert exact == World().method("jacobi").run(prompt, 60, sampling)
        assert exact[0] == World().method("plain").run(prompt, 60, sampling)[0]
