"""Divergences of a draft's probabilities from the model's."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import kl_div

from specc.runtime.errors import HeadError
from specc.training.divergences import DIVERGENCES, acceptance_rates, divergence_of

pytestmark = pytest.mark.torch
Q, P = (torch.randn(5, 7, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_is_zero_for_equal_probabilities_alone(name: str) -> None:
    divergence = divergence_of(name)
    assert float(divergence(P + 3, P)) == pytest.approx(0, abs=1e-6)
    assert float(divergence(Q, P)) > 0.01


def test_divergences_are_those_of_torch_and_of_their_definitions() -> None:
    log_p, log_q = P.log_softmax(-1), Q.log_softmax(-1)
    log_m = ((log_p.exp() + log_q.exp()) / 2).log()

    def kl(log_a: torch.Tensor, log_b: torch.Tensor) -> torch.Tensor:
        return kl_div(log_b, log_a, reduction="batchmean", log_target=True)

    torch.testing.assert_close(DIVERGENCES["forward-kl"](Q, P), kl(log_p, log_q))
    torch.testing.assert_close(DIVERGENCES["reverse-kl"](Q, P), kl(log_q, log_p))
    torch.testing.assert_close(DIVERGENCES["jensen-shannon"](Q, P), (kl(log_p, log_m) + kl(log_q, log_m)) / 2)


def test_the_acceptance_rate_is_one_less_the_total_variation() -> None:
    rate = acceptance_rates(Q, P)
    assert rate.shape == (5,)
    torch.testing.assert_close(1 - rate.mean(), DIVERGENCES["total-variation"](Q, P))


def test_an_unknown_divergence_is_refused() -> None:
    with pytest.raises(HeadError, match="unknown divergence 'kl'; choose one of forward-kl, reverse-kl"):
        divergence_of("kl")
