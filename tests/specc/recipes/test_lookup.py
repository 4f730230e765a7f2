"""Methods that copy drafts from the text."""

from __future__ import annotations

import pytest

from specc.recipes.entry import Facts, Method
from specc.recipes.lookup import AGGRESSIVE_DECODING, COPYSPEC, PROMPT_LOOKUP, RECYCLED_LOOKUP


@pytest.mark.parametrize("m", [PROMPT_LOOKUP, RECYCLED_LOOKUP, COPYSPEC], ids=lambda m: m.name)
def test_a_lookup_needs_no_engine_and_verifies_as_much_as_it_copies(m: Method) -> None:
    values = m.settle({"prompt_lookup_num_tokens": 7})
    blocks = m.plan(values, Facts(8, 500))
    assert [block.slots for block in blocks.verify] == [1, 4, 6, 8]
    assert not blocks.engines and blocks.arguments == values


def test_a_copy_of_the_input_is_verified_by_chains_up_to_its_length() -> None:
    values = AGGRESSIVE_DECODING.settle({"num_speculative_tokens": 9})
    blocks = AGGRESSIVE_DECODING.plan(values, Facts(8, 500))
    assert [block.slots for block in blocks.verify] == [1, 4, 6, 10]
    assert not blocks.engines and blocks.arguments == values
