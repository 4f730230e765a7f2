"""FS-GEN: two models take turns, and the router says when."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from toys import World, prompts

from specc.recipes import METHODS
from specc.recipes.entry import Facts
from specc.recipes.routing import FS_GEN, FS_GEN_CONTRASTIVE
from specc.runtime.errors import RecipeError
from specc.runtime.sequence import Sequence

PROMPTS = prompts(4, seed=3)


def run(name: str, **values: Any) -> tuple[list[int], float]:
    """Return the answers, and the share of tokens that the large model chose: the rate of interventions."""
    decoder, tokens, calls = World().method(name, assistant=True, **values), list[int](), 0
    for prompt in PROMPTS:
        seq = Sequence(list(prompt), decoder.world.caches)
        for _ in decoder.steps(seq):
            calls += 1
            if len(seq.tokens) >= len(prompt) + 60:
                break
        tokens += seq.tokens[len(prompt) :][:60]
    return tokens, calls / len(tokens)


def plain() -> list[int]:
    decoder = World().method("plain")
    return [token for prompt in PROMPTS for token in decoder.run(prompt, 60)[0]]


@pytest.mark.parametrize("values", [{"fallback_threshold": 1.0}, {"fallback_threshold": 0.0, "margin_threshold": 0.5}])
def test_fs_gen_whose_router_always_asks_is_the_large_model(values: dict[str, float]) -> None:
    tokens, rate = run("fs-gen", **values)
    assert tokens == plain() and rate == 1


def test_the_rate_of_interventions_of_fs_gen_falls_with_the_threshold_and_answers_diverge() -> None:
    reports = [run("fs-gen", fallback_threshold=threshold) for threshold in (1.0, 0.6, 0.4, 0.0)]
    rates = [rate for _, rate in reports]
    assert (
        rates == sorted(rates, reverse=True)
        and rates[0] == 1 > rates[1]
        and rates[-1] == pytest.approx(1 / 8, abs=0.02)
    )
    own = plain()
    changed = [sum(a != b for a, b in zip(tokens, own, strict=True)) / len(own) for tokens, _ in reports]
    assert changed[0] == 0 < changed[-1] and all(a <= b + 0.2 for a, b in pairwise(changed))


def test_the_contrastive_choice_of_fs_gen_is_the_oracle_s_with_beta_1_and_alpha_0() -> None:
    assert run("fs-gen-contrastive", alpha=0.0, beta=1.0) == run("fs-gen")
    assert run("fs-gen-contrastive", fallback_threshold=1.0, alpha=0.0, beta=1.0)[0] == plain()
    assert run("fs-gen-contrastive", fallback_threshold=1.0, beta=3.0)[0] != plain()


@pytest.mark.parametrize("m", [FS_GEN, FS_GEN_CONTRASTIVE], ids=lambda m: m.name)
def test_they_are_lossy_and_no_defaults(m: Any) -> None:
    assert not m.lossless and not m.by_default and "lossy" in m.title and METHODS[m.name] is m


def test_a_value_out_of_range_is_refused() -> None:
    for m, values, message in (
        (FS_GEN, {"fallback_threshold": 2}, "fallback_threshold is 2; give a number from 0 to 1"),
        (FS_GEN_CONTRASTIVE, {"beta": -1}, "beta of acceptance guided is -1; give 0 to 10"),
    ):
        with pytest.raises(RecipeError, match=message):
            m.plan(m.settle(values), Facts(8, 500, True))
