"""What an entry of the table does with parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from specc.recipes import METHODS
from specc.recipes.entry import NAMED_LAYERS, Facts, Method, MethodBlocks, Parameter
from specc.runtime.errors import RecipeError


def no_blocks(values: Mapping[str, Any], facts: Facts) -> MethodBlocks:
    return MethodBlocks(())


ENTRY = Method(
    name="entry",
    title="An entry",
    drafter="plain",
    topology="none",
    plan=no_blocks,
    parameters={"count": Parameter(3, "a count"), "tree": Parameter(None, "a tree")},
)


def test_values_are_completed_by_the_defaults_in_the_order_of_the_parameters() -> None:
    assert list(ENTRY.settle({"tree": [(0,)]}).items()) == [("count", 3), ("tree", [(0,)])]
    assert ENTRY.settle({"count": None}) == {"count": None, "tree": None}


def test_an_unknown_parameter_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="recipe entry has no parameter 'cuont'; did you mean 'count'"):
        ENTRY.settle({"cuont": 1})


def test_an_entry_is_written_with_keywords() -> None:
    arguments: Any = ("name", "title", "paper", "plain", "none", no_blocks)
    with pytest.raises(TypeError, match="positional"):
        Method(*arguments)  # type: ignore[call-arg]


@pytest.mark.parametrize("m", [m for m in METHODS.values() if m.search], ids=lambda m: m.name)
def test_layers_are_searched_for_unless_the_user_names_some_by_any_parameter(m: Method) -> None:
    """Each parameter of a method with a search that names layers is one of those names; without a search none is."""
    assert m.searches(m.settle({}))
    names = [name for name in m.parameters if name.startswith("skip_")]
    assert names and set(names) <= set(NAMED_LAYERS)
    assert not any(m.searches(m.settle({name: [1]})) for name in names)
    assert not ENTRY.searches(ENTRY.settle({}))
