"""Drafts that the target's own run makes: slots behind its tokens guess what comes (see `block.GuessTree`).

Parallel Prompt Decoding (Chen et al. 2024, arXiv:2405.18628) and its kin differ in what the slots begin with. The run
that verifies a draft has guesses behind its tokens. Those behind the last accepted token are the next draft.
"""

from __future__ import annotations

import re
from collections.abc import Sequence as Tokens

import numpy as np

from ..block import GuessTree
from ..draft import Accepted, Draft, Verified
from ..engine import Engine
from ..errors import RecipeError
from ..sequence import Sequence
from . import Drafter, Drafting, check_counts, check_probability


class GuessSlots(Drafter):
    """A drafter with an engine of the target for each number of guesses that a step may leave.

    A child of rank r at depth d gets the r-th likeliest token of guess d.
    """

    keeps_all_logits = False

    def __init__(
        self,
        assistant_confidence_threshold: float = 0.0,
        keep_logits: bool = False,
        longest_repeat: int = 0,
        **steps: Engine,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            assistant_confidence_threshold: a guess of less probability ends the draft before it.
            keep_logits: state the logits that each guess comes from.
            longest_repeat: a guess ends a draft before it if the last tokens, so many at most, would stand there twice
                in a row. 0 lets guesses repeat.
            **steps: `step_0`, `step_1` and so on: engines of the target that return `top_k`, for a draft made of so
                many guesses. The tokens and the guesses of each stand in a tree of its own.

        Raises:
            RecipeError: there is no such engine, or one has no slots for guesses; or the threshold is no probability.
        """
        check_probability(assistant_confidence_threshold=assistant_confidence_threshold)
        check_counts(least=0, longest_repeat=longest_repeat)
        self.threshold, self.keep_logits = assistant_confidence_threshold, keep_logits
        self.longest_repeat = longest_repeat
        names = sorted(steps, key=lambda name: int(name.rpartition("_")[2]) if re.fullmatch(r"step_\d+", name) else -1)
        if not names or names != [f"step_{number}" for number in range(len(names))]:
            raise RecipeError(f"the engines are {', '.join(names) or 'none'}; give step_0, step_1 and so on")
        self.steps: list[tuple[Engine, GuessTree]] = []
        for engine in (steps[name] for name in names):
            if not isinstance(engine.block.topology, GuessTree):
                raise RecipeError(f"engine {engine.name} has no slots for guesses; compile the bundle again")
            self.steps.append((engine, engine.block.topology))
        self.engine = self.steps[-1][0]

    def open(self, seq: Sequence) -> GuessSlotsDrafting:
        return GuessSlotsDrafting(self, seq)


class GuessSlotsDrafting(Drafting[GuessSlots]):
    """The guesses for the next tokens of one request.

    Attributes:
        guesses: for each place behind the pending token, the likeliest tokens, likeliest first.
        logits: for each of these places the logits [V], if a rule asks for them.
        length: how many tokens the text had when they were made. They are of no use to a longer text.
    """

    def __init__(self, drafter: GuessSlots, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.guesses: list[list[int]] = []
        self.logits: list[np.ndarray] = []
        self.length = len(seq.tokens)

    def draft(self, room: int) -> Draft:
        steps, seq = self.drafter.steps, self.seq
        guesses = self.guesses if self.length == len(seq.tokens) else []
        engine, topology = steps[min(len(guesses), len(steps) - 1)]
        tree, tokens = topology.token_tree, [seq.pending]
        for depth, rank in zip(tree.depth.tolist()[1:], tree.rank[1:], strict=True):
            tokens.append(guesses[depth - 1][rank])
        depths = enumerate(tree.depth.tolist()) if self.logits else ()
        logits = {slot: self.logits[depth] for slot, depth in depths if tree.children[slot]}
        return Draft(tuple(tokens), tree, logits=logits, by=engine)

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        self.guesses, self.logits, self.length = [], [], len(self.seq.tokens)
        outputs, drafter = verified.outputs, self.drafter
        top, logits_NV = outputs.top_ids_NK, outputs.logits_NV
        topology = next((engine.block.output_topology for engine, _ in drafter.steps if engine is draft.by), None)
        if not isinstance(topology, GuessTree) or top is None or len(top) != topology.slots:
            return  # A request whose steps all have one width runs another engine.
        text = self.seq.tokens[-2 * drafter.longest_repeat :] if drafter.longest_repeat else []
        for slot in topology.guesses[accepted.slots[-1]]:
            text = [*text, int(top[slot][0])]
            if outputs.best_probability(slot) < drafter.threshold or ends_twice(text, drafter.longest_repeat):
                break
            self.guesses.append(top[slot].tolist())
            if drafter.keep_logits and logits_NV is not None:
                self.logits.append(logits_NV[slot].copy())


def ends_twice(tokens: Tokens[int], longest: int) -> bool:
    """Tell whether a text ends with the same tokens twice in a row, of which there are `longest` at most."""
    counts = range(1, min(longest, len(tokens) // 2) + 1)
    return any(tokens[-count:] == tokens[-2 * count : -count] for count in counts)
