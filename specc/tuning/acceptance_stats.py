"""What a recipe's steps come to on some prompts, in turns with plain decoding."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from specc.runtime.acceptance import Acceptance
from specc.runtime.draft import Accepted, Draft, Verified
from specc.runtime.recipe import Recipe, load_acceptance
from specc.runtime.session import Session
from specc.runtime.stats import Stats

OFTEN = 20  # calls after which an engine's mean tells
WARM = 8  # tokens that warm a recipe up
SHARE = 2  # tokens to one that is decoded plainly beside them


@dataclass(frozen=True)
class Step:
    """One step: slots below the pending token, those kept and asked for, calls of each draft engine.

    ranks: for each slot of the kept path, the rank of the child that was right, None where none was, and how many
    children there were.
    """

    drafted: int
    accepted: int
    draft_calls: Mapping[str, float]
    ranks: tuple[tuple[int | None, int], ...]


@dataclass(frozen=True)
class Calibration:
    """Times are in tokens of plain decoding, which took turns with these steps: hosts drift.

    costs: a call of each engine that ran often enough to tell. outside: what a step spent in no engine.
    """

    steps: Sequence[Step]
    costs: Mapping[str, float]
    outside: float


def calibrate(
    session: Session, feeds: Sequence[list[int]], tokens: int, recipes: Sequence[Recipe],
    advance: Callable[[int], None] = lambda done: None,
) -> dict[str, Calibration]:  # fmt: skip
    """Decode `tokens` after each of `feeds` by each of the recipes in turn, and some plainly before each.

    Every recipe's runs lie scattered over the whole time: what a neighbour on the host does lasts seconds.
    advance: told how many of the feeds are done.
    """
    tracks = [_Track(session, recipe) for recipe in recipes]
    for track in tracks:
        track.run(feeds[0], WARM, track.recipe.name)
    for done, feed in enumerate(feeds, 1):
        for track in tracks:
            track.follow(feed, tokens)
        advance(done)
    return {track.recipe.name: track.calibration() for track in tracks}


class _Track:
    """What one recipe comes to."""

    def __init__(self, session: Session, recipe: Recipe) -> None:
        self.session, self.recipe = session, recipe
        self.engines = [session.engines[name] for name in {*recipe.verify, *recipe.engines.values()}]
        self.costs: dict[str, list[float]] = {e.name: [] for e in self.engines}
        self.outside: list[float] = []
        self.steps: list[Step] = []
        self.rule = _watched(load_acceptance(recipe.acceptance), self.steps)

    def run(self, feed: list[int], count: int, name: str, rule: Acceptance | None = None) -> Stats:
        return self.session.generate(feed, count, recipe=name, acceptance=rule, ignore_eos=True, guard=False).stats

    def follow(self, feed: list[int], tokens: int) -> None:
        plain = self.run(feed, max(WARM, tokens // SHARE), "plain")
        token = plain.seconds / (plain.new_tokens - 1)  # prefill gave the first
        before, first = [(e.calls, e.seconds) for e in self.engines], len(self.steps)
        ran = self.run(feed, tokens, self.recipe.name, self.rule)
        for e, (calls, seconds) in zip(self.engines, before, strict=True):
            if e.calls > calls:
                self.costs[e.name] += [(e.seconds - seconds) / (e.calls - calls) / token] * (e.calls - calls)
        mine = self.steps[first:]
        self.outside.append((ran.seconds - ran.engine_seconds) / len(mine) / token)
        drafts = max(1, sum(s.drafted > 0 for s in mine))
        called = {e.name: (e.calls - calls) / drafts for e, (calls, _) in zip(self.engines, before, strict=True)}
        a_draft = {name: called[name] for name in self.recipe.engines.values()}
        self.steps[first:] = [replace(s, draft_calls=a_draft if s.drafted else {}) for s in mine]
        beyond = sum(1 + s.accepted for s in mine) - (ran.new_tokens - 1)
        self.steps[-1] = replace(self.steps[-1], accepted=self.steps[-1].accepted - beyond)

    def calibration(self) -> Calibration:
        often = {name: median(some) for name, some in self.costs.items() if len(some) > OFTEN}
        return Calibration(self.steps, often, median(self.outside))


def acceptance(steps: Iterable[Step]) -> dict[str, list[float]]:
    """by_depth: how often a token at depth 1, 2, … was right, given that those above it were; by_rank: the same of a
    child of rank 0, 1, …, where there was one."""
    depth: dict[int, list[bool]] = {}
    rank: dict[int, list[bool]] = {}
    for step in steps:
        for level, (hit, children) in enumerate(step.ranks):
            if children:
                depth.setdefault(level, []).append(hit is not None)
            for r in range(children):
                rank.setdefault(r, []).append(hit == r)
    return {
        "by_depth": [round(sum(depth[d]) / len(depth[d]), 3) for d in sorted(depth)],
        "by_rank": [round(sum(rank[r]) / len(rank[r]), 3) for r in sorted(rank)],
    }


def _watched(rule: Acceptance, steps: list[Step]) -> Acceptance:
    """The same rule, which notes what came of each draft."""

    @functools.wraps(rule)
    def watched(draft: Draft, verified: Verified) -> Accepted:
        accepted = rule(draft, verified)
        path = [*accepted.slots, None]
        ranks = tuple(
            (None if below is None else draft.tree.rank[below], len(draft.tree.children[slot]))
            for slot, below in zip(accepted.slots, path[1:], strict=True)
        )
        steps.append(Step(draft.tree.slots - 1, len(accepted.slots) - 1, {}, ranks))
        return accepted

    return watched
