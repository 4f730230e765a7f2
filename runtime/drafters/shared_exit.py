"""Drafts by an early exit whose work the target goes on with: nothing is computed twice.

LayerSkip (Elhoushi et al. 2024, arXiv:2404.16710) and Kangaroo (Liu et al. 2024, arXiv:2404.18911) draft by the first
layers of the target. These leave their rows and their hidden states, and the target verifies by its other layers alone.
In LayerSkip the target's own norm and head follow the exit. In Kangaroo a trained adapter does, which reads the hidden
states and has rows of its own.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import numpy as np

from ..block import HIDDEN
from ..call import Call
from ..draft import ONE_SLOT, Accepted, Draft, Outputs, Verified
from ..draft_chain import draft_chain
from ..engine import Engine, narrowest
from ..errors import RecipeError
from ..lengths import LengthPolicy
from ..sequence import Cache, Sequence
from ..tree import Tree
from . import Drafter, Drafting, Proposal


class SharedExit(Drafter):
    """A drafter of chains by the shallow half of the target, whose deep half verifies them.

    Each token of a draft, the last one too, runs once in the shallow half. Its row of the first layers stays if the
    token is accepted.
    """

    takes_length = True

    def __init__(
        self,
        shallow: Engine,
        adapter: Engine | None = None,
        feed: Engine | None = None,
        sample: bool = False,
        keep_logits: bool = False,
        **others: Any,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            shallow: the target's first layers on one slot, with the target's norm and head. It returns the hidden
                states after the last of these layers.
            adapter: the adapter on one slot, which reads these states; None takes the target's norm and head.
            feed: the adapter on many slots, which fills its cache with the text.
            sample: sample the drafted tokens if the request samples.
            keep_logits: keep the logits of each slot in the draft, for a rule that asks for them.
            **others: the engines `deep_0`, `deep_1` and so on, the target's other layers on chains of several widths;
                and the parameters of `LengthPolicy`.

        Raises:
            RecipeError: there is no deep half, or one that begins elsewhere than the shallow half ends; or an adapter
                has one engine of its two.
        """
        names = sorted(name for name in others if re.fullmatch(r"deep_\d", name))
        deep: list[Engine] = [others.pop(name) for name in names]
        self.shallow, self.deep = shallow, sorted(deep, key=lambda engine: engine.slots)
        self.engine, self.sample, self.keep_logits = shallow, sample, keep_logits
        self.length = LengthPolicy(**others)
        last = shallow.block.layers.exit_after
        if not deep or last is None or any(engine.block.layers.start_after != last for engine in deep):
            raise RecipeError("the halves of the target do not meet at one layer; compile the bundle again")
        self.states = f"hidden_{last - 1}"
        if (adapter is None) != (feed is None):
            raise RecipeError("the adapter has one engine and needs two, adapter and feed; compile the bundle again")
        self.adapter = None if adapter is None or feed is None else (adapter, feed)

    def open(self, seq: Sequence) -> SharedExitDrafting:
        return SharedExitDrafting(self, seq)


class SharedExitDrafting(Drafting[SharedExit]):
    """Calls over the target's cache of one request, and how long its drafts are."""

    def __init__(self, drafter: SharedExit, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.length = drafter.length.open()

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        room = min(room, drafter.deep[-1].slots - 1)
        engine, cache = drafter.shallow, seq.cache
        if drafter.adapter is not None:
            engine, feed = drafter.adapter
            cache = seq.caches[engine.block.cache]
            if not (yield from _caught_up(feed, seq, cache)):
                return Draft.chain([seq.pending])
        states: list[np.ndarray] = []
        draft = yield from self._through_the_exit(
            draft_chain(
                engine,
                seq,
                cache,
                room=room,
                length=self.length,
                sample=drafter.sample,
                keep_logits=drafter.keep_logits,
            ),
            states,
        )
        if not states:  # There was room for no draft, so the whole target runs the pending token.
            return draft
        if cache is not seq.cache:
            cache.commit(draft.tokens, range(len(states)))
        if len(states) < len(draft.tokens):
            outputs = yield Call(drafter.shallow, seq.cache, len(states), draft.tokens[-1:], ONE_SLOT)
            states.append(outputs.hidden[drafter.states][0].copy())
        return draft._replace(by=narrowest(drafter.deep, draft.tree), inputs={HIDDEN: np.stack(states)})

    def _through_the_exit(self, calls: Proposal, states: list[np.ndarray]) -> Proposal:
        """Yield the calls of a draft, let the first layers run before the adapter, and return the draft.

        Args:
            calls: yields calls of the first layers on one slot, or of the adapter, which lack the states that it reads.
            states: gets the hidden states of each token, [size].
        """
        drafter, cache = self.drafter, self.seq.cache
        try:
            call = next(calls)
            while True:
                outputs = yield call if drafter.adapter is None else call._replace(engine=drafter.shallow, cache=cache)
                states.append(outputs.hidden[drafter.states][0].copy())
                if drafter.adapter is not None:
                    outputs = yield call._replace(inputs={"state": states[-1][None]})
                call = calls.send(outputs)
        except StopIteration as end:
            draft: Draft = end.value
            return draft

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        self.length.observe(len(draft.tokens) - 1, len(accepted.slots) - 1)


def _caught_up(feed: Engine, seq: Sequence, cache: Cache) -> Generator[Call, Outputs, bool]:
    """Yield the calls that run the tokens which the adapter's cache lacks, and commit them.

    Args:
        feed: the adapter on many slots.
        seq: the sequence. Its cache has the states at the exit.
        cache: the adapter's.

    Returns:
        Whether there are such states. A bundle whose target returns none has none.
    """
    states, left = seq.cache.states.get(feed.block.model), cache.sync(seq.tokens[:-1])
    if states is None:
        return False
    for first in range(0, len(left), feed.slots):
        tokens, start = left[first : first + feed.slots], len(cache)
        inputs = {"state": states[start : start + len(tokens)]}
        yield Call(feed, cache, 0, tokens, Tree.chain(len(tokens)), inputs)
        cache.commit(tokens, range(len(tokens)))
    return True
