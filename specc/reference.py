"""The original model in transformers, decoded greedily: what every engine is held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel

from specc.golden import Case


@torch.no_grad()
def reference(
    model: PreTrainedModel, prompts: Sequence[tuple[str, list[int]]], tokens: int, eos: Sequence[int],
    advance: Callable[[], None] = lambda: None,
) -> list[Case]:  # fmt: skip
    """Greedy tokens and the top-2 logit gap at each, for (text, ids) prompts, by the model's own code and cache."""
    cases = []
    for text, ids in prompts:
        feed, cache = torch.tensor([ids]), None
        chosen: list[int] = []
        gaps: list[float] = []
        while len(chosen) < tokens and (not chosen or chosen[-1] not in eos):
            out = model(input_ids=feed, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            best = out.logits[0, -1].float().topk(2)
            chosen.append(int(best.indices[0]))
            gaps.append(round(float(best.values[0] - best.values[1]), 6))
            feed = torch.tensor([chosen[-1:]])
        cases.append(Case(text, list(ids), chosen, gaps))
        advance()
    return cases
