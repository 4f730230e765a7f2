"""What is compiled, checked before torch is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from specc.recipes import METHODS
from specc.recipes.choice import check_ranges, choose, plan, values_of
from specc.recipes.entry import Facts, HeadFacts
from specc.runtime.errors import RecipeError

BOTH = {"assistant-model"}


def test_the_usual_methods_are_in_range_for_any_model() -> None:
    check_ranges(list(METHODS.values()), {})


@pytest.mark.parametrize(
    ("recipe", "values", "message"),
    [
        ("jacobi", {"num_speculative_tokens": 0}, "num_speculative_tokens is 0; give a whole number from 1 to 127"),
        ("draft-model", {"rejection_threshold": -1}, "rejection_threshold is -1; give a number from 0 to 1"),
        (
            "bild",
            {"rollback_threshold": 1e9},
            "rollback_threshold of acceptance distance is 1000000000.0; give 0 to 100",
        ),
        ("early-exit", {"assistant_early_exit": 0}, "assistant_early_exit is 0; give a number of layers from 1 to"),
        ("early-exit", {"tree": [(1,)]}, r"path \[1\] needs path \[0\]"),
        ("fastcot", {"confidence_threshold": 2}, "confidence_threshold is 2; give a number from 0 to 1"),
        ("fastcot", {"answer_tokens": [-1]}, r"answer_tokens is \[-1\]; give token ids from 0 to"),
        (
            "fastcot",
            {"reasoning_steps": 1, "answer_tokens": [1] * 127},
            "answer_tokens has 127 tokens; give at most 122 beside the guesses",
        ),
    ],
)
def test_a_value_that_fits_no_model_is_refused(recipe: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_ranges(choose([recipe], {recipe: values}, BOTH), {recipe: values})


def test_a_value_out_of_range_is_refused_with_the_name_of_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("base = 'jacobi'\n[parameters]\nnum_speculative_tokens = 4", encoding="utf-8")
    methods = choose(["lookahead", "jacobi", str(tmp_path / "mine.toml")], {}, set())
    check_ranges(methods, {})
    with pytest.raises(RecipeError, match=r"^recipe mine: num_speculative_tokens is 0; give a whole number from 1"):
        check_ranges(methods, {"mine": {"num_speculative_tokens": 0}})
    with pytest.raises(RecipeError, match=r"^recipe early-exit: tree: not a tree: path \[1\] needs path \[0\]"):
        check_ranges(choose(["early-exit"], {}, set()), {"early-exit": {"tree": [(1,)]}})


def test_what_depends_on_the_model_waits_for_it() -> None:
    check_ranges(choose(["early-exit"], {}, set()), {"early-exit": {"assistant_early_exit": 31}})


def test_a_value_for_one_recipe_wins_over_a_value_for_all() -> None:
    parameters: dict[str, dict[str, Any]] = {"": {"num_speculative_tokens": 2}, "jacobi": {"num_speculative_tokens": 7}}
    assert values_of(METHODS["jacobi"], parameters) == {"num_speculative_tokens": 7}
    assert values_of(METHODS["layer-skip"], parameters)["num_speculative_tokens"] == 2


def test_a_recipe_lacks_what_the_compile_does_not_have() -> None:
    with pytest.raises(RecipeError, match="recipe bild needs a draft model; name one with --assistant-model"):
        choose(["bild"], {}, set())
    assert [m.name for m in choose(["bild"], {}, BOTH)] == ["plain", "bild"]


def test_two_recipe_files_of_one_name_are_refused_and_one_file_twice_is_one_recipe(tmp_path: Path) -> None:
    files = [tmp_path / folder / "mine.toml" for folder in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        file.write_text("base = 'jacobi'", encoding="utf-8")
    first, second = map(str, files)
    assert [m.name for m in choose([first, first], {}, set())] == ["plain", "mine"]
    with pytest.raises(RecipeError, match="two recipe files give the name 'mine'; write name = '…' into one of them"):
        choose([first, second], {}, set())


@pytest.mark.parametrize(
    ("recipe", "values"),
    [
        ("medusa", {"tree": [(0,), (0, 0), (0, 0, 0)]}),
        ("amphista", {"tree": [(0,), (0, 0)]}),
        ("blockwise", {"num_speculative_tokens": 5}),
        ("ppd", {"rates": [[0.4], [0.2], [0.1]]}),
    ],
)
def test_what_a_head_that_is_not_read_yet_may_guess_is_not_refused(recipe: str, values: dict[str, Any]) -> None:
    check_ranges([METHODS[recipe]], {recipe: values})
    with pytest.raises(RecipeError, match="num_speculative_tokens is 0; give a whole number from 1"):
        check_ranges([METHODS[recipe]], {recipe: {"num_speculative_tokens": 0}})


def test_a_head_of_too_many_guesses_is_named_as_what_to_change() -> None:
    """Fewer tokens a draft do not help there."""
    m, facts = METHODS["dflash"], Facts(layers=8, vocab_size=500, heads={"dflash": HeadFacts(guesses=126)})
    with pytest.raises(RecipeError, match=r"needs 129 slots; 128 .*, or a head that guesses fewer than 126$"):
        plan(m, values_of(m, {"dflash": {"num_speculative_tokens": 1}}), facts)
