"""Batches of recorded text."""

from __future__ import annotations

import pytest
import torch
from small_head import recordings

from specc.training.batches import ROWS, STEP, collate, epoch, fill_up

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
    assert batch.slots == 2 * STEP and len(long) - 1 < batch.slots
    assert batch.rows(2).sum(1).tolist() == [len(short) - 3, len(long) - 3] and not batch.rows(2)[:, :2].any()


def test_batches_of_many_lengths_have_few_shapes() -> None:
    """Torch keeps a program for each shape of a product. Of as many batches as these, each had a shape of its own."""
    texts = [text for length in range(10, 200) for text in recordings(4, length=length)]
    groups = epoch(texts, 1536, seed=0)
    shapes = {collate(group).tokens.shape for group in groups}
    assert len({(len(group), max(map(len, group))) for group in groups}) > 3 * len(shapes)
    assert all((columns - 1) % STEP == 0 for _, columns in shapes)


def test_rows_are_filled_up_with_zeros_to_a_multiple() -> None:
    for count in (0, 1, ROWS, ROWS + 1):
        rows = fill_up(torch.ones(count, 3))
        assert len(rows) % ROWS == 0 and len(rows) - count < ROWS and rows.sum() == 3 * count
