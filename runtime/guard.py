"""Speculation while it pays: a drafter that wraps another, and watches what its drafts earn.

A step with a draft must be worth its time: its tokens against what as many steps without a draft take here. What share
of them is lost is summed up, what they earn is taken off it, down to nothing: a cumulative sum (Page 1954), which lets
a good drafter have bad luck and finds a bad one out. Past a limit drafts are cut short for a while; where that does not
help, they stop for a while, longer each time.
"""

from __future__ import annotations

import time
from collections import deque
from statistics import median
from typing import Self

from .draft import Accepted, Draft, Verified
from .drafters import Drafter
from .drafters.plain import Plain
from .sequence import Sequence

FULL, SHORT, OFF = range(3)
SHORT_SLOTS = 4  # of a chain that is cut
LIMIT, AGAIN = 6.0, 1.5  # steps with a draft that may be lost, and that may be once drafts were cut or stopped
TIMED = 8  # steps without a draft whose median is what one takes
REST, LONGEST_REST = 16, 512  # steps with short drafts or none after they did not pay
REFRESH = 64  # steps with drafts after which one without is timed again


class Guard:
    """One for a recipe and a session: what it learns in one request holds in the next.

    level: FULL, SHORT or OFF. Of the request: switches, how often it changed; plain_steps, steps without a draft.
    """

    def __init__(self, drafter: Drafter) -> None:
        self.drafter, self.plain = drafter, Plain()
        self.level, self.switches, self.plain_steps = FULL, 0, 0
        self._plain: deque[float] = deque(maxlen=TIMED)  # seconds of a step without a draft
        self._usual = 0.0  # their median
        self._lost, self._kept = 0.0, 0  # since the level changed: steps with a draft lost, drafted tokens kept
        self._rest, self._left, self._since = REST, 0, 0
        self._start, self._guessing = 0.0, True

    def begin(self) -> Self:
        """A new request."""
        self.switches = self.plain_steps = 0
        return self

    def propose(self, seq: Sequence) -> Draft:
        self._start = time.perf_counter()
        self._guessing = self.level != OFF and len(self._plain) >= 2 and self._since < REFRESH
        if not self._guessing:
            return self.plain.propose(seq)
        draft = self.drafter.propose(seq)
        if self.level == SHORT and draft.tree.is_chain and draft.tree.slots > SHORT_SLOTS:
            kept = {slot: probs for slot, probs in draft.probs.items() if slot < SHORT_SLOTS - 1}
            draft = Draft.chain(draft.tokens[:SHORT_SLOTS], kept)
        return draft

    def observe(self, seq: Sequence, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        if self._guessing:
            self.drafter.observe(seq, draft, verified, accepted)
        seconds = time.perf_counter() - self._start
        if draft.tree.slots > 1:
            self._since += 1
            self._judge(seconds, len(accepted.slots))
        else:
            self._plain.append(seconds)
            self._usual = median(self._plain)
            self._since = 0
            self.plain_steps += not self._guessing
        if self.level != FULL:
            self._left -= 1
            if self._left <= 0:
                self._switch(FULL)

    def _judge(self, seconds: float, tokens: int) -> None:
        self._kept += tokens - 1
        self._lost = max(0.0, self._lost + 1 - tokens * self._usual / seconds)
        if self._lost > LIMIT:
            self._switch(SHORT if self.level == FULL and self._kept else OFF)
        elif self.level == FULL and not self._lost:
            self._rest = REST

    def _switch(self, level: int) -> None:
        self.level, self.switches = level, self.switches + 1
        self._lost, self._kept = LIMIT - AGAIN, 0
        if level != FULL:
            self._left, self._rest = self._rest, min(2 * self._rest, LONGEST_REST)
