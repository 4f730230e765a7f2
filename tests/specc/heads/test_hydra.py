"""Heads by depth: which of them runs, and which tokens it reads."""

from __future__ import annotations

import pytest
import torch
from small_head import SIZE, head
from torch import Tensor

from specc.heads.hydra import Hydra

pytestmark = pytest.mark.torch


def logits(module: Hydra, tokens: list[int]) -> list[Tensor]:
    """Return the logits of a draft at each depth."""
    state = module.fuse(torch.randn(1, 1, SIZE, generator=torch.Generator().manual_seed(4)))
    results = []
    for token in tokens:
        x, state = module.step(torch.tensor([[token]]), state)
        results.append(module.logits(x)[0, 0])
    return results


def hydra() -> Hydra:
    module = head("hydra")
    assert isinstance(module, Hydra)
    torch.nn.init.zeros_(module.own.weight)  # Then a guess reaches later ones by the memory alone.
    return module


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_each_depth_has_a_first_layer_of_its_own(depth: int) -> None:
    module = hydra()
    before = logits(module, [1, 2, 3])
    with torch.no_grad():
        module.first.weight.unflatten(0, (3, -1))[depth] += 1
    after = logits(module, [1, 2, 3])
    assert [torch.equal(x, y) for x, y in zip(before, after, strict=True)] == [d != depth for d in range(3)]


def test_a_guess_reads_all_tokens_before_it() -> None:
    truth = logits(hydra(), [1, 2, 3])
    for place in range(3):
        tokens = [1, 2, 3]
        tokens[place] = 9
        changed = [not torch.equal(x, y) for x, y in zip(truth, logits(hydra(), tokens), strict=True)]
        assert changed == [depth >= place for depth in range(3)]


def test_deeper_drafts_use_the_last_head_and_the_last_tokens() -> None:
    module = hydra()
    assert not torch.equal(logits(module, [1, 2, 3, 4])[3], logits(module, [1, 9, 3, 4])[3])
    torch.testing.assert_close(logits(module, [1, 2, 3, 4])[3], logits(module, [7, 2, 3, 4])[3])
