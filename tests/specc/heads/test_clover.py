"""The attention to a drafted token."""

from __future__ import annotations

import pytest
import torch
from small_head import SIZE, head
from torch.nn.functional import cosine_similarity

from specc.heads.clover import Clover
from specc.heads.head import rms_norm

pytestmark = pytest.mark.torch


def clover(name: str) -> Clover:
    module = head(name)
    assert isinstance(module, Clover)
    return module


def test_clover_2_weights_what_a_token_says_by_the_cosine_of_query_and_key() -> None:
    module = clover("clover_2")
    x, token = torch.randn(2, 1, 3, SIZE)
    guess = rms_norm(x, None, module.eps)
    query, key, value = (
        product(y).unflatten(-1, (4, -1))
        for product, y in ((module.query, guess), (module.key, token), (module.value, token))
    )
    expected = x + module.output((cosine_similarity(query, key, -1)[..., None] * value).flatten(-2))
    assert module.up is not None and module.down is not None
    torch.nn.init.zeros_(module.down.weight)
    torch.testing.assert_close(module.correct(x, token, x, [])[0], expected, atol=1e-4, rtol=1e-4)


def test_clover_takes_shares_of_the_guess_and_of_the_token() -> None:
    """If the value is one number for both, the shares make it again: they sum to one."""
    module = clover("clover")
    x = torch.randn(1, 3, SIZE)
    token = rms_norm(x, None, module.eps)
    expected = x + module.output(module.value(token))
    torch.testing.assert_close(module.correct(x, token, x, [])[0], expected, atol=1e-4, rtol=1e-4)


def test_a_token_changes_what_clover_says() -> None:
    for module in (clover("clover"), clover("clover_2")):
        x, token, other = torch.randn(3, 1, 1, SIZE)
        assert not torch.allclose(module.correct(x, token, x, [])[0], module.correct(x, other, x, [])[0])
