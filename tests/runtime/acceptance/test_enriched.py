"""RAPID's rule, by enumeration: with eta 0 it is exact, and otherwise as lossy as it says."""

from __future__ import annotations

import numpy as np
import pytest
from chance import distribution, total_variation
from language import Language, joint, language, path_to, sampled_chain, step, verify

from specc.runtime.acceptance import Keeps, with_parameters
from specc.runtime.acceptance.enriched import enriched
from specc.runtime.draft import Draft
from specc.runtime.errors import RecipeError
from specc.runtime.rng import Rng, Use
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree


def with_logits(draft: Draft, q: Language) -> Draft:
    logits = {slot: np.log(q(path_to(draft, slot))).astype(np.float32) for slot in range(draft.tree.slots)}
    return draft._replace(logits=logits)


def distance(eta: float, seed: int) -> float:
    """Return the total variation distance of two tokens from those of the target."""
    p, q = language(seed), language(100 + seed)
    accept = with_parameters(enriched, {"eta": eta, "alpha": 0.1})

    def first_two(rng: Rng) -> tuple[int, ...]:
        propose = sampled_chain(2, q)
        tokens = step(accept, lambda s: with_logits(propose(s), q), p, Sampling(1.0, rng=rng))
        return tokens[:2] if len(tokens) > 1 else (*tokens, rng.at(1, Use.TOKEN).pick(p(tokens)))

    return total_variation(distribution(first_two), joint(p))


@pytest.mark.parametrize("seed", range(6))
def test_rapid_with_eta_0_has_the_distribution_of_the_target(seed: int) -> None:
    assert distance(0.0, seed) < 1e-6  # logits are float32


def test_rapid_with_a_larger_eta_is_further_from_the_target() -> None:
    """The distances that are reported: none is lossless."""
    distances = [np.mean([distance(eta, seed) for seed in range(6)]) for eta in (0.0, 0.5, 2.0, 10.0)]
    assert distances == sorted(distances) and distances[1] > 0.01 and distances[-1] > 0.2


def test_greedy_answers_are_those_of_the_moved_logits() -> None:
    for seed in range(10):
        p, q = language(seed), language(100 + seed)
        draft = with_logits(Draft.chain([0, int(q(()).argmax())]), q)
        logits = np.log(p(())) + np.where(q(()) >= 0.1 * q(()).max(), 5.0 * (q(()) - p(())), 0)
        accept = with_parameters(enriched, {"eta": 5.0, "alpha": 0.1})
        accepted = accept(draft, verify(draft, p, Sampling()))
        right = int(logits.argmax()) == draft.tokens[1]
        assert len(accepted.slots) == 1 + right and (right or accepted.token == logits.argmax())


def test_a_tree_or_a_draft_without_logits_is_refused_and_nothing_is_kept() -> None:
    for draft in (Draft.chain([0, 1]), Draft((0, 1, 2), Tree((-1, 0, 0)))):
        with pytest.raises(RecipeError, match="needs a chain with the draft's logits after every slot"):
            enriched(draft, verify(draft, language(0), Sampling()))
    assert enriched.keeps == Keeps.NOTHING
