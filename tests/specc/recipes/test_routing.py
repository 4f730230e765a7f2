"""FS-GEN: two models take turns, and the router says when."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from toys import World, prompts

from specc.recipes import METHODS, prefill
from specc.recipes.entry import Facts
from specc.recipes.routing import FS_GEN, FS_GEN_CONTRASTIVE, FS_GEN_PROXY
from specc.runtime.call import finish
from specc.runtime.engine import extending
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


def test_proxy_tuning_is_the_oracle_with_alpha_0_and_another_text_with_more() -> None:
    assert run("fs-gen-proxy", alpha=0.0) == run("fs-gen")
    assert run("fs-gen-proxy", fallback_threshold=1.0, alpha=0.0)[0] == plain()
    assert run("fs-gen-proxy", fallback_threshold=1.0, alpha=3.0)[0] != plain()


def test_proxy_tuning_adds_what_two_small_models_say_of_the_whole_text() -> None:
    """The difference after the last slot is that of both models over the prompt and the draft, computed at once."""
    decoder = World().method("fs-gen-proxy", assistant=True, fallback_threshold=0.2)
    seq = Sequence(list(PROMPTS[0]), decoder.world.caches)
    for (draft, accepted), _ in zip(decoder.steps(seq), range(12), strict=False):
        last = draft.tree.slots - 1
        text = seq.tokens[: len(seq.tokens) - len(accepted.slots)] + list(draft.tokens)[1:]
        world = World()
        rows = []
        for model in ("assistant", "untuned"):
            engine = world.engine(replace(prefill(model), last_row=True))
            outputs, row = finish(extending(engine, world.caches[model], text))
            assert outputs.logits_NV is not None
            rows.append(outputs.logits_NV[row].copy())
        assert np.allclose(draft.logits[last], rows[0] - rows[1], atol=1e-5)


@pytest.mark.parametrize("m", [FS_GEN, FS_GEN_CONTRASTIVE, FS_GEN_PROXY], ids=lambda m: m.name)
def test_they_are_lossy_and_no_defaults(m: Any) -> None:
    assert not m.lossless and not m.by_default and "lossy" in m.title and METHODS[m.name] is m


def test_a_value_out_of_range_is_refused() -> None:
    for m, values, message in (
        (FS_GEN, {"fallback_threshold": 2}, "fallback_threshold is 2; give a number from 0 to 1"),
        (FS_GEN_CONTRASTIVE, {"beta": -1}, "beta of acceptance guided is -1; give 0 to 10"),
        (FS_GEN_PROXY, {"alpha": 11}, "alpha of acceptance proxy is 11; give 0 to 10"),
    ):
        with pytest.raises(RecipeError, match=message):
            m.plan(m.settle(values), Facts(8, 500, True))
