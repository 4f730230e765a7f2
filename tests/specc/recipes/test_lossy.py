"""Lossy recipes: at one setting each falls back to plain decoding, and elsewhere it differs."""

from __future__ import annotations

from typing import Any

import pytest
from toys import World, prompts

from specc.exactness.divergence import compare_texts
from specc.recipes import METHODS

PROMPTS = prompts(3, seed=3)
# For each lossy recipe the values at which its answers are those of plain decoding, and values far from them.
EXACT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bild": ({"rollback_threshold": 0}, {"rollback_threshold": 50, "fallback_threshold": 0}),
    "entropy-adaptive": ({"entropy_threshold": 0}, {"entropy_threshold": 100}),
    "fs-gen": ({"fallback_threshold": 1}, {"fallback_threshold": 0}),
    "fs-gen-contrastive": ({"fallback_threshold": 1, "alpha": 0, "beta": 1}, {"fallback_threshold": 0.5, "beta": 5}),
    "fs-gen-proxy": ({"fallback_threshold": 1, "alpha": 0}, {"fallback_threshold": 0.5, "alpha": 5}),
    "specdec": ({"beta": 1}, {"beta": 20, "gap": 50}),
    "rapid": ({"eta": 0}, {"eta": 50, "context_tokens": 8}),
    "fastcot": ({"confidence_threshold": 1}, {"confidence_threshold": 0}),
    "judge-decoding": ({"threshold": 1}, {"threshold": 0}),
    "lexical-units-unverified": ({"confidence_threshold": 1}, {"confidence_threshold": 0}),
    "quantspec-int8": ({"row_bits": 0}, {"row_bits": 8, "group_rows": 8}),
    "contrastive": ({"alpha": 0, "beta": 0}, {"alpha": 0, "beta": 3}),
}


def test_every_lossy_recipe_says_where_it_is_exact() -> None:
    assert EXACT.keys() == {name for name, m in METHODS.items() if not m.lossless}
    for name, values in EXACT.items():
        assert not METHODS[name].by_default and all(v.keys() <= METHODS[name].parameters.keys() for v in values)


def changed(name: str, values: dict[str, Any]) -> float:
    """Return the mean share of tokens that are not those of plain decoding."""
    decoder, plain = World().method(name, "assistant-model" in METHODS[name].needs, **values), World().method("plain")
    shares = [compare_texts(decoder.run(p, 50)[0], plain.run(p, 50)[0]).changed for p in PROMPTS]
    return sum(shares) / len(shares)


@pytest.mark.parametrize("name", EXACT)
def test_a_lossy_recipe_falls_back_to_plain_decoding_at_one_setting(name: str) -> None:
    exact, far = EXACT[name]
    assert changed(name, exact) == 0 < changed(name, far)
