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
    # Probabilities below which a chain may end. Anew: predicted against measured in `specc tune BUNDLE`.
    thresholds: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    # Share of its speed that a recipe may lose when a width is left out. Anew: `specc tune BUNDLE` with 0, and
    # benchmarks/bench_engines.py for the load time and the memory that a width costs.
    width_slack: float = 0.01


@dataclass(frozen=True, kw_only=True)
class DefaultRecipePolicy:
    """The numbers by which a compile chooses the default recipe of a bundle, and what each costs.

    They trade the time of a compile for the certainty of the choice. A try-out is short and drops the recipes that have
    no chance. Then the rest, the contenders, decode every golden prompt in turns with plain decoding. Costs are seconds
    of a compile of SmolLM2-135M, which decodes 45 tokens a second. Anew, for all of them: `specc compile MODEL --json`
    several times, beside `specc bench BUNDLE --recipe all`, which must name the same winner.
    """

    # Golden prompts that a choice must rest on; with fewer, the default is provisional. Cost: none.
    least_prompts: int = 6
    # Tokens that each contender decodes; with fewer, the default is provisional. Cost: 4.4 s for plain decoding, and
    # about 3 s for a contender. Answers go on after the golden tokens until there are as many.
    least_tokens: int = 200
    # Smallest speed-up over plain decoding that makes a recipe the default. Cost: none.
    least_speedup: float = 1.05
    # Prompts of the try-out. Cost: 0.7 s for each recipe and prompt.
    trial_prompts: int = 2
    # Tokens of a try-out's answer at most. Cost: in proportion.
    trial_tokens: int = 16
    # Seconds that plain decoding may take for a try-out's answer; a slow model gets a shorter answer.
    trial_seconds: float = 1.0
    # Tokens of a try-out's answer at least, however slow the model is.
    least_trial_tokens: int = 4
    # Speed-up on the first prompt of the try-out below which a recipe does not run the second.
    give_up_below: float = 0.7
    # Share of the lead's speed-up in the try-out, plain decoding's 1.0 included, from which a recipe is a contender.
    # Two short answers say little: SmolLM2's fastest recipe had 0.85 of the lead there.
    within_reach: float = 0.6
    # Contenders at most, beside plain decoding. Cost: about 5 s each, and the memory of their engines at once.
    contenders: int = 3
    # Rounds over all prompts at most. One is enough; more are run while they are cheap.
    rounds: int = 3
    # Seconds of decoding after which no further round begins.
    cheap_seconds: float = 2.0
    # Seconds of decoding after which no further prompt begins. What is left makes the default provisional.
    seconds: float = 40.0
    # Tokens that warm up a recipe. Cost: 0.2 s for each recipe.
    warm_up_tokens: int = 8


STEP_COSTS = StepCostPolicy()
CALIBRATION = CalibrationPolicy()
TUNING = TuningPolicy()
DEFAULT_RECIPE = DefaultRecipePolicy()
