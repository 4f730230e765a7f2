"""What drafter, engine and acceptance rule hand to each other.

N  slots      V  vocabulary      K  ranks of a top-k
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from .block import KEPT
from .draws import DrawnProbs, Draws
from .rng import Rng, Use
from .sampling import NEAR, Sampling
from .tree import Tree

if TYPE_CHECKING:
    from .call import Call
    from .engine import Engine

ONE_SLOT = Tree.chain(1)
NONE: Mapping[int, np.ndarray] = MappingProxyType({})  # Of a draft that has no probs, or no logits.
NO_INPUTS: Mapping[str, np.ndarray] = MappingProxyType({})  # Of a draft whose engine reads tokens alone.
STATES = "state_"  # What the names of outputs begin with that trained heads read.


class Draft(NamedTuple):
    """Tokens in the slots of a tree, for the target to verify.

    Attributes:
        tokens: one token a slot; `tokens[0]` is the pending token.
        tree: where the slots stand.
        probs: by slot, the distribution [V] that its children were drawn from; empty if the drafter did not sample.
        logits: by slot, the logits [V] of the drafter's model for the token after it, or those of one of its models
            less those of another; empty if no rule asked for them.
        by: the engine of the target that verifies the draft; None is the narrowest one of the recipe that it fits.
        meanwhile: yields calls of the drafter's engines that may run while the target verifies the draft.
        values: by slot, the chance that the slot is accepted, as the drafter sees it; empty if it does not say.
        inputs: what the engine `by` reads in each slot besides a token, a row for each slot, by the name of the input.
    """

    tokens: tuple[int, ...]
    tree: Tree
    probs: Mapping[int, np.ndarray] = NONE
    logits: Mapping[int, np.ndarray] = NONE
    by: Engine | None = None
    meanwhile: Generator[Call, Outputs, None] | None = None
    values: tuple[float, ...] = ()
    inputs: Mapping[str, np.ndarray] = NO_INPUTS

    @classmethod
    def chain(
        cls,
        tokens: Sequence[int],
        probs: Mapping[int, np.ndarray] | None = None,
        logits: Mapping[int, np.ndarray] | None = None,
        values: Sequence[float] = (),
    ) -> Draft:
        """Make a draft without branches: the pending token, and the tokens that may follow it."""
        chances = tuple(values) if values else ()
        return cls(tuple(tokens), Tree.chain(len(tokens)), probs or NONE, logits or NONE, values=chances)

    def probability(self, slot: int, token: int) -> float:
        """Return the probability with which a child of a slot was drawn as the token that it has."""
        if isinstance(self.probs, DrawnProbs):
            return self.probs.probability(slot, token)
        return float(self.probs[slot][token])

    def only(self, slots: Sequence[int]) -> Draft:
        """Return the draft of some of the slots, in ascending order. The parent of each must be among them."""
        place = {slot: i for i, slot in enumerate(slots)}
        parents = tuple([place.get(self.tree.parents[slot], -1) for slot in slots])
        chain = Tree.chain(len(slots))
        return self._replace(
            tokens=tuple([self.tokens[slot] for slot in slots]),
            tree=chain if parents == chain.parents else Tree(parents),
            probs={place[slot]: self.probs[slot] for slot in self.probs if slot in place},
            logits={place[slot]: logits_V for slot, logits_V in self.logits.items() if slot in place},
            values=tuple([self.values[slot] for slot in slots]) if self.values else (),
            inputs={name: rows[list(slots)] for name, rows in self.inputs.items()},
        )


@dataclass(frozen=True)
class Outputs:
    """The outputs of an engine, as views that its next run overwrites. Each is there only if the block returns it.

    Attributes:
        ids_N: int64, the argmax of `logits_NV`.
        logits_NV: float32.
        top_ids_NK: int64, the likeliest tokens after each slot, likeliest first.
        top_logprobs_NK: float32, their log-probabilities.
        hidden: hidden states by the name of the output, each [N, size].
        states: what trained heads read of each row, by the name of the head, each [N, size]. They have all rows of the
            run, also if the other outputs have one row.
        next_state_NS: what a recurrent head reads in the slot after each, float32.
        kept_slots: int64, the slots of the draft's tokens that the engine kept, ascending; None if it keeps all. Row i
            of the other outputs belongs to `kept_slots[i]`.
    """

    ids_N: memoryview
    logits_NV: np.ndarray | None = None
    top_ids_NK: np.ndarray | None = None
    top_logprobs_NK: np.ndarray | None = None
    hidden: Mapping[str, np.ndarray] = field(default_factory=dict)
    states: Mapping[str, np.ndarray] = field(default_factory=dict)
    next_state_NS: np.ndarray | None = None
    kept_slots: np.ndarray | None = None

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Outputs:
        """Return the outputs that an engine's arrays hold, as views. Other arrays are left out.

        Args:
            arrays: the arrays by the names of the block's outputs, each without its first dimension, the batch of one.
        """
        hidden = {name: array for name, array in arrays.items() if name.startswith("hidden")}
        states = {name.removeprefix(STATES): array for name, array in arrays.items() if name.startswith(STATES)}
        ids: np.ndarray = arrays.get("ids", np.empty(0, np.int64))
        logits_NV, top_ids_NK, top_logprobs_NK, next_state_NS, kept_slots = (
            arrays.get(name) for name in ("logits", "top_ids", "top_logprobs", "next_state", KEPT)
        )
        return cls(ids.data, logits_NV, top_ids_NK, top_logprobs_NK, hidden, states, next_state_NS, kept_slots)

    def copy(self) -> Outputs:
        """Return outputs that no later run overwrites."""
        arrays = (self.logits_NV, self.top_ids_NK, self.top_logprobs_NK, self.next_state_NS, self.kept_slots)
        logits_NV, top_ids_NK, top_logprobs_NK, next_state_NS, kept_slots = (
            a if a is None else a.copy() for a in arrays
        )
        hidden, states = ({n: a.copy() for n, a in arrays.items()} for arrays in (self.hidden, self.states))
        ids_N = np.array(self.ids_N).data
        return Outputs(ids_N, logits_NV, top_ids_NK, top_logprobs_NK, hidden, states, next_state_NS, kept_slots)

    def kept_of(self, draft: Draft) -> Draft:
        """Return a draft without the slots that the engine dropped, so that row i of the outputs is that of slot i."""
        if self.kept_slots is None:
            return draft
        return draft.only([slot for slot in self.kept_slots.tolist() if slot < draft.tree.slots])

    def only(self, row: int, slot: int | None = None) -> Outputs:
        """Return the outputs of one row, as those of an engine of one slot.

        Args:
            row: the row of ids, logits and hidden states.
            slot: the row of states, if the engine returns those of all slots and the rest of one; None is `row`.
        """
        one = slice(row, row + 1)
        own = one if slot is None else slice(slot, slot + 1)
        return Outputs(
            self.ids_N[one],
            None if self.logits_NV is None else self.logits_NV[one],
            None if self.top_ids_NK is None else self.top_ids_NK[one],
            None if self.top_logprobs_NK is None else self.top_logprobs_NK[one],
            {name: array[one] for name, array in self.hidden.items()},
            {name: array[own] for name, array in self.states.items()},
            None if self.next_state_NS is None else self.next_state_NS[own],
        )

    def ranked(self) -> tuple[int, memoryview, memoryview]:
        """Return K, `top_ids_NK` and `top_logprobs_NK`. A memoryview is faster than numpy for single numbers."""
        assert self.top_ids_NK is not None and self.top_logprobs_NK is not None
        return self.top_ids_NK.shape[1], self.top_ids_NK.data, self.top_logprobs_NK.data

    def best_probability(self, row: int) -> float:
        """Return the probability of the likeliest token after a row."""
        assert self.top_logprobs_NK is not None
        return exp(self.top_logprobs_NK.item(row, 0))

    def top(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the K likeliest tokens after a row, likeliest first, and their probabilities."""
        assert self.top_ids_NK is not None and self.top_logprobs_NK is not None
        return self.top_ids_NK[row], np.exp(self.top_logprobs_NK[row])


