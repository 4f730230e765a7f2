"""M2R2's training: what it runs is what a draft runs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_heads import batch, bound, model, random_head
from torch import Tensor, nn

from specc.heads.m2r2 import M2R2
from specc.runtime.errors import HeadError
from specc.training.batches import Batch
from specc.training.course import Course
from specc.training.m2r2 import COURSE, deeper, gate_loss, taps_of
from specc.training.states import layers_of

pytestmark = pytest.mark.torch
TOKENS = torch.randint(1, 100, (2, 8), generator=torch.Generator().manual_seed(2))


@cache
def course() -> Course:
    return bound(COURSE)


@cache
def head() -> M2R2:
    built = random_head(COURSE, taps=(0, 1))
    assert isinstance(built, M2R2)
    return built


def batch_with_states() -> Batch:
    """Return a text with what the model's last product reads of it."""
    with torch.no_grad():
        final: Any = model().base_model
        return replace(batch(TOKENS), final=final(input_ids=TOKENS).last_hidden_state)


def test_each_depth_is_what_the_models_norm_and_product_say_of_the_second_stream() -> None:
    states: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: Tensor) -> None:
        states.append(output)

    def leave(module: nn.Module, args: object, output: Tensor) -> Tensor:
        return head().bridge(torch.cat(states, -1))

    layers = layers_of(model())
    hooks = [layers[0].register_forward_hook(keep), layers[1].register_forward_hook(keep)]
    hooks.append(layers[2].register_forward_hook(leave))
    truth = model()(input_ids=TOKENS).logits[:, 1:].detach()
    for hook in hooks:
        hook.remove()
    for depth, rows in enumerate(course().unroll(head(), batch(TOKENS), 2)):
        torch.testing.assert_close(course().product(head(), depth, rows.detach()), truth, atol=1e-4, rtol=1e-4)


def test_the_adapters_are_trained_to_come_near_deeper_states_and_the_model_is_not() -> None:
    text = batch_with_states()
    features = course().unroll(head(), text, 1)
    assert course().besides is not None
    course().besides(head(), text, features).backward()  # type: ignore[misc]  # it was checked one line above
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in head().parameters())
    assert all(parameter.grad is None for parameter in model().parameters())


def test_the_gate_learns_where_the_first_choice_of_the_exit_is_the_models() -> None:
    """A gate that says so of each row has no loss, and one that says the opposite has much."""
    text = batch_with_states()
    rows = course().unroll(head(), text, 1)[0].detach()
    ours, models = (course().product(head(), 0, x).argmax(-1) for x in (rows, text.final[:, 1:].float()))
    rows = torch.where(torch.arange(rows.shape[1])[:, None] % 2 == 0, text.final[:, 1:].float(), rows)
    right = torch.where(torch.arange(rows.shape[1]) % 2 == 0, models, ours) == models
    assert right.any() and not right.all()
    gates = 20.0 * (2.0 * right.float() - 1.0)[..., None]
    assert float(gate_loss(head(), text, rows, gates)) < 1e-6
    assert float(gate_loss(head(), text, rows, -gates)) > 10


def test_the_slopes_of_the_gate_stay_in_the_gate() -> None:
    text = batch_with_states()
    head().zero_grad()
    run = course()
    run.unroll(head(), text, 1)
    owner: Any = run.unroll
    owner.__self__.gates.sum().backward()
    with_slopes = {name.split(".")[0] for name, p in head().named_parameters() if p.grad is not None and p.grad.any()}
    assert with_slopes == {"latents", "query", "score"}


@pytest.mark.parametrize(("layers", "taps"), [(2, 1), (3, 1), (12, 3), (30, 7)])
def test_a_quarter_of_the_layers_draft_and_the_last_one_comes_near_the_end(layers: int, taps: int) -> None:
    first = taps_of(layers)
    assert first == tuple(range(taps))
    stub = SimpleNamespace(taps=first, config=SimpleNamespace(target=SimpleNamespace(layers=layers)))
    rate = layers // taps
    assert deeper(stub) == tuple(range(rate - 1, rate * taps, rate))  # type: ignore[arg-type]


def test_a_model_of_one_layer_is_refused() -> None:
    with pytest.raises(HeadError, match="the model has 1 layer, and M2R2 leaves some out"):
        taps_of(1)
