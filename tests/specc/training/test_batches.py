"""Batches of recorded text."""

from __future__ import annotations

import pytest
from small_head import recordings

from specc.training.batches import collate, epoch

pytestmark = pytest.mark.torch


def test_every_text_comes_once_in_an_epoch() -> None:
    texts = recordings(17)
    groups = epoch(texts, 100, seed=0)
    assert sorted(id(text) for group in groups for text in group) == sorted(map(id, texts))
    assert max(len(group) * max(map(len, group)) for group in groups) <= 100


def test_a_text_that_is_longer_than_a_batch_is_a_batch() -> None:
    assert [len(group) for group in epoch(recordings(3), 5, seed=0)] == [1, 1, 1]


def test_the_seed_decides_the_order() -> None:
    texts = recordings(17)
    orders = [[id(text) for group in epoch(texts, 60, seed) for text in group] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_padding_is_not_valid_and_deeper_drafts_begin_later() -> None:
    short, long = recordings(2)
    batch = collate([short, long])
    assert batch.valid.sum(1).tolist() == [len(short), len(long)]
    assert batch.slots == len(long) - 1
    assert batch.rows(2).sum(1).tolist() == [len(short) - 3, len(long) - 3] and not batch.rows(2)[:, :2].any()
