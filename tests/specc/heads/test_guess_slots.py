"""Heads of slots: where their guesses begin."""

from __future__ import annotations

from dataclasses import astuple

import pytest
import torch

from specc.heads import HeadConfig, Target, build_head
from specc.heads.guess_slots import SlotHead
from specc.runtime.errors import HeadError

pytestmark = pytest.mark.torch
TARGET = Target(name="tiny", digest="", hidden_size=16, vocab_size=40, layers=6)
SETTINGS = {"hidden_transfer": {}, "speculative_streaming": {"rank": 2.0}, "ppd": {}, "lexical_units": {"shared": 1.0}}


def head_of(name: str, *taps: int) -> SlotHead:
    settings = {"guesses": 3.0, **SETTINGS[name]}
    head = build_head(HeadConfig(architecture=name, target=TARGET, taps=taps, draft_vocab_size=40, settings=settings))
    assert isinstance(head, SlotHead)
    return head


@pytest.mark.parametrize(
    ("taps", "places"),
    [
        ((), [(None, 0, 3)]),
        ((4,), [(4, 0, 3)]),
        ((2, 3, 4), [(2, 0, 1), (3, 1, 1), (4, 2, 1)]),
        ((0, 0, 1), [(0, 0, 2), (1, 2, 1)]),
        ((5, 5, 5), [(5, 0, 3)]),
    ],
)
def test_guesses_begin_behind_one_layer_or_each_behind_its_own(
    taps: tuple[int, ...], places: list[tuple[int | None, int, int]]
) -> None:
    assert [astuple(place) for place in head_of("hidden_transfer", *taps).starting_places] == places


@pytest.mark.parametrize("taps", [(1, 2), (3, 2, 4), (1, 2, 3, 4)])
def test_other_layers_are_refused(taps: tuple[int, ...]) -> None:
    with pytest.raises(HeadError, match="give one for each, none before the one of the guess before it"):
        head_of("hidden_transfer", *taps)


@pytest.mark.parametrize("name", SETTINGS)
def test_what_some_guesses_begin_with_is_a_part_of_what_all_do(name: str) -> None:
    head, states = head_of(name, 2), torch.randn(2, 5, 16)
    parts = [head.starts_of(states, first, count) for first, count in ((0, 2), (2, 1))]
    assert torch.equal(torch.cat(parts, 2), head.starts(states)) and head.starts(states).shape == (2, 5, 3, 16)
