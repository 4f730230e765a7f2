"""What `specc tune` decides, with the measurements that it rests on, as the manifest keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from specc.machine import Machine
from specc.runtime.json_codec import from_json, to_json
from specc.runtime.manifest import PLAN, Manifest
from specc.runtime.prices import Prices
from specc.tuning.acceptance_stats import AcceptanceRates
from specc.tuning.step_costs import StepCost


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A recipe that ran again, in turns with plain decoding.

    Attributes:
        recipe: the name of the recipe.
        parameters: the parameters that it ran with.
        predicted_speedup: the predicted speed, as a multiple of plain decoding's.
        measured_speedup: the median over rounds of the measured one.
    """

    recipe: str
    parameters: Mapping[str, Any]
    predicted_speedup: float
    measured_speedup: float


@dataclass(frozen=True, kw_only=True)
class TreeProposal:
    """A tree that would be faster than the one that is compiled in, which needs another compile.

    Attributes:
        tree: paths of sibling ranks, one for each slot below the root.
        predicted_gain: its predicted speed, as a multiple of the present tree's.
    """

    tree: tuple[tuple[int, ...], ...]
    predicted_gain: float


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """A measured point of the cost curve of the target's chains.

    Attributes:
        slots: slots of the step.
        context: rows of context before them.
        milliseconds: the time of the step.
        ratio: this time as a multiple of a one-slot step's after the same context.
    """

    slots: int
    context: int
    milliseconds: float
    ratio: float


@dataclass(frozen=True, kw_only=True)
class CompiledRecipe:
    """A recipe as the compiler wrote it, so that a later `specc tune` can start from there.

    Attributes:
        verify: names of the engines that verify, narrowest first.
        parameters: the drafter's parameters.
    """

    verify: tuple[str, ...]
    parameters: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class TunePlan:
    """A plan: the recipe to decode by, with what was measured and predicted on the way.

    Attributes:
        recipe: the recipe that becomes the bundle's default.
        parameters: its parameters.
        predicted_speedup: its predicted speed, as a multiple of plain decoding's.
        measured_speedup: its measured speed, as a multiple of plain decoding's.
        tried: the recipes that ran again, the fastest prediction first.
        predicted: the predicted speed-up of each recipe with its best parameters.
        verify: the engines that each recipe verifies with, narrowest first.
        single_threaded: engines that run on one thread.
        trees: for recipes with a static tree: a tree that would be faster.
        acceptance: for recipes that drafted: how often their tokens were accepted.
        curve: the cost of the target's chains, by slots and context.
        step_costs: the cost of each engine at each context.
        compiled: each recipe as the compiler wrote it.
        machine: the machine that the plan is for.
        prompts: how many prompts were run.
        tokens: how many tokens each answer had.
        prices: the seconds of a run in which requests run together; None if the bundle has no engine with lanes.
    """

    recipe: str
    parameters: Mapping[str, Any]
    predicted_speedup: float
    measured_speedup: float
    tried: tuple[Finalist, ...]
    predicted: Mapping[str, float]
    verify: Mapping[str, tuple[str, ...]]
    single_threaded: tuple[str, ...]
    trees: Mapping[str, TreeProposal]
    acceptance: Mapping[str, AcceptanceRates]
    curve: tuple[CurvePoint, ...]
    step_costs: tuple[StepCost, ...]
    compiled: Mapping[str, CompiledRecipe]
    machine: Machine
    prompts: int
    tokens: int
    prices: Prices | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> TunePlan | None:
        """Read the plan of a bundle.

        Returns:
            The plan, or None if the bundle was never tuned.

        Raises:
            BundleError: the manifest has a plan of another form. The message names the field.
        """
        data = manifest.extra.get(PLAN)
        return cls.from_json(data) if data else None

    @classmethod
    def from_json(cls, data: Any) -> TunePlan:
        """Read a plan from the data that `to_json` returned.

        Raises:
            BundleError: the data has another form. The message names the field.
        """
        return from_json(cls, data, f"manifest.extra.{PLAN}")

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data, as `specc tune --json` prints it and the manifest keeps it."""
        data: dict[str, Any] = to_json(self)
        return data

    def stored_in(self, manifest: Manifest) -> Manifest:
        """Return the manifest with this plan in it."""
        return replace(manifest, extra={**manifest.extra, PLAN: self.to_json()})
