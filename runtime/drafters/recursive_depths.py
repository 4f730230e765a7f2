"""Drafts by a recursive model whose tokens exit after different loops, in one batch.

Relaxed Recursive Transformers (Bae et al. 2024, arXiv:2410.20672) run one block of layers in loops. A token that is
sure after a loop exits there. In continuous depth-wise batching, requests share a call of the block although they stand
at different loops. Here a call of the block runs one loop, and an input says which loop each slot runs. So the
scheduler can put the calls of several requests into one run.

K  loops
"""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Sequence as Items
from functools import cached_property
from typing import Any

import numpy as np

from ..block import LOOP
from ..call import Call
from ..draft import ONE_SLOT, Accepted, Draft, Outputs, Verified
from ..draft_chain import chaining
from ..draft_head import loop_caches
from ..engine import Engine
from ..errors import RecipeError
from ..lengths import LengthPolicy
from ..sequence import Sequence
from ..tree import Tree
from . import Drafter, Drafting, Proposal


def check_threshold(exit_threshold: float) -> None:
    """Check the probability from which on a token exits. Raises RecipeError.

    A probability may be rounded to 1, so that only a number above 1 lets no token exit early.
    """
    if type(exit_threshold) not in (int, float) or not 0 <= exit_threshold <= 2:
        raise RecipeError(f"exit_threshold is {exit_threshold!r}; give 0 to 1, or 2 to run all loops")


class RecursiveDepths(Drafter):
    """A drafter of chains by one loop of a recursive model, which a token runs as often as it needs.

    Each loop has a cache of its own. A token that exits has no rows of the later loops. If a token after it goes on to
    such a loop, one call of that loop first fills the rows that are missing, from the hidden states that the loop
    before left, and runs the token behind them. So each loop computes what the whole model would. How the
    paper fills such rows is not known here.
    """

    takes_length = True

    def __init__(
        self,
        draft: Engine,
        fill: Engine,
        prefill: Engine,
        exit_threshold: float = 0.6,
        sample: bool = False,
        keep_logits: bool = False,
        **length: Any,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: one loop on one slot.
            fill: one loop on a few slots, for tokens that exited before it.
            prefill: one loop on many slots, which reads the prompt.
            exit_threshold: a token exits after the first loop that gives its likeliest successor so much probability;
                0 to 2. With 0 all exit after the first loop, and above 1 none exits before the last one.
            sample: sample the drafted tokens if the request samples.
            keep_logits: keep the logits of each slot in the draft, for a rule that asks for them.
            **length: the parameters of `LengthPolicy`.

        Raises:
            RecipeError: the threshold is out of range, or an engine does not run one loop.
        """
        check_threshold(exit_threshold)
        engines = (draft, fill, prefill)
        if any(LOOP not in each.block.inputs for each in engines):
            raise RecipeError("the engines of the draft model run no loops; compile the bundle again")
        self.engines = sorted(engines, key=lambda engine: engine.slots)
        self.engine, self.threshold, self.sample, self.keep_logits = draft, exit_threshold, sample, keep_logits
        self.length = LengthPolicy(**length)

    @cached_property
    def caches(self) -> list[str]:
        """The caches of the loops, by name.

        Raises:
            RecipeError: the engines run different numbers of loops.
        """
        caches = loop_caches(self.engine)
        if any(loop_caches(each) != caches for each in self.engines):
            raise RecipeError("the engines of the draft model run different loops; compile the bundle again")
        return caches

    def open(self, seq: Sequence) -> RecursiveDepthsDrafting:
        return RecursiveDepthsDrafting(self, seq)


class RecursiveDepthsDrafting(Drafting[RecursiveDepths]):
    """The rows of all loops of one request's text.

    Attributes:
        counts: how many tokens exited after each loop.
    """

    def __init__(self, drafter: RecursiveDepths, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.length = drafter.length.open()
        self.counts = [0] * len(drafter.caches)

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        line = seq.tokens[:-1]
        for name in drafter.caches:  # A loop has rows of tokens alone that have run the loop before.
            cache = seq.caches[name]
            cache.sync(line)
            line = cache.tokens
        room = min(room, cache.store.capacity - len(seq.tokens) - 1)

        def make_call(slot: int, token: int, before: Outputs | None) -> Call:
            return Call(drafter.engine, seq.cache, slot, (token,), ONE_SLOT)

        steps = chaining(
            make_call, seq, room=room, length=self.length, sample=drafter.sample, keep_logits=drafter.keep_logits
        )
        tokens = seq.tokens[:-1]
        try:
            call = next(steps)
            while True:
                tokens.append(call.tokens[0])
                call = steps.send((yield from self._exit(tokens)))
        except StopIteration as end:
            draft: Draft = end.value
            return draft

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        self.length.observe(len(draft.tokens) - 1, len(accepted.slots) - 1)

    def _exit(self, tokens: Items[int]) -> Generator[Call, Outputs, Outputs]:
        """Yield the calls that run the last token of a text, loop by loop, and return the outputs where it exits."""
        last = len(self.drafter.caches) - 1
        for loop in range(last + 1):
            outputs = yield from self._run(loop, tokens)
            if loop == last or outputs.best_probability(0) >= self.drafter.threshold:
                break
        self.counts[loop] += 1
        return outputs

    def _run(self, loop: int, tokens: Items[int]) -> Generator[Call, Outputs, Outputs]:
        """Yield the calls that run one loop for all tokens of a text that have no row of it, and commit the rows.

        Args:
            loop: the number of the loop. The loop before it has rows of all tokens.
            tokens: the text.

        Returns:
            The outputs of the last token, as those of an engine of one slot.
        """
        drafter, caches = self.drafter, [self.seq.caches[name] for name in self.drafter.caches]
        cache, name = caches[loop], drafter.engine.block.model
        while (start := len(cache)) < len(tokens):
            left = len(tokens) - start
            engine = next((engine for engine in drafter.engines if engine.slots >= left), drafter.engines[-1])
            chunk = tokens[start : start + engine.slots]
            loop_NK = np.zeros((len(chunk), len(caches)), np.float32)
            loop_NK[:, loop] = 1
            inputs = {LOOP: loop_NK}
            if loop:
                inputs["state"] = caches[loop - 1].states[name][start : start + len(chunk)]
            outputs = yield Call(engine, cache, 0, chunk, Tree.chain(len(chunk)), inputs)
            cache.commit(chunk, range(len(chunk)), outputs)
        return outputs.only(0 if engine.block.last_row else len(chunk) - 1, len(chunk) - 1)
