"""Layer-skip drafts over the target's rows, and leaves them as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from toys import World, prompts, propose, step

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


def test_the_threshold_of_draft_and_verify_moves_while_a_request_runs() -> None:
    """Up where drafts are rejected, and so drafts become shorter."""
    decoder = World().method("draft-and-verify", assistant_confidence_threshold=0.3, target_acceptance_rate=1.0)
    seq = Sequence(list(PROMPT), decoder.world.caches)
    request = decoder.open(seq)
    decoder.world.prefill.extend(seq.cache, seq.tokens[:-1])
    drafting: Any = request.drafting
    thresholds = []
    for _ in range(60):
        step(request)
        thresholds.append(drafting.length.stops[0].threshold)
    assert thresholds == sorted(thresholds) and 0.3 < thresholds[-1] <= 0.3 + 60 * 0.001
