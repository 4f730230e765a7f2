"""The training of the adapter behind an early exit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_head import LAYER, SIZE, VOCABULARY, config, recordings, tables, teacher

from specc.heads import build_head
from specc.heads.head import rms_norm
from specc.heads.kangaroo import Kangaroo
from specc.training.acceptance import measure
from specc.training.batches import collate
from specc.training.distillation import Distillation
from specc.training.kangaroo import COURSE, start
from specc.training.trainer import Trainer, TrainerOptions

pytestmark = pytest.mark.torch
CHOICE = replace(config("medusa", VOCABULARY), architecture="kangaroo", taps=(1,), settings=LAYER | {"mlp_size": 0})


def adapter() -> Kangaroo:
    torch.manual_seed(0)
    module = build_head(CHOICE)
    assert isinstance(module, Kangaroo)
    module.attach(tables())
    return module


def test_the_tap_is_the_last_layer_before_the_exit() -> None:
    assert [COURSE.taps(layers) for layers in (2, 3, 12, 30)] == [(0,), (1,), (1,), (1,)]


@torch.no_grad()
def test_each_slot_reads_the_state_of_its_own_token_and_every_depth_is_the_first() -> None:
    """Drafts stand on states of the model's first layers, whatever their depth."""
    module = adapter()
    batch = collate(recordings(2, "medusa"))
    first, second, third = COURSE.unroll(module, batch, 3)
    assert first.shape == (2, batch.slots, SIZE)
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first, third)
    other = replace(batch, states=batch.states.clone())
    other.states[:, 5] += 1
    changed = (COURSE.unroll(module, other, 1)[0] - first).abs().sum(-1)[0] > 0
    assert changed.tolist() == [slot >= 4 for slot in range(batch.slots)]  # Slot 4 has token 5.


def test_it_starts_as_the_exit_itself_and_learns_to_foretell_tokens(tmp_path: Path) -> None:
    texts, held_out = recordings(60, "medusa"), recordings(10, "medusa", seed=1)
    # The state says the token itself, as after few layers, so the adapter has all to learn.
    for text in (*texts, *held_out):
        text.states.copy_(tables()[text.tokens].bfloat16())
    module = adapter()
    start(module, teacher(), texts)
    batch = collate(texts[:2])
    with torch.no_grad():
        normed = rms_norm(batch.states[:, 1:].float(), None, module.eps)
        torch.testing.assert_close(COURSE.unroll(module, batch, 1)[0], normed)
    before = measure(module, COURSE, held_out, 3).chain
    options = TrainerOptions(updates=150, learning_rate=1e-2, tokens=600, warm_up=5)
    loss = Distillation(teacher(), module.vocabulary)
    Trainer(module, COURSE, loss, options, tmp_path / "c.safetensors", {}).run(texts, {"given": held_out})
    assert before < 1.3 < 2.2 < measure(module, COURSE, held_out, 3).chain
