"""Prepare a bundle for tuning: undo an earlier plan, allow every width, and turn prompts into tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from specc import prompts
from specc.exactness import golden
from specc.runtime.bundle import Bundle
from specc.runtime.manifest import Manifest
from specc.runtime.recipe import Recipe
from specc.runtime.session import Session, open_session
from specc.runtime.width_invariance import is_lossless
from specc.tuning.chain_widths import chains, with_all_widths
from specc.tuning.draft_replay import opened
from specc.tuning.plan import TunePlan
from specc.tuning.policy import TuningPolicy
from specc.tuning.step_costs import faster_on_one_thread

PLAIN = "plain"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A bundle that is tuned, and what to tune it on.

    Attributes:
        bundle: the bundle as it was compiled, but its recipes verify with all widths, drafts are as large as they can
            be, and small drafts run on one thread.
        compiled: its manifest as it was compiled.
        session: a session on `bundle`.
        chains: the target's engines that verify chains, by their slots.
        single_threaded: engines that are faster on one thread.
        contexts: rows of context before a timed step.
        prompts: token ids of each prompt.
        tokens: how many tokens each answer has.
        policy: how much is measured, and what pays.
    """

    bundle: Bundle
    compiled: Manifest
    session: Session
    chains: Mapping[int, str]
    single_threaded: Sequence[str]
    contexts: Sequence[int]
    prompts: Sequence[list[int]]
    tokens: int
    policy: TuningPolicy

    @property
    def recipes(self) -> list[Recipe]:
        """The lossless recipes, which alone can become the plan."""
        manifest = self.bundle.manifest
        return [recipe for recipe in manifest.recipes if is_lossless(manifest, recipe)]

    @property
    def drafting(self) -> list[Recipe]:
        """The lossless recipes but plain decoding."""
        return [recipe for recipe in self.recipes if recipe.name != PLAIN]

    @property
    def engines(self) -> list[str]:
        """The names of all engines that the plan depends on, in alphabetical order."""
        used = {name for recipe in self.recipes for name in (*recipe.verify, *recipe.engines.values())}
        return sorted(used.union(self.chains.values()))


def read_texts(bundle: Bundle, file: Path | None) -> list[str]:
    """Return the texts of a prompts file, or the bundle's golden prompts without one."""
    if file:
        return [prompt.text for prompt in prompts.read(file)]
    return [case.prompt for case in golden.cases_of(bundle)]


def prepare(bundle: Bundle, texts: Sequence[str], tokens: int, policy: TuningPolicy) -> Job:
    """Undo earlier tuning, let recipes verify with all widths, and choose the engines that run on one thread.

    Args:
        bundle: the bundle as it is on disk.
        texts: the prompts. A prompt that leaves no room for an answer is cut at its beginning.
        tokens: how many tokens each answer has.
        policy: how much is measured.
    """
    compiled = as_compiled(bundle.manifest)
    context = compiled.model.context
    contexts = [rows for rows in policy.contexts if rows <= context] or [1]
    drafts = sorted({name for recipe in compiled.recipes for name in recipe.engines.values()})
    single_threaded = faster_on_one_thread(replace(bundle, manifest=compiled), drafts, contexts[0])
    widths = chains(compiled)
    manifest = with_single_threads(with_all_widths(compiled, widths), single_threaded)
    manifest = replace(manifest, recipes=tuple(opened(recipe) for recipe in manifest.recipes))
    tuned = replace(bundle, manifest=manifest)
    session = open_session(tuned)
    return Job(
        bundle=tuned,
        compiled=compiled,
        session=session,
        chains=widths,
        single_threaded=single_threaded,
        contexts=contexts,
        prompts=[session.text.encode(text)[-(context - tokens) :] for text in texts],
        tokens=tokens,
        policy=policy,
    )


def as_compiled(manifest: Manifest) -> Manifest:
    """Undo earlier tuning: return the manifest with the recipes and threads that it was compiled with."""
    plan = TunePlan.of(manifest)
    compiled = plan.compiled if plan else {}
    recipes = tuple(
        replace(recipe, verify=compiled[recipe.name].verify, parameters=compiled[recipe.name].parameters)
        if recipe.name in compiled
        else recipe
        for recipe in manifest.recipes
    )
    return with_single_threads(replace(manifest, recipes=recipes), ())


def with_single_threads(manifest: Manifest, names: Iterable[str]) -> Manifest:
    """Return the manifest with one thread for the named engines, and all threads for the others."""
    single = set(names)
    engines = tuple(replace(engine, threads=1 if engine.name in single else 0) for engine in manifest.engines)
    return replace(manifest, engines=engines)
