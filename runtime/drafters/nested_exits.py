"""S2D: one draft model with several exits, and each token takes the first exit that is sure (arXiv:2407.01955)."""

from __future__ import annotations

import re
from collections.abc import Generator

from ..call import Call
from ..draft import Draft, Outputs
from ..draws import DrawnProbs, Draws
from ..engine import Engine, extending
from ..errors import RecipeError
from ..rng import Use
from ..sequence import Sequence
from ..tree import Tree
from . import Drafter, Drafting, Proposal, check_counts, check_probability


class NestedExits(Drafter):
    """A drafter of chains by a draft model that can end after several layers.

    A token is drafted by the exit with fewest layers. If its probability is below a threshold, the next exit drafts it
    again. The rows of an exit's layers are those of the deeper exits too. A deeper exit runs, in one call, the drafted
    tokens that its further layers have not seen.

    The first token of a draft comes from the deepest exit: that call also computes the rows of the tokens that were
    committed since, of which shallow exits left a part only.
    """

    def __init__(
        self,
        prefill: Engine,
        num_speculative_tokens: int = 4,
        exit_threshold: float = 0.6,
        sample: bool = False,
        **exits: Engine,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            prefill: the draft model on many slots, which fills its cache with the prompt.
            num_speculative_tokens: drafted tokens a step.
            exit_threshold: a token with less probability is drafted again by the next exit.
            sample: sample the drafted tokens if the request samples.
            **exits: the draft model with its first layers, in the order of their names: fewest layers first. The first
                one has one slot, and the others have `num_speculative_tokens` + 1. The last one may have all layers.

        Raises:
            RecipeError: a parameter is out of range, or there is no exit.
        """
        check_counts(num_speculative_tokens=num_speculative_tokens)
        check_probability(exit_threshold=exit_threshold)
        self.prefill, self.count, self.threshold, self.sample = prefill, num_speculative_tokens, exit_threshold, sample
        for name in exits:
            if not re.fullmatch(r"exit_\d", name):
                raise TypeError(f"unexpected argument {name!r}")
        if not exits:
            raise RecipeError("the recipe has no exits; compile the bundle again")
        self.exits = [engine for _, engine in sorted(exits.items())]
        self.engine = self.exits[-1]

    def open(self, seq: Sequence) -> NestedExitsDrafting:
        return NestedExitsDrafting(self, seq)


class NestedExitsDrafting(Drafting[NestedExits]):
    """The draft model's rows of one request's text.

    Attributes:
        counts: how many drafted tokens each exit gave.
    """

    def __init__(self, drafter: NestedExits, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.counts = [0] * len(drafter.exits)

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        cache = seq.caches[drafter.engine.block.cache]
        deepest = len(drafter.exits) - 1
        feed = [*cache.sync(seq.tokens[:-1]), seq.pending]
        if len(feed) > drafter.engine.slots:
            yield from extending(drafter.prefill, cache, feed[:-1])
            feed = feed[-1:]
        outputs, row = yield from extending(drafter.engine, cache, feed)  # The pending token has a whole row now.
        tokens = [seq.pending]
        draws: dict[int, Draws] = {}
        rows = [0] * (deepest + 1)  # By exit, how many drafted tokens have rows of its layers.
        most = min(drafter.count, room, cache.store.capacity - len(seq.tokens) - 1)
        level = deepest
        while len(tokens) <= most:
            slot = len(tokens) - 1
            if slot:
                level, outputs, row = yield from self._run(tokens, rows)
            self.counts[level] += 1
            if drafter.sample and not seq.sampling.greedy:
                assert outputs.logits_NV is not None
                rng = seq.sampling.rng.at(len(seq.tokens) + slot, Use.DRAFT)
                draws[slot] = seq.sampling.draws(outputs.logits_NV[row], rng)
                tokens.append(draws[slot].pick())
            else:
                tokens.append(int(outputs.ids_N[row]))
        return Draft.chain(tokens, DrawnProbs(draws))

    def _run(self, tokens: list[int], rows: list[int]) -> Generator[Call, Outputs, tuple[int, Outputs, int]]:
        """Yield the calls for the token after a draft, exit by exit, until one is sure.

        Args:
            tokens: the pending token, which has a row, and those that were drafted after it.
            rows: by exit, how many drafted tokens have rows of its layers; updated.

        Returns:
            The exit, its outputs, and the last token's row in them.
        """
        drafter, cache, drafted = self.drafter, self.seq.caches[self.drafter.engine.block.cache], tokens[1:]
        for level, engine in enumerate(drafter.exits):
            chunk = drafted[rows[level] :]
            outputs = yield Call(engine, cache, rows[level], chunk, Tree.chain(len(chunk)))
            rows[: level + 1] = [len(drafted)] * (level + 1)
            if outputs.top(len(chunk) - 1)[1][0] >= drafter.threshold:
                break
        return level, outputs, len(chunk) - 1
