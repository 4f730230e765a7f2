"""Drafts by an early exit whose work the target goes on with: nothing is computed twice.

LayerSkip (Elhoushi et al. 2024, arXiv:2404.16710) and Kangaroo (Liu et al. 2024, arXiv:2404.18911) draft by the first
layers of the target. These leave their rows and their hidden states, and the target verifies by its other layers alone.
Kangaroo's exit has a trained adapter before the head. Here it has none: the target's own norm and head follow, as in
LayerSkip.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ..block import HIDDEN
from ..call import Call
from ..draft import ONE_SLOT, Accepted, Draft, Verified
from ..draft_chain import draft_chain
from ..engine import Engine, narrowest
from ..errors import RecipeError
from ..lengths import LengthPolicy
from ..sequence import Sequence
from . import Drafter, Drafting, Proposal


class SharedExit(Drafter):
    """A drafter of chains by the shallow half of the target, whose deep half verifies them.

    Each token of a draft, the last one too, runs once in the shallow half. Its row of the first layers stays if the
    token is accepted.
    """

    takes_length = True

    def __init__(self, shallow: Engine, sample: bool = False, keep_logits: bool = False, **others: Any) -> None:
        """Keep the engines and the parameters.

        Args:
            shallow: the target's first layers on one slot, with the target's norm and head. It returns the hidden
                states after the last of these layers.
            sample: sample the drafted tokens if the request samples.
            keep_logits: keep the logits of each slot in the draft, for a rule that asks for them.
            **others: the engines `deep_0`, `deep_1` and so on, the target's other layers on chains of several widths;
                and the parameters of `LengthPolicy`.

        Raises:
            RecipeError: there is no deep half, or one that begins elsewhere than the shallow half ends.
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
        states: list[np.ndarray] = []
        draft = yield from _recorded(
            draft_chain(
                drafter.shallow,
                seq,
                seq.cache,
                room=room,
                length=self.length,
                sample=drafter.sample,
                keep_logits=drafter.keep_logits,
            ),
            drafter.states,
            states,
        )
        if not states:  # There was room for no draft, so the whole target runs the pending token.
            return draft
        if len(states) < len(draft.tokens):
            outputs = yield Call(drafter.shallow, seq.cache, len(states), draft.tokens[-1:], ONE_SLOT)
            states.append(outputs.hidden[drafter.states][0].copy())
        return draft._replace(by=narrowest(drafter.deep, draft.tree), inputs={HIDDEN: np.stack(states)})

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        self.length.observe(len(draft.tokens) - 1, len(accepted.slots) - 1)


def _recorded(calls: Proposal, name: str, states: list[np.ndarray]) -> Proposal:
    """Yield the calls of a generator, keep the hidden states of their outputs, and return what it returns.

    Args:
        calls: yields calls of an engine of one slot.
        name: the hidden states among the outputs.
        states: gets those of each call, [size].
    """
    try:
        call = next(calls)
        while True:
            outputs = yield call
            states.append(outputs.hidden[name][0].copy())
            call = calls.send(outputs)
    except StopIteration as end:
        draft: Draft = end.value
        return draft
