"""The states that are recorded are those of transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from specc.huggingface import load_model
from specc.runtime.errors import HeadError
from specc.training.states import check_taps, layers_of, read_states

pytestmark = pytest.mark.torch
TEXTS = [[5, 9, 3, 8], [7, 1, 8, 2, 6, 4, 11], [3, 3]]


def test_states_are_the_hidden_states_of_the_layers_whatever_the_padding(model: Path) -> None:
    target = load_model(str(model))
    for tokens, (states, final) in zip(TEXTS, read_states(target, TEXTS, (0, -1)), strict=True):
        hidden = target(torch.tensor([tokens]), output_hidden_states=True).hidden_states
        assert states.dtype == final.dtype == torch.bfloat16
        torch.testing.assert_close(states[:, : hidden[1].shape[-1]].float(), hidden[1][0], atol=2e-2, rtol=2e-2)
        torch.testing.assert_close(final.float(), hidden[-1][0], atol=2e-2, rtol=2e-2)


def test_the_last_tap_lies_before_the_final_norm(model: Path) -> None:
    target = load_model(str(model))
    (states, final), *_ = read_states(target, TEXTS, (-1,))
    norm: nn.Module = target.get_submodule("model.norm")
    torch.testing.assert_close(norm(states.float()), final.float(), atol=3e-2, rtol=3e-2)


def test_the_number_of_layers_is_the_state_behind_the_final_norm(model: Path) -> None:
    for states, final in read_states(load_model(str(model)), TEXTS, (3, 0)):
        assert torch.equal(states[:, : final.shape[1]], final)


def test_no_hook_stays(model: Path) -> None:
    target = load_model(str(model))
    list(read_states(target, TEXTS, (0,)))
    assert not any(module._forward_hooks for module in target.modules())


@pytest.mark.parametrize("tap", [4, -4])
def test_a_tap_that_names_no_layer_is_refused(tap: int, model: Path) -> None:
    message = rf"the tap {tap} names no layer of 3; give -3..3"
    with pytest.raises(HeadError, match=message):
        check_taps((0, tap), 3)
    with pytest.raises(HeadError, match=message):
        list(read_states(load_model(str(model)), TEXTS, (tap,)))


def test_no_tap_is_refused() -> None:
    with pytest.raises(HeadError, match="there is no tap; name the layers"):
        check_taps((), 3)


def test_a_model_without_a_list_of_layers_is_refused(model: Path) -> None:
    target = load_model(str(model))
    target.config.num_hidden_layers = 5
    with pytest.raises(HeadError, match="has no list of 5 layers; a head cannot be trained for it"):
        layers_of(target)
