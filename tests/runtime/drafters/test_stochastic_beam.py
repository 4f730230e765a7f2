"""Stochastic beam search: which texts it keeps, and how often."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from chance import chi_square_rejects
from toys import World, prompts

from specc.runtime.drafters.stochastic_beam import Family, Node, SampledFamily, first
from specc.runtime.draws import Draws
from specc.runtime.rng import Rng, SeededRng, Use
from specc.runtime.sampling import Sampling

Texts = tuple[tuple[int, int], ...]  # each of two tokens
PROMPT = prompts(3)[2]
ROOT = np.array([0.5, 0.3, 0.2, 0.0])
BELOW = np.array([[0.7, 0.2, 0.1, 0], [0.1, 0.1, 0.8, 0], [0.3, 0.3, 0.4, 0]])


def draws(probs: np.ndarray, rng: Rng) -> Draws:
    return Draws(rng, probs.copy(), len(probs))


def beam(seed: int, width: int) -> Texts:
    """Return the texts of two tokens that a beam of this width keeps, in the order in which they arrive."""
    rng = SeededRng(seed)
    level: list[Family] = [SampledFamily(Node(0, 1.0, 0.0), draws(ROOT, rng.at(0, Use.DRAFT)))]
    tokens, families = [], list[Family]()
    for i, child in enumerate(first(level, width)):
        tokens.append(child.token)
        node = Node(i, child.reach, child.time)
        families.append(SampledFamily(node, draws(BELOW[child.token], rng.at(1, Use.DRAFT, 1 + i))))
    return tuple((tokens[child.parent], child.token) for child in first(families, width))


@pytest.mark.thorough
def test_a_beam_is_a_sample_of_texts_without_replacement() -> None:
    """The order, too, is that of drawing whole texts one after another (Kool et al. 2019)."""
    texts = {(a, b): ROOT[a] * BELOW[a][b] for a in range(3) for b in range(3)}
    expected: dict[Texts, float] = {(x, y): texts[x] * texts[y] / (1 - texts[x]) for x, y in permutations(texts, 2)}
    counts = Counter[Texts](beam(seed, 2) for seed in range(4000))
    assert not chi_square_rejects(counts, expected)
    independent: dict[Texts, float] = {(x, y): texts[x] * texts[y] for x in texts for y in texts}
    assert chi_square_rejects(counts, independent)


def test_a_family_ends_with_its_last_possible_token() -> None:
    family = SampledFamily(Node(0, 1.0, 0.5), draws(ROOT, SeededRng(1).at(0, Use.DRAFT)))
    children = list(first([family], 9))
    assert sorted(child.token for child in children) == [0, 1, 2]
    assert [child.time for child in children] == sorted(child.time for child in children) and children[0].time == 0.5


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_each_level_has_as_many_nodes_as_beams_and_costs_a_call(temperature: float) -> None:
    decoder = World().method("rsd-s", assistant=True, beams=3, max_depth=4)
    drafts = list(decoder.drafts(PROMPT, 20, Sampling(temperature, rng=SeededRng(0))))[1:]
    for draft, calls in drafts:
        assert [int((draft.tree.depth == level).sum()) for level in range(5)] == [1, 3, 3, 3, 3]
        assert all(len({draft.tokens[c] for c in below}) == len(below) for below in draft.tree.children)
        assert calls in (4, 5)
    assert len({draft.tree for draft, _ in drafts}) > 5


def test_a_greedy_beam_holds_the_likeliest_texts() -> None:
    """By every product of two probabilities, from a beam so wide that it holds all texts."""
    whole = next(World(5).method("rsd-s", assistant=True, beams=25, max_depth=2).drafts([1, 2, 3], 1))[0]
    narrow = next(World(5).method("rsd-s", assistant=True, beams=4, max_depth=2).drafts([1, 2, 3], 1))[0]
    assert whole.tree.slots == 1 + 5 + 25
    assert narrow.tokens[1:5] == whole.tokens[1:5]
    slots = [slot for slot in range(6, 31) if whole.tree.parents[slot] <= 4][:4]
    assert narrow.tokens[5:] == tuple(whole.tokens[slot] for slot in slots)
    assert narrow.tree.parents[5:] == tuple(whole.tree.parents[slot] for slot in slots)
