"""Entropy Adaptive Decoding (Simonds 2025, arXiv:2502.06833): two models take turns, by how uncertain they are. Lossy.

V  vocabulary
"""

from __future__ import annotations

from collections import deque

import numpy as np

from ..draft import Accepted, Draft, Outputs, Verified
from ..engine import Engine
from ..errors import RecipeError
from ..lengths import Length, Schedule, Stop
from ..sequence import Sequence
from . import Proposal, check_counts
from .draft_model import DraftModel, DraftModelDrafting

MOST_ENTROPY = 100.0  # bits; no vocabulary has so much


class EntropyAdaptive(DraftModel):
    """A drafter that drafts by the small model while the text is easy, and drafts nothing while it is hard.

    It is meant for the rule `trust`. The active model's entropy, as a mean over the last tokens, decides which model is
    active next. A draft is the small model's run of tokens. Its last token stands in `Draft.logits`, so that the text
    goes on with the small model's own token where it is still active.

    The paper runs the large model on skipped tokens when it becomes active again. Here the target runs once for each
    draft, so a long run of the small model costs a call of the target for every `num_speculative_tokens` + 1 tokens.
    """

    takes_length = False  # Its own rule says how long a draft is.

    def __init__(
        self,
        draft: Engine,
        prefill: Engine,
        sample: bool = False,
        num_speculative_tokens: int = 7,
        entropy_threshold: float = 1.0,
        entropy_window: int = 5,
        least_tokens: int = 1,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: the small model on one slot.
            prefill: the small model on many slots, which fills its cache with the prompt.
            sample: sample the drafted tokens if the request samples.
            num_speculative_tokens: drafted tokens a step at most.
            entropy_threshold: the mean entropy, in bits, from which on the large model is active. 0 is plain decoding.
            entropy_window: how many last tokens the mean is over.
            least_tokens: how many tokens a model gives at least before the other one takes over.

        Raises:
            RecipeError: a parameter is out of range.
        """
        super().__init__(draft, prefill, sample, keep_logits=True, num_speculative_tokens=num_speculative_tokens)
        check_counts(entropy_window=entropy_window, least_tokens=least_tokens)
        check_entropy(entropy_threshold)
        self.threshold, self.window, self.least = entropy_threshold, entropy_window, least_tokens

    def open(self, seq: Sequence) -> EntropyAdaptiveDrafting:
        return EntropyAdaptiveDrafting(self, seq)


def check_entropy(entropy_threshold: float) -> None:
    """Check the threshold, which a manifest or a user gives. Raises RecipeError for what is not a number of bits."""
    if type(entropy_threshold) not in (int, float) or not 0 <= entropy_threshold <= MOST_ENTROPY:
        raise RecipeError(f"entropy_threshold is {entropy_threshold!r}; give bits from 0 to {MOST_ENTROPY:g}")


class ModelSwitch(Stop):
    """A choice between two models by the mean entropy of the last tokens. It ends a draft when it leaves the small one.

    Attributes:
        large: whether the large model is active.
    """

    def __init__(self, threshold: float, window: int, least: int) -> None:
        """Begin with no entropies, whose mean counts as 0. See `EntropyAdaptive` for the arguments."""
        self.threshold, self.least = threshold, least
        self.entropies: deque[float] = deque(maxlen=window)
        self.large, self.tokens = threshold <= 0, 0

    def record(self, logits_V: np.ndarray) -> None:
        """Count a token of the active model, which these logits gave, and choose the model for the next one."""
        self.entropies.append(entropy(logits_V))
        self.tokens += 1
        large = sum(self.entropies) / len(self.entropies) >= self.threshold
        if large != self.large and self.tokens >= self.least:
            self.large, self.tokens = large, 0

    def takes(self, outputs: Outputs) -> bool:
        assert outputs.logits_NV is not None
        self.record(outputs.logits_NV[0])
        return True

    def goes_on(self, probability: float) -> bool:
        return not self.large


class EntropyAdaptiveDrafting(DraftModelDrafting):
    """The small model's rows of one request's text, and which model is active."""

    drafter: EntropyAdaptive

    def __init__(self, drafter: EntropyAdaptive, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.switch = ModelSwitch(drafter.threshold, drafter.window, drafter.least)
        self.length = Length(Schedule(drafter.length.num_speculative_tokens), [self.switch])

    def propose(self, room: int) -> Proposal:
        if self.switch.large:
            return Draft.chain([self.seq.pending])
        draft = yield from super().propose(room)
        if self.switch.large:
            return draft._replace(logits={})  # The target chooses the next token.
        last = draft.tree.slots - 1
        self.switch.record(draft.logits[last])
        return draft._replace(logits={last: draft.logits[last]})

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        last = accepted.slots[-1]
        if last not in draft.logits:
            assert verified.outputs.logits_NV is not None
            self.switch.record(verified.outputs.logits_NV[last])


def entropy(logits_V: np.ndarray) -> float:
    """Return the entropy of the softmax of logits, in bits."""
    weights_V = np.exp(logits_V.astype(np.float64) - logits_V.max())
    probs = weights_V[weights_V > 0] / weights_V.sum()
    return max(0.0, float(-(probs * np.log2(probs)).sum()))
