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


@pytest.mark.parametrize("rows", [5, 70])
def test_the_slopes_are_those_of_autograd(rows: int) -> None:
    model = torch.randn(rows, 9, generator=torch.Generator().manual_seed(1))
    ours = torch.randn(rows, 9, generator=torch.Generator().manual_seed(2)).requires_grad_()
    truth = ours.detach().clone().requires_grad_()
    (3 * Distillation.loss(ours, model)).backward()
    (3 * functional.cross_entropy(truth, model.softmax(-1))).backward()
    torch.testing.assert_close(ours.grad, truth.grad)
