"""Cascade Speculative Drafting (Chen et al. 2024, arXiv:2312.11462) over a recurrent trained head (EAGLE-3)."""

from __future__ import annotations

from ..call import Call
from ..draft import ONE_SLOT, Draft
from ..draft_head import reading_engines, running_head
from ..engine import Engine
from ..sequence import Sequence
from . import Drafter, Drafting, Proposal, check_counts, check_probability
from .prompt_lookup import NgramIndex


class EagleCascade(Drafter):
    """A drafter of chains by prompt lookup, and by a trained head while lookup finds nothing.

    It asks as `Cascade` does: lookup first at each place of the chain, then the head for one token. A copy ends the
    draft. A draft that begins with a copy needs no call of the head, which reads the accepted tokens when it is asked
    again.
    """

    def __init__(
        self,
        draft: Engine,
        feed: Engine,
        prefill: Engine,
        num_speculative_tokens: int = 6,
        prompt_lookup_num_tokens: int = 11,
        max_matching_ngram_size: int = 6,
        min_matching_ngram_size: int = 4,
        assistant_confidence_threshold: float = 0.0,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: an engine of the head with one slot.
            feed: an engine of the head for the tokens of a step.
            prefill: an engine of the head for many tokens.
            num_speculative_tokens: tokens of a draft that the head gives at most.
            prompt_lookup_num_tokens: tokens of a draft that lookup copies at most. A draft has as many tokens as the
                larger of the two numbers at most.
            max_matching_ngram_size: tokens of the longest n-gram that is looked up.
            min_matching_ngram_size: tokens that must match before lookup copies.
            assistant_confidence_threshold: drafting stops after a token to which the head gave a smaller probability.
        """
        check_counts(
            num_speculative_tokens=num_speculative_tokens,
            prompt_lookup_num_tokens=prompt_lookup_num_tokens,
            max_matching_ngram_size=max_matching_ngram_size,
            min_matching_ngram_size=min_matching_ngram_size,
        )
        check_probability(assistant_confidence_threshold=assistant_confidence_threshold)
        self.engine, self.engines = draft, reading_engines(draft, feed, prefill)
        self.count, self.threshold = num_speculative_tokens, assistant_confidence_threshold
        self.copied, self.longest, self.shortest = (
            prompt_lookup_num_tokens,
            max_matching_ngram_size,
            min_matching_ngram_size,
        )

    def open(self, seq: Sequence) -> EagleCascadeDrafting:
        return EagleCascadeDrafting(self, seq)


class EagleCascadeDrafting(Drafting[EagleCascade]):
    """The index of one request's text, and calls of the head."""

    def __init__(self, drafter: EagleCascade, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.index = NgramIndex(seq.tokens, drafter.longest)

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        room = min(room, max(drafter.count, drafter.copied))
        tokens, outputs = [seq.pending], None
        copy = self.index.after(drafter.copied, (), drafter.shortest)
        root = (yield from running_head(drafter.engines, seq)) if room and not copy else None
        if root is not None:
            outputs, room = root.outputs, min(room, root.cache.store.capacity - len(seq.tokens) - 1)
            for slot in range(min(drafter.count, room)):
                if slot:
                    assert outputs.next_state_NS is not None
                    inputs = {"state": outputs.next_state_NS}
                    outputs = yield Call(drafter.engine, root.cache, slot - 1, tokens[-1:], ONE_SLOT, inputs)
                tokens.append(outputs.ids_N[0])
                if drafter.threshold and outputs.best_probability(0) < drafter.threshold:
                    break
                copy = self.index.after(drafter.copied, tokens[1:], drafter.shortest)
                if copy:
                    break
        return Draft.chain([*tokens, *copy][: 1 + room])
