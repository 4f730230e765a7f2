"""The rows of a model in training are those that a draft of each depth sees."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_head import LAYER, LAYERS, SIZE, VOCABULARY, head, recordings, tables, teacher
from transformers import LlamaConfig, LlamaForCausalLM

from specc.heads.glide import Glide
from specc.training.batches import collate
from specc.training.courses import COURSES
from specc.training.glide import model_rows

pytestmark = pytest.mark.torch
STEPS = 3


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=SIZE,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=int(LAYER["heads"]),
        num_key_value_heads=int(LAYER["key_heads"]),
    )
    model: LlamaForCausalLM = LlamaForCausalLM(config).eval()
    return model


@torch.no_grad()
def test_each_depth_sees_the_rows_that_the_model_has_when_it_is_drafted(model: LlamaForCausalLM) -> None:
    course = COURSES["glide"]
    assert course.in_model is not None
    course, module, batch = course.in_model(course, model), head("glide", VOCABULARY), collate(recordings(2, length=9))
    assert isinstance(module, Glide)
    unrolled = [course.product(module, k, rows) for k, rows in enumerate(course.unroll(module, batch, STEPS))]
    keys, values = model_rows(model, batch.tokens, module.read_layer)
    for pending in range(1, batch.slots - STEPS):
        tokens = batch.tokens[:, : pending + STEPS]
        logits = module.draft(tokens, torch.arange(pending + STEPS)[None], torch.tensor([pending]), keys, values)
        for depth in range(STEPS):  # Row i of a depth is token i + 1.
            row, whole = unrolled[depth][:, pending - 1 + depth], logits[:, pending + depth]
            torch.testing.assert_close(row, whole, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_it_starts_at_the_best_guess_from_the_last_token(model: LlamaForCausalLM) -> None:
    """In the toy text the next token follows from the last one."""
    course, module, texts = COURSES["glide"], head("glide", VOCABULARY), recordings(40)
    assert course.in_model is not None
    course = course.in_model(course, model)
    course.start(module, replace(teacher(), product=tables()), texts)
    assert isinstance(module, Glide)
    module.layer.rows_output.weight.zero_()  # What the rows say comes on top.
    batch = collate(texts[:4])
    (stream,) = course.unroll(module, batch, 1)
    best = course.product(module, 0, stream).argmax(-1)[:, :-1]
    right = (best == batch.tokens[:, 2:]) & batch.valid[:, 2:]
    assert right.sum() > 0.8 * batch.valid[:, 2:].sum()
