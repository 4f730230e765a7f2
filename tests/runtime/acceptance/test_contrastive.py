"""Speculative contrastive decoding, exactly, against contrastive decoding without speculation."""

from __future__ import annotations

import numpy as np
import pytest
from chance import distribution, total_variation
from language import Language, joint, language, path_to, sampled_chain, step, verify

from specc.runtime.acceptance import Keeps, with_parameters
from specc.runtime.acceptance.contrastive import contrastive
from specc.runtime.draft import Draft
from specc.runtime.errors import RecipeError
from specc.runtime.rng import Rng, Use
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree

PARAMETERS = [(0.1, 0.5), (0.0, 1.0), (0.5, 0.2)]


def contrast(p: Language, q: Language, alpha: float, beta: float) -> Language:
    """Return contrastive decoding of a target and a draft model, as a language."""

    def probs(path: tuple[int, ...]) -> np.ndarray:
        with np.errstate(divide="ignore"):
            scores = (1 + beta) * np.log(p(path)) - beta * np.log(q(path))
        scores[p(path) < alpha * p(path).max()] = -np.inf
        weights = np.exp(scores - scores.max())
        result: np.ndarray = weights / weights.sum()
        return result

    return probs


def with_logits(draft: Draft, q: Language) -> Draft:
    logits = {slot: np.log(q(path_to(draft, slot))) for slot in range(draft.tree.slots)}
    return draft._replace(logits=logits)


@pytest.mark.parametrize(("alpha", "beta"), PARAMETERS)
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_samples_have_the_distribution_of_contrastive_decoding(slots: int, alpha: float, beta: float) -> None:
    accept = with_parameters(contrastive, {"alpha": alpha, "beta": beta})
    for seed in range(12):
        p, q = language(seed), language(100 + seed)
        target = contrast(p, q, alpha, beta)

        def first_two(rng: Rng, p: Language = p, q: Language = q, target: Language = target) -> tuple[int, ...]:
            propose = sampled_chain(slots, q)
            tokens = step(accept, lambda s: with_logits(propose(s), q), p, Sampling(1.0, rng=rng))
            return tokens[:2] if len(tokens) > 1 else (*tokens, rng.at(1, Use.TOKEN).pick(target(tokens)))

        assert total_variation(distribution(first_two), joint(target)) < 1e-12
        if (alpha, beta) != (0.0, 0.0) and seed == 0:  # The control: that is not the distribution of the target.
            assert total_variation(distribution(first_two), joint(p)) > 0.01


@pytest.mark.parametrize(("alpha", "beta"), PARAMETERS)
def test_greedy_answers_have_the_tokens_of_contrastive_decoding(alpha: float, beta: float) -> None:
    accept = with_parameters(contrastive, {"alpha": alpha, "beta": beta})
    lengths = set()
    for seed in range(40):
        p, q = language(seed), language(100 + seed)
        target = contrast(p, q, alpha, beta)
        first = int(target(()).argmax())
        second = int((target if seed % 2 else q)((first,)).argmax())
        draft = with_logits(Draft((0, first if seed % 3 else int(q(()).argmin()), second), Tree.chain(3)), q)
        accepted = accept(draft, verify(draft, p, Sampling()))
        tokens = (*(draft.tokens[slot] for slot in accepted.slots[1:]), accepted.token)
        lengths.add(len(tokens))
        assert tokens == tuple(int(target(tokens[:i]).argmax()) for i in range(len(tokens)))
    assert lengths == {1, 2, 3}


def test_it_refuses_a_tree_and_promises_nothing_of_the_target() -> None:
    draft = with_logits(Draft((0, 1, 2), Tree((-1, 0, 0))), language(1))
    with pytest.raises(RecipeError, match="'contrastive' is for chains, and this draft is a tree"):
        contrastive(draft, verify(draft, language(0), Sampling(1.0)))
    assert contrastive.keeps == Keeps.NOTHING and contrastive.needs_draft_logits


def test_a_draft_without_logits_is_refused_by_name() -> None:
    draft = Draft((0, 1), Tree.chain(2), {0: language(1)(())})
    with pytest.raises(RecipeError, match="needs the logits of a draft model after every slot"):
        contrastive(draft, verify(draft, language(0), Sampling(1.0)))
