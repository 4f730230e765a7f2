"""The words of the axes for users: each has its meaning, and what it goes with is what a recipe file may choose."""

from __future__ import annotations

import pytest

from specc.recipes import METHODS
from specc.recipes.axes import LENGTHS, RULES, SCHEDULES, TOPOLOGIES, drafters
from specc.recipes.axis_words import axis_words

AXES = axis_words(METHODS)


def test_every_word_of_every_axis_is_there_with_its_meaning() -> None:
    names = [tuple(words) for words in (drafters(METHODS), TOPOLOGIES, LENGTHS, RULES, SCHEDULES)]
    for axis, words in zip(AXES.values(), names, strict=True):
        assert tuple(word.name for word in axis) == words
        for word in axis:
            assert len(word.help) > 5 and not word.help.endswith(".") and "\n" not in word.help
            assert any(word.goes_with.values())


@pytest.mark.parametrize("axis", ["topologies", "lengths", "acceptance rules"])
def test_a_word_goes_with_a_drafter_if_the_drafter_goes_with_the_word(axis: str) -> None:
    kind = "rules" if axis == "acceptance rules" else axis
    of_words = {(drafter, word.name) for word in AXES[axis] for drafter in word.goes_with["drafters"]}
    of_drafters = {(drafter.name, name) for drafter in AXES["drafters"] for name in drafter.goes_with[kind]}
    assert of_words == of_drafters and of_words


def test_what_a_drafter_goes_with_is_what_its_recipes_have_and_no_more() -> None:
    words = {word.name: word.goes_with for word in AXES["drafters"]}
    assert words["prompt-lookup"] == {
        "topologies": ("chain",),
        "lengths": ("match",),
        "rules": ("distance", "match", "top_beta", "typical"),
        "recipes": ("prompt-lookup",),
    }
    assert words["medusa"]["topologies"] == ("static tree", "chain")
    assert {"cumulative", "bass"} <= set(words["layer-skip"]["lengths"]) and "judge" in words["draft-model"]["rules"]
    assert "kseq" in words["static-tree"]["rules"] and "kseq" not in words["heap-tree"]["rules"]
