"""The table of successors."""

import numpy as np

from specc.runtime.draft import Accepted, Outputs, Verified
from specc.runtime.drafters.token_recycling import TokenRecycling
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Cache, Sequence


def test_every_slot_refreshes_its_tokens_row_and_rows_fill_the_tree_by_rank():
    """Accepted or not; slot 3 hangs below slot 2, the pending token's second successor."""
    drafter, seq = TokenRecycling(tree=(-1, 0, 0, 2), vocab_size=10, successors=2), Sequence([4], Cache(None))
    first = drafter.propose(seq)
    assert first.tokens == (4, 0, 0, 0) and first.tree.parents == (-1, 0, 0, 2)
    top = np.array([[5, 6, 9], [1, 2, 9], [7, 8, 9], [3, 2, 9]])
    drafter.observe(seq, first, Verified(Outputs(top[:, 0], top_ids_NK=top), Sampling()), Accepted((0,), 4))
    assert drafter.propose(seq).tokens == (4, 5, 6, 0)
    assert drafter.propose(Sequence([0], Cache(None))).tokens == (0, 3, 2, 0)
