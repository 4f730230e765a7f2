"""Methods that draft chains by the model itself."""

from __future__ import annotations

import pytest

from specc.recipes.entry import Facts, LayerSearch, Method, MethodBlocks
from specc.recipes.self_draft import CASCADE, LAYER_SKIP, QUANTIZED_SELF_DRAFT, QUANTSPEC, QUANTSPEC_INT8, STAGED
from specc.runtime.block import Layers
from specc.runtime.errors import RecipeError

FACTS = Facts(layers=8, vocab_size=500)


def plan(m: Method, **values: object) -> MethodBlocks:
    return m.plan(m.settle(values), FACTS)


def widths(blocks: MethodBlocks) -> list[int]:
    return [block.slots for block in blocks.verify]


def test_a_layer_skipping_draft_leaves_its_layers_out_and_keeps_its_type() -> None:
    blocks = plan(LAYER_SKIP, skip_layers=(3,), skip_mlp=(5,))
    draft = blocks.engines["draft"]
    assert draft.layers == Layers(skip_attention=(3,), skip_mlp=(3, 5)) and draft.weights == "fp32"
    assert (draft.slots, widths(blocks)) == (1, [1, 4])
    assert blocks.arguments == {"num_speculative_tokens": 3, "assistant_confidence_threshold": 0.0}


def test_the_copy_reads_4_bits_and_runs_all_layers_unless_told() -> None:
    draft = plan(QUANTIZED_SELF_DRAFT).engines["draft"]
    assert (draft.weights, draft.layers) == ("int4", Layers())
    skipping = plan(QUANTIZED_SELF_DRAFT, skip_attention=(1,)).engines["draft"]
    assert (skipping.weights, skipping.layers) == ("int4", Layers(skip_attention=(1,)))


def test_a_cascade_verifies_what_both_drafters_may_draft() -> None:
    blocks = plan(CASCADE, num_speculative_tokens=2, prompt_lookup_num_tokens=5)
    assert widths(blocks)[-1] == 1 + 2 + 5
    assert blocks.engines["draft"].weights == "int4"
    assert blocks.arguments.keys() == CASCADE.parameters.keys() - {"skip_layers", "skip_attention", "skip_mlp"}


def test_the_copy_of_a_staged_draft_has_a_call_of_one_slot_and_one_for_its_guesses() -> None:
    blocks = plan(STAGED, prompt_lookup_num_tokens=2, num_speculative_tokens=9)
    assert {role: (block.slots, block.weights) for role, block in blocks.engines.items()} == {
        "draft": (1, "int4"),
        "wide": (3, "int4"),
    }
    assert widths(blocks)[-1] == 10 and blocks.arguments == STAGED.settle(
        {"prompt_lookup_num_tokens": 2, "num_speculative_tokens": 9}
    )


def test_the_model_of_quantspec_reads_both_halves_of_the_rows_of_which_the_draft_reads_one() -> None:
    blocks = plan(QUANTSPEC_INT8, group_rows=32)
    assert {(block.quantized_group, block.quantized_bits) for block in blocks.verify} == {(32, 8)}
    draft = blocks.engines["draft"]
    assert (draft.quantized_group, draft.quantized_bits, draft.weights) == (32, 4, "int4")
    assert widths(blocks) == [1, 12] and blocks.arguments["group_rows"] == 32
    assert plan(QUANTSPEC_INT8, row_bits=0) == plan(QUANTSPEC)
    with pytest.raises(RecipeError, match="row_bits is 6; give 8, or 0 for rows as they are"):
        plan(QUANTSPEC_INT8, row_bits=6)


def test_searches_are_named_where_layers_are_left_open() -> None:
    assert (LAYER_SKIP.search, CASCADE.search) == (LayerSearch.SKIP_SOME, LayerSearch.SKIP_IF_FASTER)
    assert QUANTIZED_SELF_DRAFT.search is STAGED.search is None
