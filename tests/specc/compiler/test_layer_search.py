"""Which sublayers a draft does without."""

from __future__ import annotations

import pytest
from graphs import prepared, tokens

from specc import passes
from specc.compiler import layer_search
from specc.compiler.layer_search import Sublayer, skip_if_faster, skip_sets, skip_some
from specc.passes.exit_after import ExitAfter

pytestmark = pytest.mark.torch

TOKENS = tokens()[0].tolist()
UNNAMED = {"skip_layers": None, "skip_attention": None, "skip_mlp": None}
NAMES = ["skip_attention", "skip_mlp"]


def test_the_first_and_the_last_layer_stay() -> None:
    matches = skip_some(prepared("llama"), TOKENS, {**UNNAMED, "num_speculative_tokens": 3})
    assert [*matches] == NAMES and {i for skipped in matches.values() for i in skipped} == {1}


def test_a_model_of_two_layers_has_nothing_else_to_skip() -> None:
    graph = prepared("llama")
    passes.run([ExitAfter(2)], graph)
    matches = skip_some(graph, TOKENS, {**UNNAMED, "num_speculative_tokens": 3})
    assert sum(map(len, matches.values())) in (1, 2) and {i for skipped in matches.values() for i in skipped} <= {0, 1}


@pytest.mark.parametrize(
    ("rates", "none_is_faster", "skipped"),
    [
        ({0.1: 0.0, 0.2: 0.0, 0.3: 0.9, 0.4: 0.0, 0.5: 0.0, 0.6: 0.0}, False, 1),  # 0.3 of six sublayers
        ({0.1: 0.9, 0.2: 0.9, 0.3: 0.9, 0.4: 0.9, 0.5: 0.9, 0.6: 0.9}, False, 3),  # as many as may be
        ({0.1: 0.5, 0.2: 0.1, 0.3: 0.1, 0.4: 0.1, 0.5: 0.1, 0.6: 0.1}, True, 1),  # one, or none where that may be
    ],
)
def test_as_many_as_make_chains_fastest(
    rates: dict[float, float], none_is_faster: bool, skipped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By how often the draft then agrees; the least missed go first."""
    ranked: list[Sublayer] = [("mlp", 1), ("attention", 2), ("mlp", 2), ("attention", 1)]
    monkeypatch.setattr(layer_search, "_ranked", lambda graph, tokens, advance: (ranked, {0.0: 1.0, **rates}))
    values = {**UNNAMED, "num_speculative_tokens": 3}
    matches = skip_some(prepared("llama"), TOKENS, values)
    assert {(name.removeprefix("skip_"), i) for name in NAMES for i in matches[name]} == set(ranked[:skipped])
    better = skip_if_faster(prepared("llama"), TOKENS, values)
    assert better == ({name: [] for name in NAMES} if none_is_faster else matches)


def test_sets_are_distinct_of_one_size_and_begin_with_the_one_of_the_whole_text() -> None:
    values = {**UNNAMED, "num_speculative_tokens": 3, "skip_sets": None, "candidates": 3}
    sets = skip_sets(prepared("llama"), TOKENS, values)["skip_sets"]
    first = skip_some(prepared("llama"), TOKENS, values)
    assert sets[0] == [first["skip_attention"], first["skip_mlp"]]
    assert 1 <= len(sets) <= 3 and len({sum(map(len, pair)) for pair in sets}) == 1
    assert all(sets.count(pair) == 1 for pair in sets)
