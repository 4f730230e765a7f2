"""Judge: what the target would choose stays, and what the head finds good."""

from __future__ import annotations

import numpy as np
import pytest
from language import language, verify

from specc.runtime.acceptance import Keeps, with_parameters
from specc.runtime.acceptance.judge import judge
from specc.runtime.acceptance.match import match
from specc.runtime.draft import Draft, OtherLogits, Verified
from specc.runtime.errors import RecipeError
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling

CHAIN = Draft.chain([0, 2, 1, 3])


def judged(seed: int, scores: list[float], sampling: Sampling | None = None) -> Verified:
    """Return what a target says of CHAIN, with the head's logits of its slots."""
    verified = verify(CHAIN, language(seed), sampling or Sampling())
    states = {"judge": np.array(scores, np.float32)[:, None]}
    outputs = verified.outputs
    object.__setattr__(outputs, "states", states)
    return verified


def test_a_token_stays_if_the_target_would_choose_it_or_the_head_finds_it_good() -> None:
    lengths = set()
    for seed in range(40):
        scores = np.random.default_rng(seed).normal(size=4).tolist()
        length = 1
        while length < 4:
            path = CHAIN.tokens[1:length]
            if language(seed)(path).argmax() != CHAIN.tokens[length] and scores[length] <= 0:
                break
            length += 1
        accepted = judge(CHAIN, judged(seed, scores))
        assert accepted.slots == tuple(range(length))
        assert accepted.token == language(seed)(CHAIN.tokens[1:length]).argmax()
        lengths.add(length)
    assert lengths == {1, 2, 3, 4}


def test_a_higher_threshold_keeps_less_and_1_is_match_also_where_the_request_samples() -> None:
    for seed in range(10):
        for sampling in (Sampling(), Sampling(1.0, rng=SeededRng(seed))):
            verified = judged(seed, [0.0, 1.0, 1.0, 9.0], sampling)
            tokens_left = [
                len(with_parameters(judge, {"threshold": share})(CHAIN, verified).slots) for share in (0.0, 0.7, 0.8, 1)
            ]
            assert tokens_left == sorted(tokens_left, reverse=True) and tokens_left[0] == 4
            assert with_parameters(judge, {"threshold": 1})(CHAIN, verified) == match(CHAIN, verified)


def test_no_token_stays_that_a_processor_forbids() -> None:
    forbidden = np.array([0.0, 0.0, -np.inf, 0.0])
    verified = judged(0, [9.0] * 4)._replace(processed=OtherLogits(lambda slot: forbidden))
    assert judge(CHAIN, verified).slots == (0,)


def test_a_bundle_without_the_head_is_refused() -> None:
    with pytest.raises(
        RecipeError, match="the bundle has no head that judges tokens; compile it with --recipe judge-decoding"
    ):
        judge(CHAIN, verify(CHAIN, language(0), Sampling()))


def test_it_promises_nothing() -> None:
    assert judge.keeps == Keeps.NOTHING
