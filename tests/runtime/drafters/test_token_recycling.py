"""The table of successors."""

from __future__ import annotations

import numpy as np
from toys import ToyKV, propose

from specc.runtime.draft import Accepted, Outputs, Verified
from specc.runtime.drafters.token_recycling import TokenRecycling
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Cache, Sequence


def test_every_slot_refreshes_its_tokens_row_and_rows_fill_the_tree_by_rank() -> None:
    """Accepted or not; slot 3 is below slot 2, the pending token's second successor."""
    drafter, seq = (
        TokenRecycling(tree=(-1, 0, 0, 2), vocab_size=10, successors=2),
        Sequence([4], {"target": Cache(ToyKV())}),
    )
    drafting = drafter.open(seq)
    first = propose(drafting)
    assert first.tokens == (4, 0, 0, 0) and first.tree.parents == (-1, 0, 0, 2)
    top = np.array([[5, 6, 9], [1, 2, 9], [7, 8, 9], [3, 2, 9]])
    outputs = Outputs(top[:, 0].copy().data, top_ids_NK=top)
    drafting.observe(first, Verified(outputs, Sampling()), Accepted((0,), 4))
    assert propose(drafting).tokens == (4, 5, 6, 0)
    assert propose(drafter.open(Sequence([0], {"target": Cache(ToyKV())}))).tokens == (0, 3, 2, 0)
