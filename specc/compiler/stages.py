"""The stages of a compile, counted for whoever shows its progress."""

from __future__ import annotations

from collections.abc import Callable


class Stages:
    """A counter of stages. It calls `report` with a title, the stages done, and the stages in all."""

    def __init__(self, report: Callable[[str, int, int], None], total: int) -> None:
        self.report = report
        self.done, self.total = 0, total

    def begin(self, title: str) -> None:
        """Report that a stage begins. Those before it are done."""
        self.report(title, self.done, self.total)
        self.done += 1

    def expect(self, count: int) -> None:
        """Correct the total: `count` stages are left."""
        self.total = self.done + count

    def note(self, title: str) -> None:
        """Report a step that is not counted, because their number is not known here."""
        self.report(title, self.done, self.done)
