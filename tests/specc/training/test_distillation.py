"""The loss is the cross entropy with the model's probabilities."""

from __future__ import annotations

import pytest
import torch
from small_head import tables, teacher
from torch.nn import functional

from specc.training.distillation import Distillation

pytestmark = pytest.mark.torch


def test_the_loss_is_the_cross_entropy_and_least_at_the_models_own_logits() -> None:
    model, other = torch.randn(6, 9), torch.randn(6, 9)
    loss = Distillation.loss(other, model)
    torch.testing.assert_close(loss, functional.cross_entropy(other, model.softmax(-1)))
    assert Distillation.loss(model, model) < loss


def test_only_the_tokens_that_the_head_knows_share_the_probability() -> None:
    vocabulary, final = torch.tensor([3, 1, 8]), torch.randn(4, tables().shape[1])
    logits = Distillation(teacher(), vocabulary).logits(final)
    torch.testing.assert_close(logits, (final @ tables().T)[:, vocabulary])