class Processed(Protocol):
    """The logits of a draft's slots as the processors of a request leave them, computed when they are asked for."""

    def logits(self, slot: int) -> np.ndarray:
        """Return the logits of the token after a slot, [V] float32."""

    def likeliest(self, slot: int) -> int:
        """Return the argmax of these logits."""


class OtherLogits(NamedTuple):
    """Logits that stand in for the target's.

    Attributes:
        logits: returns those of the token after a slot, [V] float32.
    """

    logits: Callable[[int], np.ndarray]

    def likeliest(self, slot: int) -> int:
        """Return the argmax of these logits."""
        return int(self.logits(slot).argmax())


class Verified(NamedTuple):
    """The target's outputs for every slot of a draft, with the sampling parameters of the request.

    Attributes:
        outputs: the outputs.
        sampling: how the request chooses tokens.
        tree: where the slots stand.
        position: the index in the text of the token after slot 0.
        processed: the logits as the request's processors leave them; None without processors.
    """

    outputs: Outputs
    sampling: Sampling
    tree: Tree = ONE_SLOT
    position: int = 0
    processed: Processed | None = None

    def by(self, logits: Callable[[int], np.ndarray]) -> Verified:
        """Return what this would be if other logits decided.

        Args:
            logits: returns the logits of the token after a slot, [V] float32.
        """
        return self._replace(processed=OtherLogits(logits))

    def choose(self, slot: int) -> int:
        """Return the token that plain decoding would emit after `slot`: the argmax, or a sample."""
        if self.sampling.greedy:
            return int(self.outputs.ids_N[slot]) if self.processed is None else self.processed.likeliest(slot)
        return self.rng(slot, Use.TOKEN).pick(self.probs(slot))

    def rng(self, slot: int, use: Use) -> Rng:
        """Return the rng of a decision about the token after `slot`."""
        return self.sampling.rng.at(self.position + int(self.tree.depth[slot]), use)

    def logits(self, slot: int) -> np.ndarray:
        """Return the logits that plain decoding would choose by after `slot`: [V] float32, not to be changed.

        Processors run when they are asked for, so only for the slots that a rule looks at.
        """
        if self.processed is not None:
            return self.processed.logits(slot)
        assert self.outputs.logits_NV is not None
        row: np.ndarray = self.outputs.logits_NV[slot]
        return row

    def probs(self, slot: int) -> np.ndarray:
        """Return the distribution that plain decoding would sample from after `slot`: [V] float64."""
        return self.sampling.probs(self.logits(slot))

    def accepts(self, slot: int, token: int, q: float) -> bool:
        """Return True with probability min(1, p / q), where p is that of a token by `probs`.

        Args:
            slot: the slot after which the token stands.
            token: the token.
            q: the probability with which the draft chose it.
        """
        logits_V, rng = self.logits(slot), self.rng(slot, Use.ACCEPT)

        def exact() -> float:
            return min(1.0, float(self.sampling.probs(logits_V)[token]) / q)

        near = self.sampling.near_probability(logits_V, token)
        return rng.bernoulli(exact()) if near is None else rng.bernoulli_near(near / q, NEAR, exact)

    def draws(self, slot: int) -> Draws:
        """Return draws from the distribution after `slot`, for a drafter that guesses the next draft by this step."""
        rng = self.sampling.rng.at(self.position + slot, Use.DRAFT, slot)
        return self.sampling.draws(self.logits(slot), rng)


class Accepted(NamedTuple):
    """The decision of an acceptance rule.

    Attributes:
        slots: the slots to commit, a path of the draft's tree from slot 0.
        token: the token that the target chose after the last of them; the next pending token.
    """

    slots: tuple[int, ...]
    token: int
