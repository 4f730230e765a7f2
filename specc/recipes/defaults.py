"""Tuned numbers that recipes start from, until `specc tune` has measured the machine at hand.

The machine: 2 virtual cores of a Xeon with AVX-512 and without AMX, ONNX Runtime 1.31.1, 2 threads.
benchmarks/LOG.md holds the measurements; a comment below quotes the words that find its row.

The commands that measure them anew:
    tune      `specc tune BUNDLE` chooses for the machine that it runs on and writes the choice into the bundle.
    retree    `specc compile MODEL --tune` chooses trees by measured acceptance and costs, and compiles them.
    heldout   `specc compile MODEL --set RECIPE.PARAMETER=VALUE` once a value, then `benchmarks/heldout.py BUNDLE`.
    steps     `benchmarks/bench_steps.py BUNDLE` prints what a call of each engine costs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DefaultLengths:
    """A choice of how much each kind of drafter drafts in a step. Each line ends with its unit and its command."""

    draft: int = 3  # tokens of a layer-skipping draft or a draft model; tune
    copy: int = 11  # tokens of the 4-bit copy at most; tune; "drafts up to 11 tokens"
    copy_confidence: float = 0.3  # probability of a token below which the copy stops; heldout; "0.3 and more"
    copy_after_lookup: int = 3  # tokens of the copy where the text holds no match; tune
    lookup: int = 11  # tokens copied from the text at most, which fill 12 slots; tune; "Chains of 6 slots, not 8"
    lookup_before_copy: int = 8  # tokens copied from the text at most, where the copy drafts otherwise; tune
    lookup_for_copy: int = 3  # tokens guessed for one call of the copy, which has 4 slots; heldout; "(staged)"
    longest_match: int = 3  # tokens that must match at most; heldout; "Prompt lookup by longer n-grams"
    shortest_match: int = 2  # tokens that must match at least, where the copy drafts otherwise; heldout
    jacobi: int = 5  # tokens guessed in a step, which fill 6 slots; tune; "jacobi of five guesses"
    window: int = 4  # columns of a window of guesses; heldout; "Lookahead of three guesses"
    ngram: int = 4  # tokens of an n-gram of that window; heldout; "Lookahead of three guesses"
    candidates: int = 3  # n-grams verified in a step: 22 slots with the window; heldout; "Lookahead of three guesses"
    exit_share: float = 0.25  # share of the model's layers that an early exit runs; heldout


@dataclass(frozen=True, kw_only=True)
class DefaultTrees:
    """A choice of shapes for draft trees. Each line ends with its unit and its command.

    `rates`: how often the child of rank 0, 1, … is the target's token. They give default trees their shape, not their
    cost. The plan of `specc tune` holds measured ones under `acceptance`.
    """

    rates: tuple[float, ...] = (0.55, 0.14, 0.07, 0.045, 0.03, 0.025, 0.02, 0.015)  # share, by rank; retree
    exit_slots: int = 12  # slots, the pending token's included; retree; "Trees by measured rates and costs"
    exit_depth: int = 5  # levels; retree
    exit_ranks: int = 4  # children of a node at most; retree
    recycled_nodes: int = 23  # nodes below the pending token: 24 slots; retree; the paper has 80 on a GPU
    recycled_depth: int = 6  # levels; retree
    dynamic_nodes: int = 11  # nodes below the pending token at most: 12 slots; tune
    dynamic_depth: int = 5  # levels at most; heldout
    frontier: int = 4  # slots of one draft call that grows a tree; steps


@dataclass(frozen=True, kw_only=True)
class WidthPolicy:
    """A choice of how many slots the engines have. Each line ends with its unit and its command."""

    prefill: int = 64  # slots of the engine that reads a prompt; steps
    below: tuple[int, ...] = (4, 6)  # slots of chains narrower than a recipe's own; tune; "Chains of 6 slots, not 8"
    curve: tuple[int, ...] = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # slots of chains that tune measures and may choose


LENGTHS = DefaultLengths()
TREES = DefaultTrees()
WIDTHS = WidthPolicy()
