"""Trust: what was drafted is the answer."""

from __future__ import annotations

from collections import Counter

import numpy as np
from chance import chi_square_rejects
from language import language, verify

from specc.runtime.acceptance import Keeps
from specc.runtime.acceptance.trust import trust
from specc.runtime.draft import Accepted, Draft
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree

CHAIN = Draft.chain([0, 3, 1])


def test_it_accepts_all_of_a_chain_and_the_target_chooses_the_next_token() -> None:
    for seed in range(10):
        verified = verify(CHAIN, language(seed), Sampling())
        assert trust(CHAIN, verified) == Accepted((0, 1, 2), int(language(seed)((3, 1)).argmax()))


def test_the_next_token_is_the_drafts_own_if_it_has_logits_for_the_last_slot() -> None:
    for seed in range(10):
        logits = np.log(language(100 + seed)((3, 1)))
        draft = CHAIN._replace(logits={2: logits})
        assert trust(draft, verify(draft, language(seed), Sampling())).token == logits.argmax()
        early = CHAIN._replace(logits={1: logits})
        assert trust(early, verify(early, language(seed), Sampling())).token == language(seed)((3, 1)).argmax()


def test_a_sampled_request_samples_the_drafts_own_token() -> None:
    probs_V = language(7)((3, 1))
    draft, counts = CHAIN._replace(logits={2: np.log(probs_V)}), Counter[int]()
    for seed in range(2000):
        counts[trust(draft, verify(draft, language(1), Sampling(1.0, rng=SeededRng(seed)))).token] += 1
    assert not chi_square_rejects(counts, dict(enumerate(probs_V.tolist())))
    assert chi_square_rejects(counts, dict(enumerate(language(1)((3, 1)).tolist())))


def test_of_a_tree_it_accepts_the_first_path() -> None:
    draft = Draft((0, 3, 2, 1, 0), Tree((-1, 0, 0, 1, 2)))
    assert trust(draft, verify(draft, language(0), Sampling())).slots == (0, 1, 3)


def test_it_promises_nothing() -> None:
    assert trust.keeps == Keeps.NOTHING and trust.needs_draft_probs
