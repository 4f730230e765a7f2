"""Measure how recipes draft on some prompts: what is accepted, and what the calls cost beside plain decoding."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from specc.runtime.acceptance import Acceptance
from specc.runtime.acceptance import rule as acceptance_rule
from specc.runtime.draft import Accepted, Draft, Verified
from specc.runtime.method import load_acceptance
from specc.runtime.recipe import Recipe
from specc.runtime.sampling_defaults import PLAIN_GREEDY
from specc.runtime.session import Session
from specc.runtime.stats import Stats
from specc.tuning.draft_replay import DraftRecord
from specc.tuning.policy import CALIBRATION, CalibrationPolicy


@dataclass(frozen=True)
class Step:
    """A record of one decoding step.

    Attributes:
        drafted: slots of the draft below the pending token.
        accepted: how many of them were accepted, of those that the request still needed.
        draft_calls: mean calls of each draft engine for a draft of this request; empty if the step drafted nothing.
        ranks: one pair for each slot of the accepted path. The first item is the rank of the child that was accepted,
            or None if none was. The second is the number of children.
        record: the draft, if its drafter said how likely each slot is; else None.
    """

    drafted: int
    accepted: int
    draft_calls: Mapping[str, float]
    ranks: tuple[tuple[int | None, int], ...]
    record: DraftRecord | None = None


@dataclass(frozen=True)
class Calibration:
    """A recipe's steps and costs. The unit of time is one token of plain decoding, since the speed of a host drifts.

    Attributes:
        steps: every step, in order.
        costs: the cost of one call, for each engine that was called often enough.
        outside: the time of a step that no engine call accounts for.
    """

    steps: Sequence[Step]
    costs: Mapping[str, float]
    outside: float


@dataclass(frozen=True, kw_only=True)
class AcceptanceRates:
    """The rates at which tokens of a recipe's drafts were accepted.

    Attributes:
        by_depth: for depth 1, 2, …: how often a token was right there, if all above it were.
        by_rank: for rank 0, 1, …: how often the child of this rank was right, if there was one.
    """

    by_depth: tuple[float, ...]
    by_rank: tuple[float, ...]


def calibrate(
    session: Session,
    prompts: Sequence[list[int]],
    tokens: int,
    recipes: Sequence[Recipe],
    advance: Callable[[int], None] = lambda done: None,
    policy: CalibrationPolicy = CALIBRATION,
) -> dict[str, Calibration]:
    """Run every recipe on every prompt, each time after some plain decoding.

    The recipes take turns on each prompt. So the runs of one recipe are spread over the whole time, and a disturbance
    of some seconds does not fall on one recipe alone.

    Args:
        session: the session that decodes.
        prompts: token ids of each prompt.
        tokens: how many tokens each answer has.
        recipes: the recipes to run, which are recipes of the session's bundle.
        advance: called with the number of prompts that are done.
        policy: how much is run to warm up and to compare.

    Returns:
        A calibration for each recipe, by name.
    """
    recorders = [_Recorder(session, recipe, policy) for recipe in recipes]
    for recorder in recorders:
        recorder.generate(prompts[0], policy.warm_up_tokens, recorder.recipe.name)
    for done, prompt in enumerate(prompts, 1):
        for recorder in recorders:
            recorder.run(prompt, tokens)
        advance(done)
    return {recorder.recipe.name: recorder.calibration() for recorder in recorders}


def acceptance_rates(steps: Iterable[Step]) -> AcceptanceRates:
    """Compute how often drafted tokens were accepted, by depth and by rank, to three decimals."""
    by_depth: dict[int, list[bool]] = {}
    by_rank: dict[int, list[bool]] = {}
    for step in steps:
        for level, (hit, children) in enumerate(step.ranks):
            if children:
                by_depth.setdefault(level, []).append(hit is not None)
            for rank in range(children):
                by_rank.setdefault(rank, []).append(hit == rank)
    return AcceptanceRates(by_depth=_shares(by_depth), by_rank=_shares(by_rank))


def _shares(outcomes: Mapping[int, Sequence[bool]]) -> tuple[float, ...]:
    """Return the share of hits for each key, in the order of the keys."""
    return tuple(round(sum(outcomes[key]) / len(outcomes[key]), 3) for key in sorted(outcomes))


class _Recorder:
    """A recipe under measurement, with what its runs showed until now."""

    def __init__(self, session: Session, recipe: Recipe, policy: CalibrationPolicy) -> None:
        self.session, self.recipe, self.policy = session, recipe, policy
        self.engines = [session.engines[name] for name in {*recipe.verify, *recipe.engines.values()}]
        self.costs: dict[str, list[float]] = {engine.name: [] for engine in self.engines}
        self.outside: list[float] = []
        self.steps: list[Step] = []
        self.rule = _recording(load_acceptance(recipe.acceptance), self.steps)

    def generate(self, prompt: list[int], count: int, recipe: str, rule: Acceptance | None = None) -> Stats:
        """Decode `count` tokens without the guard, and return the statistics."""
        return self.session.generate(
            prompt, count, recipe=recipe, acceptance=rule, **PLAIN_GREEDY, ignore_eos=True, guard=False
        ).stats

    def run(self, prompt: list[int], tokens: int) -> None:
        """Decode plainly, then by the recipe, and record the steps and the costs."""
        policy = self.policy
        plain = self.generate(prompt, max(policy.warm_up_tokens, tokens // policy.tokens_per_plain_token), "plain")
        plain_token = plain.seconds / (plain.new_tokens - 1)  # Prefill gave the first token.
        before = {engine.name: (engine.calls, engine.seconds) for engine in self.engines}
        first = len(self.steps)
        stats = self.generate(prompt, tokens, self.recipe.name, self.rule)
        calls = {engine.name: engine.calls - before[engine.name][0] for engine in self.engines}
        for engine in self.engines:
            count = calls[engine.name]
            if count:
                cost = (engine.seconds - before[engine.name][1]) / count / plain_token
                self.costs[engine.name] += [cost] * count
        steps = self.steps[first:]
        self.outside.append((stats.seconds - stats.engine_seconds) / len(steps) / plain_token)
        self.steps[first:] = self._with_draft_calls(steps, calls, stats.new_tokens - 1)

    def _with_draft_calls(self, steps: Sequence[Step], calls: Mapping[str, int], tokens: int) -> list[Step]:
        """Complete the steps of one run.

        Args:
            steps: the steps as the acceptance rule recorded them.
            calls: how often each engine was called in the run.
            tokens: how many tokens the steps gave. The last step may have accepted more than the request needed.
        """
        drafts = max(1, sum(step.drafted > 0 for step in steps))
        per_draft = {name: calls[name] / drafts for name in self.recipe.engines.values()}
        *complete, last = [replace(step, draft_calls=per_draft if step.drafted else {}) for step in steps]
        surplus = sum(1 + step.accepted for step in steps) - tokens
        return [*complete, replace(last, accepted=last.accepted - surplus)]

    def calibration(self) -> Calibration:
        """Summarise all runs."""
        costs = {name: median(each) for name, each in self.costs.items() if len(each) > self.policy.least_calls}
        return Calibration(self.steps, costs, median(self.outside))


def _recording(rule: Acceptance, steps: list[Step]) -> Acceptance:
    """Wrap an acceptance rule so that it appends a step to `steps` for each draft that it judges."""

    @acceptance_rule(needs_draft_probs=rule.needs_draft_probs)
    @functools.wraps(rule)
    def recording(draft: Draft, verified: Verified) -> Accepted:
        accepted = rule(draft, verified)
        children = [*accepted.slots[1:], None]
        ranks = tuple(
            (None if child is None else draft.tree.rank[child], len(draft.tree.children[slot]))
            for slot, child in zip(accepted.slots, children, strict=True)
        )
        record = DraftRecord.of(draft, accepted.slots)
        steps.append(Step(draft.tree.slots - 1, len(accepted.slots) - 1, {}, ranks, record))
        return accepted

    return recording
