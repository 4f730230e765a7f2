"""SWIFT's search for layers while it decodes (Xia et al. 2025, arXiv:2410.06916): several drafts, of which one serves.

N  tokens of the context on which drafts are compared
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from ..call import Call, Growth
from ..draft import Accepted, Draft, Outputs, Verified
from ..engine import Engine
from ..errors import RecipeError
from ..sequence import Sequence
from . import Proposal, check_counts, check_probability
from .comb import Comb, CombDrafting, Siblings

NEWEST = 0.5  # matchness = NEWEST * that of the newest comparison + (1 - NEWEST) * matchness before
FALL = 0.2  # how far the share of accepted tokens may fall before the search goes on
SMOOTH = 0.9  # share = SMOOTH * share before + (1 - SMOOTH) * that of the last step


class LayerSets(Comb):
    """A drafter of combs with several drafts, each of which leaves out other layers of the target.

    It compares drafts on the last N generated tokens: a draft's matchness is the share of them that it would have
    chosen. After each N tokens it compares the draft that serves with the next one. The better one serves from then on.
    The search ends when the draft that serves matches well enough, or after several comparisons that changed nothing.
    It goes on when drafts are accepted clearly less often than when it ended. All requests share what it learnt.

    Attributes:
        matchness: that of each draft, smoothed; None before the first comparison.
        best: the draft that serves.
        unchanged: comparisons since another draft served first.
        share: the share of drafted tokens of the chain that are accepted, smoothed over the steps.
        share_at_end: that share when the search ended; None while it goes on.
    """

    def __init__(
        self,
        siblings: Siblings,
        num_speculative_tokens: int = 31,
        max_depth: int = 8,
        assistant_confidence_threshold: float = 0.0,
        target_matchness: float = 0.95,
        patience: int = 8,
        **engines: Engine,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            siblings: as in `Comb`.
            num_speculative_tokens: as in `Comb`.
            max_depth: as in `Comb`.
            assistant_confidence_threshold: as in `Comb`.
            target_matchness: the matchness at which the search ends.
            patience: how many comparisons without a change end the search.
            **engines: `draft_0`, `draft_1`, … draft by one slot over the target's cache. `check_0`, `check_1`, … leave
                out the layers that these leave out, and run N slots as a Frontier of 2 N rows. One draft needs none.

        Raises:
            RecipeError: a parameter is out of range, or a draft has no engine for comparisons.
        """
        self.drafts, self.checks = (_numbered(engines, role) for role in ("draft", "check"))
        if not self.drafts or len(self.checks) != (len(self.drafts) if len(self.drafts) > 1 else 0):
            raise RecipeError(
                f"engines are {', '.join(engines)}; give draft_0, draft_1, … and as many check_0, check_1, …"
            )
        check_probability(target_matchness=target_matchness)
        check_counts(patience=patience)
        super().__init__(
            self.drafts[0],
            siblings,
            num_speculative_tokens=num_speculative_tokens,
            max_depth=max_depth,
            assistant_confidence_threshold=assistant_confidence_threshold,
        )
        self.target_matchness, self.patience = target_matchness, patience
        self.matchness: list[float | None] = [None] * len(self.drafts)
        self.best, self.unchanged, self._next = 0, 0, 0
        self.share = 1.0
        self.share_at_end: float | None = None if self.checks else 0.0

    @property
    def searches(self) -> bool:
        """Tell whether the search goes on."""
        return self.share_at_end is None

    def open(self, seq: Sequence) -> LayerSetsDrafting:
        return LayerSetsDrafting(self, seq)

    def rival(self) -> int:
        """Return the draft to compare next with the one that serves: each other one in turn."""
        self._next = (self._next + 1) % len(self.drafts)
        if self._next == self.best:
            self._next = (self._next + 1) % len(self.drafts)
        return self._next

    def learn(self, shares: dict[int, float]) -> None:
        """Learn from a comparison.

        Args:
            shares: by draft, the share of the context's tokens that it would have chosen.
        """
        for number, share in shares.items():
            old = self.matchness[number]
            self.matchness[number] = share if old is None else (1 - NEWEST) * old + NEWEST * share
        measured = {number: m for number, m in enumerate(self.matchness) if m is not None}
        best = max(measured, key=lambda number: (measured[number], number == self.best))
        self.unchanged = 0 if best != self.best else self.unchanged + 1
        self.best, self.engine = best, self.drafts[best]
        if measured[best] > self.target_matchness or self.unchanged >= self.patience:
            self.share_at_end = self.share

    def count(self, drafted: int, accepted: int) -> None:
        """Learn from a step of the draft that serves: how many tokens its chain had, and how many were accepted."""
        self.share = SMOOTH * self.share + (1 - SMOOTH) * accepted / drafted
        if self.checks and self.share_at_end is not None and self.share < self.share_at_end - FALL:
            self.unchanged, self.share_at_end = 0, None


def _numbered(engines: dict[str, Engine], role: str) -> list[Engine]:
    """Return the engines `ROLE_0`, `ROLE_1` and so on, in their order."""
    names = [f"{role}_{number}" for number in range(len(engines))]
    return [engines[name] for name in names if name in engines]


class LayerSetsDrafting(CombDrafting):
    """The combs of one request, and the comparisons on its text.

    Attributes:
        compared: how many tokens the text had at the last comparison, or at the beginning.
    """

    drafter: LayerSets

    def __init__(self, drafter: LayerSets, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.compared = len(seq.tokens)

    def propose(self, room: int) -> Proposal:
        if self.drafter.searches:
            yield from self._compare()
        return (yield from super().propose(room))

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        depth = int(draft.tree.depth.max())
        if depth:
            agreed = sum(draft.tree.rank[slot] == 0 for slot in accepted.slots[1:])
            self.drafter.count(depth, agreed)

    def _compare(self) -> Generator[Call, Outputs, None]:
        """Compare the draft that serves with another one, if there are N generated tokens that none was compared on."""
        drafter, seq = self.drafter, self.seq
        window = drafter.checks[0].slots
        if len(seq.tokens) - self.compared < window or seq.cache.store.capacity < len(seq.tokens) + window:
            return
        self.compared = len(seq.tokens)
        shares = {}
        for number in (drafter.best, drafter.rival()):
            outputs = yield self._check(drafter.checks[number], window)
            shares[number] = float((np.asarray(outputs.ids_N) == seq.tokens[-window:]).mean())
        drafter.learn(shares)

    def _check(self, engine: Engine, window: int) -> Call:
        """Make the call in which a draft reads the last N tokens that have rows, as if they had none.

        The tokens run once more, in scratch rows behind their own. Each sees the scratch rows up to its own and not
        those N rows of the target, at the position that the token has in the text. So no row of the target changes.
        """
        visible = tuple(bytes(window) + b"\1" * (slot + 1) for slot in range(window))
        growth = Growth(tuple(range(window)), window, visible)
        return growth.call(engine, self.seq.cache, self.seq.tokens[-window - 1 : -1], committed=window)
