"""The start of a tandem's small model, and the layers that it reads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_head import LAYER, LAYERS, SIZE, VOCABULARY, head, recordings, teacher
from transformers import LlamaConfig, LlamaForCausalLM

from specc.heads.tandem import Tandem
from specc.training.acceptance import ranks
from specc.training.courses import COURSES
from specc.training.tandem import COURSE

pytestmark = pytest.mark.torch


def model(layers: int = LAYERS) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=SIZE,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=int(LAYER["heads"]),
        num_key_value_heads=int(LAYER["key_heads"]),
    )
    large: LlamaForCausalLM = LlamaForCausalLM(config)
    large.train(False)
    return large


@pytest.mark.parametrize("layers", [1, LAYERS])
def test_the_start_already_drafts_well_whether_a_layer_stands_behind_a_tap_or_not(layers: int) -> None:
    """The toy's next state is a linear function of the token, so the start alone finds it at every depth."""
    course, module, texts = COURSES["tandem"], head("tandem"), recordings(40, "tandem")
    assert course.from_model is not None
    course = course.from_model(course, model(layers))
    course.start(module, teacher(), texts)
    for text in ranks(module, course, recordings(4, "tandem", seed=9), 3):
        assert (text[:, :-3] == 0).mean() > 0.95


def test_a_random_head_does_not_draft_well() -> None:
    """The control of the test above."""
    texts = recordings(4, "tandem", seed=9)
    assert max((text[0] == 0).mean() for text in ranks(head("tandem"), COURSE, texts, 3)) < 0.6


def test_keys_and_values_start_as_those_of_the_layer_behind_the_tap() -> None:
    large, module = model(), head("tandem")
    assert COURSE.from_model is not None and isinstance(module, Tandem)
    course = COURSE.from_model(replace(COURSE), large)
    large.model.layers[1].self_attn.k_proj.weight.data.neg_()  # The model may change, or go, once it was bound.
    course.start(module, teacher(), recordings(4, "tandem"))
    first, other = module.decoder_layers()
    source = large.model.layers[1].self_attn
    assert torch.equal(first.get_parameter("key.weight"), -source.k_proj.weight)
    assert torch.equal(first.get_parameter("value.weight"), source.v_proj.weight)
    assert not torch.equal(other.get_parameter("value.weight"), source.v_proj.weight)


@pytest.mark.parametrize(("layers", "taps"), [(30, (6, 14)), (12, (2, 5)), (3, (0,)), (1, (0,))])
def test_taps_lie_behind_a_quarter_and_a_half_of_the_model(layers: int, taps: tuple[int, ...]) -> None:
    assert COURSE.taps(layers) == taps
