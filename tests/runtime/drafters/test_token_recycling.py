"""The table of successors."""

from __future__ import annotations

import numpy as np
from toys import VOCABULARY, ToyKV, World, prompts, propose

from specc.runtime.draft import Accepted, Draft, Outputs, Verified
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


def test_a_step_on_an_engine_without_ranks_teaches_nothing() -> None:
    """The guard's narrow engine runs a draft of which a grammar left one slot."""
    drafter = TokenRecycling(tree=(-1, 0, 0, 2), vocab_size=10, successors=2)
    drafting = drafter.open(Sequence([4], {"target": Cache(ToyKV())}))
    before = [list(row) for row in drafter.table]
    outputs = Outputs(np.array([5]).data)
    drafting.observe(Draft.chain([4]), Verified(outputs, Sampling()), Accepted((0,), 5))
    assert [list(row) for row in drafter.table] == before


def test_token_recycling_accepts_more_once_its_table_is_warm() -> None:
    """The second answer has more tokens a step than the first; the table has eight successors of each token."""
    decoder = World().method("token-recycling")
    prompt, other = prompts(2, seed=5)
    cold, warm = decoder.run(prompt, 100)[1], decoder.run(other, 100)[1]
    assert warm > cold and {len(row) for row in decoder.drafter.table} == {8}
    assert len(decoder.drafter.table) == VOCABULARY
