"""The target itself on a shortened context (RAPID, Chen et al. 2025, arXiv:2502.20330)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Tokens
from math import log
from typing import Any

from ..engine import Engine
from ..sequence import Sequence
from . import check_counts
from .draft_model import DraftModel, DraftModelDrafting

MOST_CONTEXT = 1 << 20  # tokens


class ShortContext(DraftModel):
    """A drafter of chains by the target's own weights over a cache of its own, which holds a part of the prompt.

    A long prompt is cut into chunks. The chunks that share rare tokens with the end of the prompt stay, in their order,
    and so does the end. What is generated follows them. So a call of the draft reads fewer rows than one of the target.

    The paper finds chunks by a trained model of embeddings. Here the tokens themselves are compared, so that no other
    model is needed.
    """

    def __init__(
        self,
        draft: Engine,
        prefill: Engine,
        sample: bool = False,
        keep_logits: bool = False,
        context_tokens: int = 256,
        chunk_tokens: int = 32,
        **length: Any,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: the target's weights on one slot, over a cache of their own.
            prefill: the target's weights on many slots, over that cache.
            sample: sample the drafted tokens if the request samples.
            keep_logits: keep the logits of each slot in the draft, for a rule that asks for them.
            context_tokens: tokens of a longer prompt that stay.
            chunk_tokens: tokens of a chunk.
            **length: the parameters of `LengthPolicy`.
        """
        super().__init__(draft, prefill, sample, keep_logits, **length)
        check_counts(most=MOST_CONTEXT, context_tokens=context_tokens, chunk_tokens=chunk_tokens)
        self.context, self.chunk = context_tokens, chunk_tokens

    def open(self, seq: Sequence) -> ShortContextDrafting:
        return ShortContextDrafting(self, seq)


class ShortContextDrafting(DraftModelDrafting):
    """The shortened prompt of one request, and the draft's rows of it."""

    drafter: ShortContext

    def __init__(self, drafter: ShortContext, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.prompt = len(seq.tokens)
        self.short = shortened(seq.tokens, drafter.context, drafter.chunk)

    def text(self) -> list[int]:
        return self.short + self.seq.tokens[self.prompt :]


def shortened(prompt: Tokens[int], most: int, chunk: int) -> list[int]:
    """Return a part of a prompt: its end, and the chunks before it that share rare tokens with the end.

    Args:
        prompt: the prompt.
        most: tokens that stay at most. The end is half of them.
        chunk: tokens of a chunk.
    """
    if len(prompt) <= most:
        return list(prompt)
    end = len(prompt) - max(1, most // 2)
    chunks = [prompt[start : min(start + chunk, end)] for start in range(0, end, chunk)]
    query, spread = set(prompt[end:]), Counter(token for part in chunks for token in set(part))
    scores = [sum(log(1 + len(chunks) / spread[token]) for token in query & set(part)) for part in chunks]
    left, best = most - (len(prompt) - end), []
    for number in sorted(range(len(chunks)), key=lambda number: (-scores[number], -number)):
        if len(chunks[number]) <= left:
            best.append(number)
            left -= len(chunks[number])
    return [token for number in sorted(best) for token in chunks[number]] + list(prompt[end:])
