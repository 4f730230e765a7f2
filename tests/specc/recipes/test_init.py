"""The table of methods."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from specc.recipes import METHODS, Facts, Method, method, prefill, table
from specc.recipes.blocks import DECODE
from specc.runtime.errors import RecipeError
from specc.runtime.method import load_acceptance, load_drafter

FACTS = Facts(layers=8, vocab_size=500, assistant_layers=6)
ENTRIES = pytest.mark.parametrize("m", METHODS.values(), ids=METHODS)


def test_two_methods_of_one_name_are_refused() -> None:
    plain = METHODS["plain"]
    assert table(plain, replace(plain, name="other")).keys() == {"plain", "other"}
    with pytest.raises(ValueError, match="two methods have one name among plain, plain"):
        table(plain, plain)


def test_an_unknown_name_is_refused_with_the_nearest(tmp_path: Path) -> None:
    assert method("early-exit") is METHODS["early-exit"]
    with pytest.raises(RecipeError, match=r"^no recipe 'telepathy'; specc recipes lists them$"):
        method("telepathy")
    with pytest.raises(RecipeError, match=rf"^{tmp_path} is a folder; name a recipe of the table, or a recipe file"):
        method(str(tmp_path))
    with pytest.raises(RecipeError, match="no recipe 'early-exi'; did you mean 'early-exit'"):
        method("early-exi")


@ENTRIES
def test_an_entry_is_found_by_its_name_and_names_files_of_the_runtime(m: Method) -> None:
    assert METHODS[m.name] is m
    assert callable(load_drafter(m.drafter)) and callable(load_acceptance(m.acceptance))
    assert m.title and (m.paper or m.name == "plain")


@ENTRIES
def test_a_parameter_without_default_says_what_is_chosen_instead(m: Method) -> None:
    """Layers to skip are a group: the first of them says it."""
    for name, parameter in m.parameters.items():
        assert parameter.help
        assert parameter.default is not None or "(default: " in parameter.help or name in ("skip_attention", "skip_mlp")


@ENTRIES
def test_the_defaults_plan_a_recipe_that_begins_with_its_narrowest_block(m: Method) -> None:
    blocks = m.plan(m.settle({}), replace(FACTS, assistant="assistant-model" in m.needs, corpus="corpus" in m.needs))
    widths = [block.slots for block in blocks.verify]
    assert widths and widths == sorted(widths)
    assert all("logits" in block.outputs for block in blocks.verify)
    assert all(block.model == "target" for block in blocks.verify)


def test_a_prompt_is_read_64_tokens_at_a_time_by_a_block_with_logits_of_one_row() -> None:
    assert (prefill().slots, prefill().last_row, prefill().cache) == (64, True, "target")
    assert (prefill("assistant").model, prefill("assistant").cache) == ("assistant", "assistant")
    assert DECODE.slots == 1 and not DECODE.last_row
