"""Slots behind each token of a text: what training runs is what an engine runs."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import pytest
import torch
from tiny_heads import batch, bound, model, random_head, teacher
from torch import Tensor

from specc.heads.guess_slots import SlotHead, StartingPlace
from specc.runtime.errors import HeadError
from specc.training.courses import COURSES
from specc.training.guess_slots import in_model
from specc.training.shards import Recording
from specc.training.states import layers_of

pytestmark = pytest.mark.torch
IN_MODEL = {name: course for name, course in COURSES.items() if course.in_model is in_model}
TOKENS = torch.randint(1, 100, (2, 9), generator=torch.Generator().manual_seed(2))
WHOLE = pytest.mark.parametrize("name", IN_MODEL)


def slot_head(name: str) -> SlotHead:
    head = random_head(IN_MODEL[name])
    assert isinstance(head, SlotHead)
    return head


@torch.no_grad()
def alone(head: SlotHead, tokens: Tensor, count: int) -> Tensor:
    """Return the logits of the last of some guesses behind a text [1, N], by one run of transformers."""
    end, layers = tokens.shape[1], layers_of(model())
    ids = torch.cat([tokens, torch.zeros(1, count, dtype=torch.long)], 1)

    def begin(place: StartingPlace, states: Tensor) -> Tensor:
        starts = head.starts_of(states[:, :end], place.first, place.count)[0, -1]
        changed = states.clone()
        for number in range(place.first, min(count, place.first + place.count)):
            changed[0, end + number] = starts[number - place.first]
        return changed

    with ExitStack() as hooks:
        for place in head.starting_places:
            change = partial(begin, place)
            if place.after is None:
                hook = layers[0].register_forward_pre_hook(lambda _, args, change=change: (change(args[0]), *args[1:]))
            else:
                hook = layers[place.after].register_forward_hook(lambda _, args, out, change=change: change(out))
            hooks.callback(hook.remove)
        logits: Tensor = model()(input_ids=ids).logits[0, -1]
        return logits


@WHOLE
def test_depth_k_in_row_i_is_guess_k_behind_token_i_minus_k(name: str) -> None:
    course, head = bound(IN_MODEL[name]), slot_head(name)
    unrolled = course.unroll(head, batch(TOKENS), course.steps)
    assert len(unrolled) == course.steps
    for depth, rows in enumerate(unrolled):
        for row in range(depth, TOKENS.shape[1] - 1):
            ours = course.product(head, depth, rows[1, row])
            theirs = alone(head, TOKENS[1:, : row - depth + 1], depth + 1)
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@WHOLE
def test_the_heads_weights_are_trained_and_the_models_are_not(name: str) -> None:
    course, head = bound(IN_MODEL[name]), slot_head(name)
    torch.autograd.backward(
        torch.stack([rows.sum() for rows in course.unroll(head, batch(TOKENS), course.steps)]).sum()
    )
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in head.parameters())
    assert all(parameter.grad is None for parameter in model().parameters())


@WHOLE
def test_a_fresh_head_begins_with_states_of_the_usual_size(name: str) -> None:
    course, head = bound(IN_MODEL[name]), slot_head(name)
    final = torch.zeros(9, 64)
    course.start(head, teacher(), [Recording(tokens=TOKENS[0], stored_states=final, stored_final=final, prompt=1)])
    states: list[Tensor] = []
    layers = layers_of(model())
    after = head.after
    hook = layers[0 if after is None else after + 1].register_forward_pre_hook(lambda _, args: states.append(args[0]))
    with torch.no_grad():
        model()(input_ids=TOKENS)
    hook.remove()
    usual, ours = states[0].norm(dim=-1).mean(), head.starts(states[0]).detach().norm(dim=-1).mean()
    assert 0.1 < float(ours / usual) < 2


@WHOLE
def test_without_its_model_a_head_cannot_run(name: str) -> None:
    with pytest.raises(HeadError, match="this head runs in the model's own slots; bind its course to a model"):
        IN_MODEL[name].unroll(slot_head(name), batch(TOKENS), 1)
