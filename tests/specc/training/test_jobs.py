"""The table of trainings, and what it says of recipes that are not in it."""

from __future__ import annotations

import pytest

from specc.heads import ARCHITECTURES
from specc.recipes import METHODS, Method
from specc.runtime.errors import HeadError
from specc.training.courses import COURSES
from specc.training.jobs import TRAININGS, training_of

pytestmark = pytest.mark.torch
HEADS = [method for method in METHODS.values() if method.head or method.optional_head]
OTHER_NAMES = {method.name: method for method in HEADS if method.name not in TRAININGS}


@pytest.mark.parametrize("method", HEADS, ids=lambda method: method.name)
def test_every_recipe_that_reads_a_head_names_the_training_of_that_architecture(method: Method) -> None:
    recipe = method.trained_as or method.name
    assert recipe in TRAININGS and f"--recipe {recipe} -o head" in method.training
    architecture = method.head or method.optional_head
    if recipe in COURSES:
        assert COURSES[recipe].architecture == architecture
    reads = getattr(ARCHITECTURES[architecture], "reads", "target")
    assert ("--assistant-model" in method.training) == (reads == "assistant")


def test_a_recipe_without_a_head_has_no_command_that_trains_one() -> None:
    assert METHODS["prompt-lookup"].training == METHODS["pearl"].training == ""


@pytest.mark.parametrize("recipe", sorted(OTHER_NAMES))
def test_a_recipe_whose_head_has_another_name_says_which_training_makes_it(recipe: str) -> None:
    trained_as = OTHER_NAMES[recipe].trained_as
    with pytest.raises(
        HeadError, match=f"^{recipe} takes the head that --recipe {trained_as} trains; give that recipe$"
    ):
        training_of(recipe)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("recursive-depths", "takes the draft model that --recipe relaxed-recursive trains; give that recipe"),
        ("pearl", "takes any draft model; train one with --recipe draft-model"),
        ("prompt-lookup", "takes nothing that is trained; leave the training out"),
        ("eagle9", "there is no recipe 'eagle9' that can be trained; there is a training for eagle3, medusa"),
    ],
)
def test_a_recipe_without_a_training_says_what_it_takes(recipe: str, message: str) -> None:
    assert recipe not in TRAININGS
    with pytest.raises(HeadError, match=message):
        training_of(recipe)


def test_the_names_that_the_messages_are_about_are_there() -> None:
    assert {"eagle3-lookup", "eagle3-tree", "eagle2", "glide-cape", "lexical-units-unverified"} <= set(OTHER_NAMES)
