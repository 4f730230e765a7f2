"""FS-GEN's choice by two models, against a reference in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from language import language, verify

from specc.runtime.acceptance import Keeps, with_parameters
from specc.runtime.acceptance.guided import combined, guided
from specc.runtime.draft import Accepted, Draft
from specc.runtime.errors import RecipeError
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree

CHAIN = Draft.chain([0, 3, 1])


def reference(small: np.ndarray, large: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """FS-GEN's contrastive decoding, token by token: s + beta * (l - s) where l >= max l + log alpha."""
    bound = max(large) + (np.log(alpha) if alpha else -np.inf)
    pairs = zip(small, large, strict=True)
    return np.array([s + beta * (w - s) if w >= bound else -np.inf for s, w in pairs])


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 1.0), (0.1, 1.5), (0.5, 0.5), (1.0, 3.0)])
def test_fs_gen_combines_logits_as_its_reference_does(alpha: float, beta: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        small, large = rng.normal(size=(2, 30)).astype(np.float32)
        assert np.allclose(combined(small, large, alpha, beta), reference(small, large, alpha, beta), atol=1e-5)


def test_all_drafted_tokens_stay_and_both_models_choose_the_next() -> None:
    accept = with_parameters(guided, {"alpha": 0.1, "beta": 1.5})
    for seed in range(10):
        small, large = np.log(language(100 + seed)((3, 1))), np.log(language(seed)((3, 1)))
        draft = CHAIN._replace(logits={2: small.astype(np.float32)})
        token = int(reference(small, large, 0.1, 1.5).argmax())
        assert accept(draft, verify(draft, language(seed), Sampling())) == Accepted((0, 1, 2), token)


def test_with_alpha_0_and_beta_1_the_large_model_chooses_alone() -> None:
    accept = with_parameters(guided, {"alpha": 0, "beta": 1})
    for seed in range(10):
        draft = CHAIN._replace(logits={2: np.log(language(100 + seed)((3, 1))).astype(np.float32)})
        assert accept(draft, verify(draft, language(seed), Sampling())).token == language(seed)((3, 1)).argmax()


def test_a_tree_or_a_draft_without_logits_is_refused_and_nothing_is_kept() -> None:
    for draft in (CHAIN, Draft((0, 1, 2), Tree((-1, 0, 0)))):
        with pytest.raises(RecipeError, match="needs a chain with the draft's logits after its last slot"):
            guided(draft, verify(draft, language(0), Sampling()))
    assert guided.keeps == Keeps.NOTHING and not guided.obeys_processors
