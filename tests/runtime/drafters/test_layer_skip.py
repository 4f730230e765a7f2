"""Layer-skip drafts over the target's rows, and leaves them as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from toys import World, prompts, propose, step

from specc.runtime.call import finish
from specc.runtime.loop import stepping
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


def test_no_step_goes_beyond_the_row_after_which_the_target_rounds_further_ones() -> None:
    """Rows are rounded in groups of 8. So each slot of a step sees the rows that it would see in a step of its own."""
    world = World()
    drafter = world.method("quantspec-int8", group_rows=8, num_speculative_tokens=5).drafter
    for rows in range(16, 33):
        seq = Sequence([*(PROMPT * 3)[:rows], 3], world.caches)
        world.prefill.extend(seq.cache, seq.cache.sync(seq.tokens[:-1]))
        assert propose(drafter.open(seq)).tree.slots == min(6, 8 - rows % 8)


def test_quantspec_has_the_tokens_of_plain_decoding_over_the_same_rows_of_8_bits() -> None:
    """The honest test of methods.md. The controls: rows as they are, and drafts that go beyond a group."""
    own: dict[str, Any]
    texts: dict[str, list[list[int]]] = {"drafts": [], "none": [], "exact": [], "beyond": []}
    for prompt in prompts(8, seed=4):
        for kind, tokens in texts.items():
            own = {"name": "plain"} if kind == "exact" else {"name": "quantspec-int8", "group_rows": 8}
            decoder = World().method(**own)
            if kind == "beyond":
                decoder.drafter.group_rows = 0
            seq = Sequence(list(prompt), decoder.world.caches)
            decoder.world.prefill.extend(seq.cache, prompt[:-1])
            request = decoder.open(seq)
            while len(seq.tokens) < len(prompt) + 60:
                finish(stepping(request, 0 if kind == "none" else 99), request.stats.charge)
            tokens.append(seq.tokens[: len(prompt) + 60])
    assert texts["drafts"] == texts["none"]
    assert texts["drafts"] != texts["exact"] and texts["drafts"] != texts["beyond"]
