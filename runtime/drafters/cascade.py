"""Cascade Speculative Drafting (Chen et al. 2024, arXiv:2312.11462): two drafters, the cheap one first."""

from __future__ import annotations

from collections.abc import Sequence as Tokens

from ..call import Call
from ..draft import ONE_SLOT, Draft, Outputs
from ..draft_chain import MakeCall
from ..engine import Engine
from ..sequence import Sequence
from . import Drafter, Drafting, Proposal, check_counts, check_probability
from .prompt_lookup import NgramIndex


class Cascade(Drafter):
    """A drafter of chains by prompt lookup, and by an engine while lookup finds nothing.

    Lookup is asked first at each place of the chain, since it costs nothing. If it finds nothing, the engine drafts one
    token, and lookup is asked again with that token. A copy by lookup ends the draft.
    """

    def __init__(
        self,
        draft: Engine,
        num_speculative_tokens: int = 3,
        prompt_lookup_num_tokens: int = 8,
        max_matching_ngram_size: int = 3,
        min_matching_ngram_size: int = 2,
        assistant_confidence_threshold: float = 0.0,
    ) -> None:
        """Keep the engine and the parameters.

        Args:
            draft: an engine of one slot over the target's cache. Its rows are scratch.
            num_speculative_tokens: tokens of a draft that the engine gives at most.
            prompt_lookup_num_tokens: tokens of a draft that lookup copies at most.
            max_matching_ngram_size: tokens of the longest n-gram that is looked up.
            min_matching_ngram_size: tokens that must match before lookup copies.
            assistant_confidence_threshold: drafting stops after a token to which the engine gave a smaller
                probability.
        """
        check_counts(
            num_speculative_tokens=num_speculative_tokens,
            prompt_lookup_num_tokens=prompt_lookup_num_tokens,
            max_matching_ngram_size=max_matching_ngram_size,
            min_matching_ngram_size=min_matching_ngram_size,
        )
        check_probability(assistant_confidence_threshold=assistant_confidence_threshold)
        self.engine, self.count, self.threshold = draft, num_speculative_tokens, assistant_confidence_threshold
        self.copied, self.longest, self.shortest = (
            prompt_lookup_num_tokens,
            max_matching_ngram_size,
            min_matching_ngram_size,
        )

    def open(self, seq: Sequence) -> CascadeDrafting:
        return CascadeDrafting(self, seq)


class CascadeDrafting(Drafting[Cascade]):
    """The index of one request's text, and calls over its cache."""

    def __init__(self, drafter: Cascade, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.index = NgramIndex(seq.tokens, drafter.longest)

    def propose(self, room: int) -> Proposal:
        copy = self._copy()
        if copy:
            return Draft.chain([self.seq.pending, *copy][: 1 + room])
        return (yield from self._draft(room))

    def _draft(self, room: int) -> Proposal:
        """Yield the calls of a draft that begins with a token of the engine."""
        engine, cache = self.drafter.engine, self.seq.cache

        def make_call(slot: int, token: int, before: Outputs | None) -> Call:
            return Call(engine, cache, slot, (token,), ONE_SLOT)

        return (yield from self._take_turns(make_call, room))

    def _take_turns(self, make_call: MakeCall, room: int, first: Outputs | None = None) -> Proposal:
        """Yield calls that draft a token each, until lookup finds a copy behind them. The copy ends the draft.

        Args:
            make_call: makes the call of the engine for a slot.
            room: how many tokens are worth drafting, and have room.
            first: the outputs of slot 0, if it has run.
        """
        drafter, outputs = self.drafter, first
        tokens, copy = [self.seq.pending], list[int]()
        for slot in range(min(drafter.count, room)):
            if slot or outputs is None:
                outputs = yield make_call(slot, tokens[-1], outputs)
            tokens.append(outputs.ids_N[0])
            if drafter.threshold and outputs.best_probability(0) < drafter.threshold:
                break
            copy = self._copy(tokens[1:])
            if copy:
                break
        return Draft.chain([*tokens, *copy][: 1 + room])

    def _copy(self, drafted: Tokens[int] = ()) -> list[int]:
        """Return what followed the last tokens of the text and of `drafted` where they occur earlier."""
        return self.index.after(self.drafter.copied, drafted, self.drafter.shortest)
