"""Early exit fills its tree with the exit's likeliest tokens."""

from __future__ import annotations

import numpy as np
from toys import World, prompts, propose

from specc.runtime.sequence import Cache, Sequence

PROMPT = prompts(3)[2]


def test_children_by_rank_are_what_the_exit_answers_after_the_path_to_them() -> None:
    world = World()
    decoder = world.method("early-exit")
    engine = decoder.drafter.engine
    seq = Sequence([*PROMPT, 3], world.caches)
    world.prefill.extend(seq.cache, seq.cache.sync(PROMPT))
    draft = propose(decoder.drafter.open(seq))
    for slot, below in enumerate(draft.tree.children):
        path = [draft.tokens[s] for s in np.flatnonzero(draft.tree.mask[slot])]
        row = engine.extend(Cache(seq.cache.store, seq.cache.tokens), path)
        assert [draft.tokens[c] for c in below] == list(engine.outputs.top_ids_NK[row][: len(below)])
