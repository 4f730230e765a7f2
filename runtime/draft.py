"""What passes between drafter, engine and acceptance rule.

N  slots      V  vocabulary      K  ranks of a top-k
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .sampling import Sampling
from .tree import Tree


@dataclass(frozen=True)
class Draft:
    """Tokens in the slots of a tree; `tokens[0]` is the pending token.

    probabilities: where the drafter sampled, the distribution [V] that the children of a slot were drawn from, by slot.
    """

    tokens: tuple[int, ...]
    tree: Tree
    probs: Mapping[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def chain(cls, tokens: Sequence[int], probs: Mapping[int, np.ndarray] | None = None) -> Draft:
        """The pending token and what is guessed to follow it."""
        return cls(tuple(tokens), Tree.chain(len(tokens)), probs or {})


@dataclass(frozen=True)
class Outputs:
    """What an engine returned, in views that its next run overwrites. `ids_N` is the argmax of `logits_NV`."""

    ids_N: memoryview
    logits_NV: np.ndarray | None = None
    top_ids_NK: np.ndarray | None = None
    top_logprobs_NK: np.ndarray | None = None
    hidden: Mapping[str, np.ndarray] = field(default_factory=dict)

    def ranked(self) -> tuple[int, memoryview, memoryview]:
        """K, and [N, K] the likeliest tokens after each row and their log-probabilities, for single numbers."""
        assert self.top_ids_NK is not None and self.top_logprobs_NK is not None
        return self.top_ids_NK.shape[1], self.top_ids_NK.data, self.top_logprobs_NK.data

    def top(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest tokens after a row and their probabilities, likeliest first."""
        assert self.top_ids_NK is not None and self.top_logprobs_NK is not None
        return self.top_ids_NK[row], np.exp(self.top_logprobs_NK[row])


@dataclass(frozen=True)
class Verified:
    """The target's word on every slot, under the request's sampling."""

    outputs: Outputs
    sampling: Sampling

    def choose(self, slot: int) -> int:
        """The token that plain decoding would emit after `slot`: the argmax, or a sample."""
        if self.sampling.greedy:
            return int(self.outputs.ids_N[slot])
        return self.sampling.rng.pick(self.probs(slot))

    def probs(self, slot: int) -> np.ndarray:
        """[V] float64: the distribution that plain decoding would sample from after `slot`."""
        assert self.outputs.logits_NV is not None
        return self.sampling.probs(self.outputs.logits_NV[slot])


@dataclass(frozen=True)
class Accepted:
    """The slots to keep, a path from slot 0, and the token that the target chose after the last of them."""

    slots: tuple[int, ...]
    token: int
