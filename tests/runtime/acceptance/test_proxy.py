"""Proxy tuning, against a reference in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from language import language, verify

from specc.runtime.acceptance import Keeps, with_parameters
from specc.runtime.acceptance.proxy import added, proxy
from specc.runtime.draft import Accepted, Draft
from specc.runtime.errors import RecipeError
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree

CHAIN = Draft.chain([0, 3, 1])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0])
def test_proxy_tuning_adds_logits_as_its_reference_does(alpha: float) -> None:
    """FS-GEN's proxy tuning, token by token: l + alpha * (s_tuned - s)."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        large, tuned, small = rng.normal(size=(3, 30)).astype(np.float32)
        reference = [w + alpha * (t - s) for w, t, s in zip(large, tuned, small, strict=True)]
        assert np.allclose(added(large, tuned - small, alpha), reference, atol=1e-5)


def test_all_drafted_tokens_stay_and_the_moved_logits_choose_the_next() -> None:
    accept = with_parameters(proxy, {"alpha": 1.5})
    for seed in range(10):
        difference = np.log(language(100 + seed)((3, 1))) - np.log(language(200 + seed)((3, 1)))
        draft = CHAIN._replace(logits={2: difference.astype(np.float32)})
        token = int((np.log(language(seed)((3, 1))) + 1.5 * difference).argmax())
        assert accept(draft, verify(draft, language(seed), Sampling())) == Accepted((0, 1, 2), token)


def test_a_tree_or_a_draft_without_logits_is_refused_and_nothing_is_kept() -> None:
    for draft in (CHAIN, Draft((0, 1, 2), Tree((-1, 0, 0)))):
        with pytest.raises(RecipeError, match="needs a chain with the draft's logits after its last slot"):
            proxy(draft, verify(draft, language(0), Sampling()))
    assert proxy.keeps == Keeps.NOTHING and not proxy.obeys_processors
