"""The tuned numbers that recipes start from, until `specc tune` has measured the machine at hand.

All values were chosen on a virtual machine with 2 cores of a Xeon with AVX-512 and without AMX, ONNX Runtime 1.31.1,
2 threads. `benchmarks/LOG.md` has the figures. The comment above each field gives its unit, and the command that
measures the figure anew. BUNDLE is a compiled bundle, for example build/demo.specc.

- "tune": `specc tune BUNDLE` chooses for the machine that it runs on, and writes its choice into the bundle.
- "trees": `specc compile MODEL --tune` chooses trees by measured acceptance and costs, and compiles them.
- "heldout": `specc compile MODEL --set RECIPE.PARAMETER=VALUE` for each value, then `benchmarks/heldout.py BUNDLE`.
- "steps": `benchmarks/bench_steps.py BUNDLE` prints what a call of each engine costs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DefaultLengths:
    """The numbers that say how much each kind of drafter drafts in a step."""

    # Tokens of a layer-skipping draft, or of a draft model. Anew: tune.
    draft: int = 3
    # Tokens of the 4-bit copy at most. Anew: tune; "drafts up to 11 tokens" in the log.
    copy: int = 11
    # Probability of a token below which the copy stops. Anew: heldout; "0.3 and more" in the log.
    copy_confidence: float = 0.3
    # Tokens of the copy where the text holds no match. Anew: tune.
    copy_after_lookup: int = 3
    # Tokens copied from the text at most, which fill 12 slots. Anew: tune; "Chains of 6 slots, not 8" in the log.
    lookup: int = 11
    # Tokens copied from the text at most, where the copy drafts otherwise. Anew: tune.
    lookup_before_copy: int = 8
    # Tokens guessed for one call of the copy, which has 4 slots. Anew: heldout; "(staged)" in the log.
    lookup_for_copy: int = 3
    # Tokens that must match at most. Anew: heldout; "Prompt lookup by longer n-grams" in the log.
    longest_match: int = 3
    # Tokens that must match at least, where the copy drafts otherwise. Anew: heldout.
    shortest_match: int = 2
    # Tokens guessed in a step, which fill 6 slots. Anew: tune; "jacobi of five" in the log.
    jacobi: int = 5
    # Columns of a window of guesses. Anew: heldout; "Lookahead of three guesses" in the log.
    window: int = 4
    # Tokens of an n-gram of that window. Anew: as for window.
    ngram: int = 4
    # N-grams verified in a step, which fill 22 slots with the window. Anew: as for window.
    candidates: int = 3
    # Tokens of a trained head at most. Anew: tune.
    head: int = 4
    # Tokens of a trained head at most, where the text holds no match. Anew: heldout.
    head_after_lookup: int = 6
    # Tokens copied from the text at most, where a trained head drafts otherwise. Anew: heldout.
    lookup_before_head: int = 11
    # Tokens that must match at most, where a trained head drafts otherwise. Anew: heldout.
    longest_match_before_head: int = 6
    # Tokens that must match at least, where a trained head drafts otherwise. Anew: heldout.
    shortest_match_before_head: int = 4
    # Share of the model's layers that an early exit runs. Anew: heldout.
    exit_share: float = 0.25


@dataclass(frozen=True, kw_only=True)
class DefaultTrees:
    """The numbers that shape draft trees."""

    # Share of steps in which the child of rank 0, 1, … is the target's token. They say which nodes a tree has, not what
    # it costs. Anew: `acceptance` in the plan of `specc tune BUNDLE --json`.
    rates: tuple[float, ...] = (0.55, 0.14, 0.07, 0.045, 0.03, 0.025, 0.02, 0.015)
    # Slots of an early exit's tree, the pending token's included. Anew: trees; "Trees by measured rates" in the log.
    exit_slots: int = 12
    # Levels of that tree. Anew: trees.
    exit_depth: int = 5
    # Children of one of its nodes at most. Anew: trees.
    exit_ranks: int = 4
    # Nodes of a recycled tree, which fill 24 slots; the paper has 80, on a GPU. Anew: trees.
    recycled_nodes: int = 23
    # Levels of that tree. Anew: trees.
    recycled_depth: int = 6
    # Nodes of a dynamic tree at most, which fill 12 slots. Anew: tune.
    dynamic_nodes: int = 11
    # Levels of that tree at most. Anew: heldout.
    dynamic_depth: int = 5
    # Nodes of the tree of a trained head at most, which fill 12 slots. Anew: trees.
    head_nodes: int = 11
    # Levels of that tree at most. Anew: heldout.
    head_depth: int = 5
    # Levels of that tree at most where lookup drafts too. Anew: heldout.
    head_depth_beside_lookup: int = 3
    # Share of copies whose first token is right, by how many tokens match. Anew: heldout; "Copies by the length of
    # their match" in the log.
    match_rates: tuple[float, ...] = (0.15, 0.4, 0.7, 0.8, 0.85, 0.9)
    # Share of slots without a token whose guess of rank 0, 1, … is right, by how far ahead they guess. Anew:
    # `acceptance.rates` in the card.json of a head.
    guess_rates: tuple[tuple[float, ...], ...] = (
        (0.4, 0.12, 0.06, 0.04, 0.03, 0.02, 0.02, 0.02),
        (0.25, 0.09, 0.05, 0.04, 0.03, 0.02, 0.02, 0.02),
        (0.2, 0.08, 0.05, 0.03, 0.03, 0.02, 0.02, 0.02),
        (0.15, 0.07, 0.04, 0.03, 0.03, 0.02, 0.02, 0.02),
    )
    # Nodes of a tree whose tokens have all guesses behind them, which fill 24 slots. Anew: heldout.
    guess_nodes: int = 5
    # Share of the model's layers that run on all nodes of such a tree, if it is pruned. Anew: heldout.
    pruned_share: float = 0.25
    # Slots of one call of a draft that grows a tree. Anew: steps.
    frontier: int = 4


@dataclass(frozen=True, kw_only=True)
class WidthPolicy:
    """The numbers that say how many slots the engines have."""

    # Slots of the engine that reads a prompt. Anew: steps.
    prefill: int = 64
    # Slots of chains narrower than a recipe's own. Anew: tune; "Chains of 6 slots, not 8" in the log.
    below: tuple[int, ...] = (4, 6)
    # Slots of dynamic trees narrower than a recipe's own. Anew: as for below.
    trees: tuple[int, ...] = (4, 6, 8)
    # Share of a step with one slot that a step with more slots costs beside them. Anew: tune, which puts the measured
    # costs of all widths in its place.
    wide_step: float = 0.09
    # Share of such a step that each slot after the first costs. Anew: as for wide_step.
    slot: float = 0.034
    # Slots of the chains that `specc tune` measures and may choose. Anew: the curve of `specc tune BUNDLE`.
    curve: tuple[int, ...] = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64)


LENGTHS = DefaultLengths()
TREES = DefaultTrees()
WIDTHS = WidthPolicy()
