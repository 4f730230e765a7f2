"""The states that are recorded are those of transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from specc.huggingface import load_model
from specc.runtime.errors import HeadError
from specc.training.states import check_taps, layers_of, tapped

pytestmark = pytest.mark.torch
TOKENS = torch.tensor([[5, 9, 3, 8]])


def test_states_are_the_hidden_states_of_the_layers(model: Path) -> None:
    target = load_model(str(model))
    with tapped(target, (0, -1)) as values:
        hidden = target(TOKENS, output_hidden_states=True).hidden_states
    assert torch.equal(values[0], hidden[1]) and torch.equal(values["final"], hidden[-1])


def test_the_last_tap_lies_before_the_final_norm(model: Path) -> None:
    target = load_model(str(model))
    with tapped(target, (-1,)) as values:
        target(TOKENS)
    norm: nn.Module = target.get_submodule("model.norm")
    torch.testing.assert_close(norm(values[-1]), values["final"])


def test_without_taps_nothing_is_collected(model: Path) -> None:
    target = load_model(str(model))
    with tapped(target, ()) as values:
        target(TOKENS)
    assert not values


def test_the_number_of_layers_is_the_state_behind_the_final_norm(model: Path) -> None:
    target = load_model(str(model))
    with tapped(target, (3, 0)) as values:
        target(TOKENS)
    assert torch.equal(values[3], values["final"]) and not torch.equal(values[0], values["final"])


def test_no_hook_stays(model: Path) -> None:
    target = load_model(str(model))
    with tapped(target, (0,)):
        assert any(module._forward_hooks for module in target.modules())
    assert not any(module._forward_hooks for module in target.modules())


@pytest.mark.parametrize("tap", [4, -4])
def test_a_tap_that_names_no_layer_is_refused(tap: int, model: Path) -> None:
    message = rf"the tap {tap} names no layer of 3; give -3..3"
    with pytest.raises(HeadError, match=message):
        check_taps((0, tap), 3)
    with pytest.raises(HeadError, match=message), tapped(load_model(str(model)), (tap,)):
        pass


def test_no_tap_is_refused() -> None:
    with pytest.raises(HeadError, match="there is no tap; name the layers"):
        check_taps((), 3)


def test_a_model_without_a_list_of_layers_is_refused(model: Path) -> None:
    target = load_model(str(model))
    target.config.num_hidden_layers = 5
    with pytest.raises(HeadError, match="has no list of 5 layers; a head cannot be trained for it"):
        layers_of(target)
