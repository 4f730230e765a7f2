"""A plan of `specc tune` that was never measured."""

from __future__ import annotations

from typing import Any

from specc.machine import Machine
from specc.runtime.prices import Prices
from specc.tuning.acceptance_stats import AcceptanceRates
from specc.tuning.plan import CompiledRecipe, CurvePoint, Finalist, TreeProposal, TunePlan
from specc.tuning.step_costs import StepCost


def tune_plan(**changes: Any) -> TunePlan:
    """Make a plan with a value in every field. The changes take the place of its fields."""
    finalist = Finalist(recipe="early-exit", parameters={"num_tokens": 3}, predicted_speedup=1.5, measured_speedup=1.25)
    fields: dict[str, Any] = {
        "recipe": "early-exit",
        "parameters": {"num_tokens": 3},
        "predicted_speedup": 1.5,
        "measured_speedup": 1.25,
        "tried": (finalist,),
        "predicted": {"early-exit": 1.5, "prompt-lookup": 0.9},
        "verify": {"early-exit": ("verify-early-exit",), "prompt-lookup": ("decode", "verify-chain-4")},
        "single_threaded": ("draft-early-exit",),
        "trees": {"early-exit": TreeProposal(tree=((0,), (0, 0)), predicted_gain=1.1)},
        "acceptance": {"early-exit": AcceptanceRates(by_depth=(0.5, 0.25), by_rank=(0.5,))},
        "curve": (
            CurvePoint(slots=1, context=64, milliseconds=2.0, ratio=1.0),
            CurvePoint(slots=4, context=64, milliseconds=3.0, ratio=1.5),
        ),
        "step_costs": (StepCost("decode", 1, 64, 2.0, 0.1),),
        "compiled": {"plain": CompiledRecipe(verify=("decode",), parameters={})},
        "machine": Machine(
            cpu="a processor", cores=2, threads=2, memory_bytes=1, system="a system", python="3.11", onnxruntime="1.31"
        ),
        "prompts": 2,
        "tokens": 16,
        "prices": Prices(run=0.03, lane=0.001, slot=0.002),
    }
    return TunePlan(**fields | changes)
