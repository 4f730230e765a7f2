"""The numbers that tuning measures and decides by.

All values were chosen on a virtual machine with 2 cores of a Xeon with AVX-512 and without AMX, ONNX Runtime 1.31.1,
2 threads. `benchmarks/LOG.md` has the figures. The comment above each field gives its unit, and the command that
measures the figure anew. BUNDLE is a compiled bundle, for example build/demo.specc.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StepCostPolicy:
    """The numbers that govern how the time of an engine's step is measured."""

    # Steps in one measurement, after one step that warms up. Anew: the spreads of `specc bench BUNDLE --json`.
    steps: int = 4
    # Largest share of the time on all threads at which an engine runs on one thread. Anew: benchmarks/bench_steps.py
    # with SPECC_THREADS=1 and without; see benchmarks/LOG.md#one-thread-for-small-drafts.
    one_thread_ratio: float = 0.97
    # Rounds in which one thread is compared with all threads. Anew: `specc tune BUNDLE` twice names the same engines.
    one_thread_rounds: int = 15


@dataclass(frozen=True, kw_only=True)
class CalibrationPolicy:
    """The numbers that govern how recipes run while their acceptance and their costs are measured."""

    # Calls after which the mean cost of an engine is used. Anew: predicted against measured in `specc tune BUNDLE`.
    least_calls: int = 20
    # Tokens that warm up a recipe, and the fewest that plain decoding runs. Anew: as for least_calls.
    warm_up_tokens: int = 8
    # Tokens that a recipe decodes for each token of plain decoding in its turn. Anew: as for least_calls.
    tokens_per_plain_token: int = 2


@dataclass(frozen=True, kw_only=True)
class TuningPolicy:
    """The numbers that `specc tune` measures and decides by."""

    # Prompts that calibrate, unless the user gives a limit. Anew: predicted against measured in `specc tune BUNDLE`.
    prompts: int = 8
    # Tokens of each answer, unless the user gives another number. Anew: as for prompts.
    tokens: int = 64
    # Rows of context before a timed step. Anew: the curve of `specc tune BUNDLE`.
    contexts: tuple[int, ...] = (64, 512, 1024)
    # Rounds in which every engine is timed. Anew: the spreads in the step_costs of `specc tune BUNDLE --json`.
    cost_rounds: int = 5
    # Recipes that run again in turns with plain decoding. Anew: the order of predicted and measured speed-ups.
    finalists: int = 3
    # Rounds of the finalists, after one that warms up. Anew: `specc tune BUNDLE` twice chooses the same recipe.
    finalist_rounds: int = 5
    # Smallest speed-up over plain decoding that makes a recipe the plan, or another tree a proposal. Anew: the spread
    # of plain decoding in `specc bench BUNDLE --json` is what a smaller number would have to beat.
    least_speedup: float = 1.05
    # Levels of a proposed tree. Anew: acceptance by depth in `specc tune BUNDLE --json`.
    tree_depth: int = 8
    # Share of its speed that a recipe may lose when a width is left out. Anew: `specc tune BUNDLE` with 0, and
    # benchmarks/bench_engines.py for the load time and the memory that a width costs.
    width_slack: float = 0.01


@dataclass(frozen=True, kw_only=True)
class DefaultRecipePolicy:
    """The numbers by which a compile chooses the default recipe of a bundle.

    They trade the time of a compile for the certainty of the choice. Anew, for all of them: `specc compile MODEL
    --json` several times, beside `specc bench BUNDLE --recipes all`, which must name the same winner.
    """

    # Smallest speed-up over plain decoding that makes a recipe the default.
    least_speedup: float = 1.05
    # Speed-up on the first case below which a recipe runs no further case.
    give_up_below: float = 0.6
    # Speed-up on all cases from which a recipe runs again.
    rerun_from: float = 0.9
    # Recipes that run again, in turns with plain decoding.
    finalists: int = 2
    # Times that they run again. They run once if plain decoding takes longer than half of plain_seconds.
    reruns: int = 2
    # Seconds of plain decoding in one round. If all cases take longer, the first ones stand for them.
    plain_seconds: float = 1.0
    # Cases in one round, however long they take.
    least_cases: int = 2
    # Tokens that warm up a recipe.
    warm_up_tokens: int = 8


STEP_COSTS = StepCostPolicy()
CALIBRATION = CalibrationPolicy()
TUNING = TuningPolicy()
DEFAULT_RECIPE = DefaultRecipePolicy()
