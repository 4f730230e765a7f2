"""The closed form finds products that are there."""

from __future__ import annotations

import pytest
import torch

from specc.heads.head import rms_norm
from specc.training.closed_form import solve
from specc.training.shards import Recording

pytestmark = pytest.mark.torch
SIZE, EPS = 8, 1e-6


def text(taps: torch.Tensor, token: torch.Tensor, table: torch.Tensor, seed: int) -> Recording:
    """Return text whose next state is a sum of two products."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(20, (60,), generator=generator)
    states = torch.randn(60, 2 * SIZE, generator=generator)
    normed = rms_norm(states.unflatten(1, (2, SIZE)), None, EPS).flatten(1)
    final = torch.zeros(60, SIZE)
    final[1:] = normed[:-1] @ taps.T + rms_norm(table[tokens[1:]], None, EPS) @ token.T
    return Recording(tokens=tokens, stored_states=states, stored_final=final, prompt=1)


def test_the_products_that_made_the_text_are_found() -> None:
    torch.manual_seed(0)
    taps, token, table = torch.randn(SIZE, 2 * SIZE), torch.randn(SIZE, SIZE), torch.randn(20, SIZE)
    texts = [text(taps, token, table, seed) for seed in range(30)]
    fit = solve(texts, table, 2, EPS)
    torch.testing.assert_close(fit.taps, taps, atol=0.02, rtol=0.02)
    torch.testing.assert_close(fit.token, token, atol=0.05, rtol=0.05)
    everything = torch.cat([t.final[1:] for t in texts])
    assert fit.scale == pytest.approx(float(everything.pow(2).mean()) ** 0.5, rel=1e-3)
