"""A language of four tokens, in which every way that a draft and its verification can fall is enumerated."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache

import numpy as np
from chance import distribution, total_variation

from specc.runtime.acceptance import Acceptance, rule
from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.draws import Draws
from specc.runtime.rng import Rng, Use
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree

VOCABULARY = 4
Language = Callable[[tuple[int, ...]], np.ndarray]  # The tokens so far to the distribution [V] of the next one.
Propose = Callable[[Sampling], Draft]


def language(seed: int, sparse: bool = False) -> Language:
    """Make random distributions of the next token, one for each text; a sparse language rules some tokens out."""

    @cache
    def probs(path: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng([seed, *(t + 1 for t in path)])
        probs_V = rng.dirichlet(np.ones(VOCABULARY))
        if sparse:
            probs_V[rng.permutation(VOCABULARY)[: rng.integers(VOCABULARY - 1)]] = 0
        probs_V /= probs_V.sum()
        probs_V.flags.writeable = False
        return probs_V

    return probs


def path_to(draft: Draft, slot: int) -> tuple[int, ...]:
    """Return the tokens on the path to a slot, without the pending one."""
    return (*path_to(draft, draft.tree.parents[slot]), draft.tokens[slot]) if slot > 0 else ()


def verify(draft: Draft, target: Language, sampling: Sampling) -> Verified:
    """Return what a target that speaks this language answers to a draft."""
    probs_NV = np.array([target(path_to(draft, slot)) for slot in range(draft.tree.slots)])
    with np.errstate(divide="ignore"):
        return Verified(Outputs(probs_NV.argmax(-1).data, np.log(probs_NV)), sampling, draft.tree)


def sampled_chain(slots: int, q: Language) -> Propose:
    """Make a drafter of chains whose tokens are sampled from `q` one after another."""

    def propose(sampling: Sampling) -> Draft:
        tokens, probs = [0], {}
        for slot in range(slots - 1):
            probs[slot] = q(tuple(tokens[1:]))
            tokens.append(sampling.rng.at(slot, Use.DRAFT).pick(probs[slot]))
        return Draft.chain(tokens, probs)

    return propose


def sampled_tree(tree: Tree, q: Language) -> Propose:
    """Make a drafter of one tree, whose siblings are drawn from `q` without replacement.

    Slots for which `q` has no token left hold token 0.
    """

    def propose(sampling: Sampling) -> Draft:
        tokens, probs = [0] * tree.slots, {}
        for slot, children in enumerate(tree.children):
            if children:
                probs[slot] = q(path_to(Draft(tuple(tokens), tree), slot))
                rng = sampling.rng.at(int(tree.depth[slot]), Use.DRAFT, slot)
                draws = Draws(rng, probs[slot].copy(), VOCABULARY)
                for child in children:
                    if not draws.is_empty:
                        tokens[child] = draws.take()[0]
        return Draft(tuple(tokens), tree, probs)

    return propose


def independent_tree(tree: Tree, q: Language) -> Propose:
    """Make a drafter of one tree, whose siblings are drawn from `q` independently, with replacement."""

    def propose(sampling: Sampling) -> Draft:
        tokens, probs = [0] * tree.slots, {}
        for slot, children in enumerate(tree.children):
            if children:
                probs[slot] = q(path_to(Draft(tuple(tokens), tree), slot))
                rng = sampling.rng.at(int(tree.depth[slot]), Use.DRAFT, slot)
                for child in children:
                    tokens[child] = rng.pick(probs[slot])
        return Draft(tuple(tokens), tree, probs)

    return propose


def fixed(draft: Draft) -> Propose:
    """Make a drafter of one draft, whatever the text."""
    return lambda _: draft


def likeliest(count: int, q: Language) -> Propose:
    """Make a drafter of the `count` likeliest tokens, which states probabilities but does not sample."""
    tokens = map(int, np.argsort(-q(()))[:count])
    return fixed(Draft((0, *tokens), Tree((-1,) + (0,) * count), {0: q(())}))


@rule(needs_draft_probs=True)
def with_replacement(draft: Draft, verified: Verified) -> Accepted:
    """Accept siblings with min(1, p / q) in turn, where `q` stays what it was after a rejection.

    The rule is exact for siblings that were drawn independently, and biased for the likeliest tokens: the known trap.
    """
    p, q, rng = verified.probs(0), draft.probs[0], verified.rng(0, Use.ACCEPT)
    for child in draft.tree.children[0]:
        x = draft.tokens[child]
        if rng.bernoulli(min(1.0, p[x] / q[x])):
            return Accepted((0, child), verified.choose(child))
        p = np.maximum(p - q, 0)
        p /= p.sum()
    return Accepted((0,), verified.rng(0, Use.TOKEN).pick(p))


def step(accept: Acceptance, propose: Propose, target: Language, sampling: Sampling) -> tuple[int, ...]:
    """Return the tokens that one step emits."""
    draft = propose(sampling)
    accepted = accept(draft, verify(draft, target, sampling))
    return (*(draft.tokens[s] for s in accepted.slots[1:]), accepted.token)


def first_two(accept: Acceptance, propose: Propose, target: Language, rng: Rng) -> tuple[int, ...]:
    """Return the first two tokens. If the step emits one, the second is the target's own next token."""
    tokens = step(accept, propose, target, Sampling(1.0, rng=rng))
    return tokens[:2] if len(tokens) > 1 else (*tokens, rng.at(1, Use.TOKEN).pick(target(tokens)))


def joint(target: Language) -> dict[tuple[int, ...], float]:
    """Return the probabilities of the first two tokens of plain sampling."""
    return {(a, b): target(())[a] * target((a,))[b] for a, b in itertools.product(range(VOCABULARY), repeat=2)}


def deviation(accept: Acceptance, propose: Propose, target: Language) -> float:
    """Return how far the first two tokens are from plain sampling, as total variation."""
    return total_variation(distribution(lambda rng: first_two(accept, propose, target, rng)), joint(target))


def accepted_share(accept: Acceptance, propose: Propose, target: Language) -> float:
    """Return the probability that a draft of one level is accepted."""
    steps = distribution(lambda rng: step(accept, propose, target, Sampling(1.0, rng=rng)))
    return sum(probability for tokens, probability in steps.items() if len(tokens) == 2)
