"""S3D's training: what it runs is what a draft runs."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import pytest
import torch
from tiny_heads import batch, bound, model, random_head
from torch import Tensor
from transformers import DynamicCache

from specc.heads.s3d import S3D
from specc.runtime.errors import HeadError
from specc.training.course import Course
from specc.training.s3d import COURSE, settings
from specc.training.states import layers_of

pytestmark = pytest.mark.torch
TOKENS = torch.randint(1, 100, (2, 8), generator=torch.Generator().manual_seed(2))


@cache
def course() -> Course:
    return bound(COURSE)


@cache
def head() -> S3D:
    built = random_head(COURSE)
    assert isinstance(built, S3D)
    return built


@torch.no_grad()
def alone(tokens: Tensor, masks: int) -> Tensor:
    """Return the logits of the last of some masks behind a text [1, N], whose last token is pending."""
    cache, layers = DynamicCache(), layers_of(model())
    model()(input_ids=tokens[:, :-1], past_key_values=cache, use_cache=True)
    states: list[Tensor] = []

    def enter(module: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return torch.cat([args[0][:, :1], head().table.expand(1, masks, -1)], 1), *args[1:]

    (before,), last = head().bridge_taps, head().skipped[-1]
    hooks = [
        layers[0].register_forward_pre_hook(enter),
        layers[before].register_forward_hook(lambda module, args, output: states.append(head().bridge(output))),
        layers[last].register_forward_hook(lambda module, args, output: states[0]),
    ]
    try:
        ids = torch.cat([tokens[:, -1:], torch.zeros(1, masks, dtype=torch.long)], 1)
        logits: Tensor = model()(input_ids=ids, past_key_values=cache, use_cache=True).logits[0, -1]
        return logits
    finally:
        for hook in hooks:
            hook.remove()


def test_depth_k_in_row_i_is_slot_k_of_a_draft_whose_pending_token_is_i_plus_1_minus_k() -> None:
    unrolled = course().unroll(head(), batch(TOKENS), COURSE.steps)
    assert len(unrolled) == COURSE.steps == 1 + head().count
    for depth, rows in enumerate(unrolled):
        for row in range(depth, TOKENS.shape[1] - 1):
            ours = course().product(head(), depth, rows[1, row].detach())
            theirs = alone(TOKENS[1:, : row - depth + 2], depth)
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_heads_weights_are_trained_and_the_models_are_not() -> None:
    torch.stack([rows.sum() for rows in course().unroll(head(), batch(TOKENS), COURSE.steps)]).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in head().parameters())
    assert all(parameter.grad is None for parameter in model().parameters())


@pytest.mark.parametrize(("layers", "first", "skipped"), [(2, 1, 1), (3, 1, 1), (12, 3, 6), (30, 7, 15)])
def test_half_of_the_layers_are_left_out_in_the_middle(layers: int, first: int, skipped: int) -> None:
    numbers = settings(SimpleNamespace(num_hidden_layers=layers, hidden_size=64))
    assert (numbers["first_skipped"], numbers["skipped"]) == (first, skipped)


def test_a_model_of_one_layer_is_refused() -> None:
    with pytest.raises(HeadError, match="the model has 1 layer, and S3D leaves some out"):
        settings(SimpleNamespace(num_hidden_layers=1, hidden_size=64))
