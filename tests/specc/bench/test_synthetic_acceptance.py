"""A synthetic acceptance on drafts of every shape, and in the decoding loop on a bundle of random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import specc
from specc.bench.synthetic_acceptance import read_rates, synthetic, without_doubt
from specc.runtime.draft import Draft, Outputs, Verified
from specc.runtime.errors import RecipeError
from specc.runtime.manifest import Manifest
from specc.runtime.recipe import Recipe
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree


def verified(slots: int, seed: int = 0) -> Verified:
    """Make a target that chooses 100 + i after slot i, which no draft here contains."""
    return Verified(Outputs((100 + np.arange(slots)).data), Sampling(rng=SeededRng(seed)))


def accept(rates: list[float], tree: Tree, seed: int = 0) -> tuple[tuple[int, ...], int]:
    accepted = synthetic(rates)(Draft(tuple(range(tree.slots)), tree), verified(tree.slots, seed))
    return accepted.slots, accepted.token


@pytest.mark.parametrize(
    ("rates", "slots"), [([1], (0, 1, 2, 3)), ([0], (0,)), ([1, 0], (0, 1)), ([1, 1, 0, 1], (0, 1, 2))]
)
def test_a_chain_is_accepted_as_far_as_the_rates_say(rates: list[float], slots: tuple[int, ...]) -> None:
    assert accept(rates, Tree.chain(4)) == (slots, 100 + slots[-1])


def test_a_tree_is_followed_along_first_children() -> None:
    tree = Tree.from_paths([(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)])
    assert accept([1], tree) == ((0, 1, 3, 6), 106)


def test_a_draft_of_nothing_earns_nothing() -> None:
    assert accept([1], Tree.chain(1)) == ((0,), 100)


@pytest.mark.thorough
def test_rates_hold_given_those_above() -> None:
    lengths = np.array([len(accept([0.8, 0.5], Tree.chain(4), seed)[0]) - 1 for seed in range(4000)])
    reached = [(lengths >= depth).mean() for depth in (1, 2, 3)]
    assert reached == pytest.approx([0.8, 0.4, 0.2], abs=0.03)


@pytest.mark.parametrize("text", ["", "0.8,", "a", "0.8 0.6", "1.1", "-0.1", "nan"])
def test_a_text_that_is_not_a_rate_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"acceptance rates.* numbers in 0\.\.1"):
        synthetic(read_rates(text))


@pytest.mark.model
def test_a_bundle_is_accepted_at_the_given_rates(bundle: Path) -> None:
    session = specc.load(bundle)
    options: Any = {"recipe": "early-exit", "ignore_eos": True, "seed": 3}
    real = session.generate("import os", 64, **options).stats
    stats = session.generate("import os", 64, acceptance=synthetic([0.9]), **options).stats
    assert real.mean_acceptance_length < 2 < stats.mean_acceptance_length
    assert session.generate("import os", 64, acceptance=synthetic([0]), **options).stats.accepted == 0


def test_a_drafter_that_would_stop_where_it_is_unsure_goes_on() -> None:
    sure = Recipe(name="a", drafter="layer-skip", verify=("verify",), parameters={"num_speculative_tokens": 3})
    doubting = replace(sure, name="b", parameters={**sure.parameters, "assistant_confidence_threshold": 0.3})
    nothing: Any = None
    manifest = Manifest(
        schema=0,
        model=nothing,
        engines=(),
        caches={},
        recipes=(sure, doubting),
        default_recipe="a",
        versions={},
        files={},
    )
    parameters = [r.parameters for r in without_doubt(manifest).recipes]
    assert parameters == [sure.parameters, {"num_speculative_tokens": 3, "assistant_confidence_threshold": 0.0}]
