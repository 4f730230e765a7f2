"""Layer-skip drafts over the target's rows, and leaves them as they are."""

from __future__ import annotations

import numpy as np
from toys import World, prompts, propose

from specc.runtime.sequence import Sequence

PROMPT = prompts(3)[2]


def test_a_draft_changes_no_committed_row() -> None:
    world = World()
    drafter, rows_LC = world.method("layer-skip", num_speculative_tokens=4).drafter, world.stores["target"].rows_LC
    seq = Sequence([*PROMPT, 3], world.caches)
    world.prefill.extend(seq.cache, PROMPT)
    before = rows_LC.copy()
    assert propose(drafter.open(seq)).tree.slots == 5
    assert seq.cache.tokens == PROMPT
    assert np.array_equal(rows_LC[:, : len(PROMPT)], before[:, : len(PROMPT)])
    assert not np.array_equal(rows_LC[:, len(PROMPT) :], before[:, len(PROMPT) :])
