"""Run a bundle's recipes on its golden prompts: a short try-out of each, then rounds of those that have a chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from statistics import median

from specc.exactness import golden
from specc.exactness.golden import Case, Replayed, Verdict
from specc.runtime.bundle import Bundle
from specc.runtime.manifest_checks import TOLERANCE
from specc.runtime.sampling_defaults import PLAIN_GREEDY
from specc.runtime.session import Session, open_session
from specc.runtime.width_invariance import exact_engine, is_near
from specc.tuning.policy import DefaultRecipePolicy

PLAIN = "plain"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A recipe's decoding of one golden prompt.

    Attributes:
        replayed: how the golden tokens compare.
        tokens: tokens after the first, which prefill gave. The answer may go on after the golden tokens.
        seconds: the time of those tokens.
    """

    replayed: Replayed
    tokens: int
    seconds: float


@dataclass
class RecipeTrials:
    """The trials of a recipe, or of plain decoding beside it: for each case its trials in every round."""

    by_case: dict[int, list[Trial]] = field(default_factory=dict)

    def add(self, trial: Trial) -> None:
        """Add the trial of one more round."""
        self.by_case.setdefault(trial.replayed.case, []).append(trial)

    @property
    def first(self) -> list[Trial]:
        """The trial of each case in the first round."""
        return [trials[0] for trials in self.by_case.values()]

    @property
    def tokens(self) -> int:
        """Tokens of one round."""
        return sum(trial.tokens for trial in self.first)

    @property
    def seconds(self) -> float:
        """The time of one round: for each case the median over the rounds."""
        return sum(median(trial.seconds for trial in trials) for trials in self.by_case.values())

    @property
    def speed(self) -> float:
        """Tokens a second of decoding; 0 if there was none."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def mean_acceptance_length(self) -> float:
        """Mean tokens of a step over the cases."""
        return sum(trial.replayed.mean_acceptance_length for trial in self.first) / len(self.first)

    def count(self, verdict: Verdict) -> int:
        """Return how many cases have this verdict in the first round."""
        return sum(trial.replayed.verdict is verdict for trial in self.first)

    @property
    def diverged(self) -> bool:
        """Tell whether a case diverged in any round."""
        every = (trial for trials in self.by_case.values() for trial in trials)
        return any(trial.replayed.verdict is Verdict.DIVERGED for trial in every)


def run(
    session: Session, case: Case, number: int, recipe: str, tokens: int, tolerance: float, exact: bool = False
) -> Trial:
    """Decode a golden prompt without the guard, and compare the golden tokens.

    Args:
        session: the bundle, loaded.
        case: the golden case.
        number: its index.
        recipe: the name of the recipe.
        tokens: tokens of the answer. More than the case has are decoded, past the end of the text if need be; fewer
            are compared with as many.
        tolerance: a gap of logits below which a difference is a near-tie.
        exact: run every step at one width.
    """
    generation = session.generate(
        case.prompt_ids, tokens, recipe=recipe, **PLAIN_GREEDY, guard=False, ignore_eos=True, exact=exact
    )
    compared = replace(case, token_ids=case.token_ids[:tokens], gaps=case.gaps[:tokens])
    replayed = golden.judge(recipe, number, generation.token_ids, compared, tolerance)
    stats = generation.stats
    is_lossy = replayed.verdict is Verdict.DIVERGED and not stats.lossless
    return Trial(
        replayed=replace(
            replayed,
            verdict=Verdict.LOSSY if is_lossy else replayed.verdict,
            seconds=stats.seconds,
            tokens_per_second=stats.tokens_per_second,
            mean_acceptance_length=stats.mean_acceptance_length,
        ),
        tokens=stats.new_tokens - 1,
        seconds=stats.seconds,
    )


class Trials:
    """The trials of all recipes of a bundle.

    Attributes:
        cases: the golden cases.
        tried: each recipe in its try-out.
        plain_beside: plain decoding in the try-out of each recipe, on as many prompts.
        rounds: plain decoding and each contender in the rounds.
        exact: each recipe that depends on the width of a step, at one width, on the first prompt of its try-out.
    """

    def __init__(self, bundle: Bundle, policy: DefaultRecipePolicy) -> None:
        self.bundle, self.policy = bundle, policy
        self.session = open_session(bundle)
        self.cases = golden.cases_of(bundle)
        self.tried: dict[str, RecipeTrials] = {}
        self.plain_beside: dict[str, RecipeTrials] = {}
        self.rounds: dict[str, RecipeTrials] = {}
        self.exact: dict[str, Trial] = {}
        self._trial_tokens = policy.trial_tokens
        self._trial_cases = list(range(min(policy.trial_prompts, len(self.cases))))

    def warm_up(self) -> None:
        """Warm up plain decoding, and find out how long an answer of the try-out can be."""
        policy = self.policy
        self._warm(PLAIN)
        trial = self._run(PLAIN, 0, policy.warm_up_tokens)
        affordable = int(policy.trial_seconds * trial.tokens / trial.seconds) if trial.seconds else policy.trial_tokens
        self._trial_tokens = max(policy.least_trial_tokens, min(policy.trial_tokens, affordable))

    def try_out(self, recipe: str) -> None:
        """Run a recipe on some prompts in turns with plain decoding. Stop after one prompt if it is hopelessly slow.

        A recipe begins with the prompt at which the last one ended, whose rows the session still has.
        """
        self._warm(recipe, self._trial_cases[0])
        self.tried[recipe], self.plain_beside[recipe] = RecipeTrials(), RecipeTrials()
        for number in self._trial_cases:
            self.plain_beside[recipe].add(self._run(PLAIN, number, self._trial_tokens))
            self.tried[recipe].add(self._run(recipe, number, self._trial_tokens))
            if self.tried_speedup(recipe) < self.policy.give_up_below:
                break
        else:
            self._trial_cases.reverse()
        if self._is_near_and_can_be_exact(recipe):
            first_case = next(iter(self.plain_beside[recipe].by_case))
            self.exact[recipe] = self._run(recipe, first_case, self._trial_tokens, exact=True)
        self.release(recipe)

    def exact_speedup(self, recipe: str) -> float | None:
        """Return the speed of a recipe under `--exact` as a multiple of plain decoding's; None if it did not run so."""
        trial = self.exact.get(recipe)
        if trial is None:
            return None
        plain = self.plain_beside[recipe].first[0]
        return ratio(ratio(trial.tokens, trial.seconds), ratio(plain.tokens, plain.seconds))

    def _is_near_and_can_be_exact(self, recipe: str) -> bool:
        manifest, backend = self.bundle.manifest, self.session.engines.backend
        measured, compiled = manifest.width_invariance, self.bundle.recipe(recipe)
        agree = measured is None or measured.slots_agree
        return agree and is_near(manifest, compiled, backend) and exact_engine(manifest, compiled, backend) is not None

    def tried_speedup(self, recipe: str) -> float:
        """Return the speed-up of a recipe in its try-out."""
        return ratio(self.tried[recipe].speed, self.plain_beside[recipe].speed)

    def contenders(self) -> list[str]:
        """Return the recipes within reach of the lead in the try-out, the fastest first, without diverged ones."""
        speedups = {name: self.tried_speedup(name) for name, trials in self.tried.items() if not trials.diverged}
        least = self.policy.within_reach * max([1.0, *speedups.values()])
        names = sorted((name for name in speedups if speedups[name] >= least), key=lambda name: -speedups[name])
        return names[: self.policy.contenders]

    def run_round(self, names: Sequence[str], number: int, advance: Callable[[int], None] = lambda case: None) -> bool:
        """Run plain decoding and the contenders in turns, prompt by prompt.

        Args:
            names: the contenders.
            number: 0 for the first round.
            advance: called with the index of each prompt before it runs.

        Returns:
            Whether another round pays.
        """
        policy = self.policy
        self.session.shared.drafters.clear()  # A drafter would know the answers of the round before.
        if number == 0:
            self.rounds = {name: RecipeTrials() for name in (PLAIN, *names)}
            for name in names:
                self._warm(name)
        answer = 1 + ceil(policy.least_tokens / max(policy.least_prompts, len(self.cases)))
        for case in range(len(self.cases)):
            if number + case and self._seconds() >= policy.seconds:
                return False
            advance(case)
            for name, trials in self.rounds.items():
                trials.add(self._run(name, case, max(answer, len(self.cases[case].token_ids))))
        return number + 1 < policy.rounds and self._seconds() < policy.cheap_seconds

    def passes_golden_test(self, recipe: str) -> bool:
        """Tell whether no golden case diverges. The cases that the rounds did not reach are replayed here."""
        trials = self.rounds[recipe]
        for case in range(len(self.cases)):
            if trials.diverged:
                return False
            if case not in trials.by_case:
                verdict = self._run(recipe, case, len(self.cases[case].token_ids)).replayed.verdict
                if verdict is Verdict.DIVERGED:
                    return False
        return not trials.diverged

    def release(self, recipe: str) -> None:
        """Unload the engines that only this recipe uses, so that few are in memory at a time."""
        self.session.shared.release(self.bundle.recipe(recipe), self.bundle.recipe(PLAIN))

    def _seconds(self) -> float:
        """Return the time of all decoding in the rounds."""
        cases = (trials for name in self.rounds.values() for trials in name.by_case.values())
        return sum(trial.seconds for trials in cases for trial in trials)

    def _warm(self, recipe: str, case: int = 0) -> None:
        self._run(recipe, case, self.policy.warm_up_tokens)

    def _run(self, recipe: str, case: int, tokens: int, exact: bool = False) -> Trial:
        tolerance = min(self.bundle.manifest.near_tie_tolerance, TOLERANCE)
        return run(self.session, self.cases[case], case, recipe, tokens, tolerance, exact)


def ratio(recipe: float, plain: float) -> float:
    """Compare two speeds. Answers of one token have none, since prefill gives that token, and compare as equal."""
    return recipe / plain if plain else 1.0
