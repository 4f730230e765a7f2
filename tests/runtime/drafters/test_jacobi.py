"""Jacobi's guesses are the last pass's answers."""

from __future__ import annotations

import numpy as np
from toys import ToyKV, propose

from specc.runtime.draft import Accepted, Outputs, Verified
from specc.runtime.drafters.jacobi import Jacobi
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Cache, Sequence


def test_answers_below_the_last_accepted_slot_are_the_next_guesses() -> None:
    """Slots without an answer repeat the pending token. Padding slots of a wider engine count for nothing."""
    seq = Sequence([5], {"target": Cache(ToyKV())})
    drafting = Jacobi(num_speculative_tokens=3).open(seq)
    draft = propose(drafting)
    assert draft.tokens == (5, 5, 5, 5) and draft.tree.is_chain
    verified = Verified(Outputs(np.array([5, 6, 7, 8, 99]).data), Sampling())
    accepted = Accepted((0, 1), 6)
    seq.append(draft, accepted)
    drafting.observe(draft, verified, accepted)
    assert propose(drafting).tokens == (6, 7, 8, 6)
