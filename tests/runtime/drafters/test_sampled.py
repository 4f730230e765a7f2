"""Drafters that sample, end to end on the toy model: what is emitted has the target's own distribution."""

from __future__ import annotations

from collections import Counter

import pytest
from chance import chi_square_rejects, distribution, total_variation
from toys import World

from specc.runtime.sampling import Sampling, SeededRng

PROMPT = [2, 0, 1, 1]
TEMPERATURE = 1.3
CASES = {
    "draft-model, 1": ("speculative", {"name": "draft-model", "assistant": True, "num_speculative_tokens": 1}),
    "draft-model, 2": ("speculative", {"name": "draft-model", "assistant": True, "num_speculative_tokens": 2}),
    "draft-model, threshold": (
        "speculative",
        {"name": "draft-model", "assistant": True, "num_speculative_tokens": 2, "assistant_confidence_threshold": 0.4},
    ),
    "layer-skip, 2": ("recursive", {"name": "layer-skip", "num_speculative_tokens": 2}),
    "early-exit": ("recursive", {"name": "early-exit", "tree": [(0,), (1,), (0, 0)]}),
    "dynamic-tree": ("recursive", {"name": "dynamic-tree", "num_speculative_tokens": 3}),
    "dynamic-tree, own cache": (
        "recursive",
        {"name": "dynamic-tree", "assistant": True, "num_speculative_tokens": 2, "max_depth": 2},
    ),
}


def two_tokens(decoder, rng) -> tuple[int, ...]:
    return tuple(decoder.run(PROMPT, 2, Sampling(TEMPERATURE, rng=rng))[0])


def plain(vocabulary: int) -> dict[tuple[int, ...], float]:
    decoder = World(vocabulary).method("plain")
    return distribution(lambda chance: two_tokens(decoder, chance))


@pytest.mark.parametrize(("acceptance", "case"), CASES.values(), ids=CASES)
def test_every_way_a_draft_can_fall_adds_up_to_the_target(acceptance, case):
    decoder = World(3).method(acceptance=acceptance, **case)
    got = distribution(lambda chance: two_tokens(decoder, chance))
    assert total_variation(got, plain(3)) < 1e-12


@pytest.mark.parametrize("name", ["early-exit", "dynamic-tree"])
def test_a_thousand_seeds_of_the_default_tree_pass_chi_square(name):
    decoder = World(6).method(name, acceptance="recursive")
    counts = Counter(two_tokens(decoder, SeededRng(seed)) for seed in range(1000))
    assert not chi_square_rejects(counts, plain(6))


@pytest.mark.parametrize("name", ["early-exit", "dynamic-tree", "layer-skip"])
def test_sampled_drafts_are_accepted(name):
    decoder = World().method(name, acceptance="recursive")
    assert decoder.run(PROMPT, 200, Sampling(TEMPERATURE, rng=SeededRng(0)))[1] > 40
