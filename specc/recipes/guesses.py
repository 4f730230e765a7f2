"""Methods that verify guesses of the target's own, without a draft."""

from __future__ import annotations

from specc.recipes.blocks import count
from specc.recipes.defaults import LENGTHS
from specc.recipes.entry import Facts, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block
from specc.runtime.tree import Tree


def _plan_jacobi(values: Values, facts: Facts) -> MethodBlocks:
    return MethodBlocks((Block(Tree.chain(1 + count(values, "num_speculative_tokens"))),), {}, dict(values))


JACOBI = Method(
    name="jacobi",
    title="Jacobi decoding",
    try_when="A step with many slots costs little more than one slot, and no draft model is available.",
    paper="Santilli et al. 2023, arXiv:2305.10427",
    drafter="jacobi",
    topology="chain",
    plan=_plan_jacobi,
    parameters={"num_speculative_tokens": Parameter(LENGTHS.jacobi, "tokens guessed a step")},
)


def _plan_lookahead(values: Values, facts: Facts) -> MethodBlocks:
    rows = count(values, "ngram_size", 2) - 1
    tree = Tree.window(count(values, "window_size"), rows, count(values, "max_candidates", 0))
    return MethodBlocks((Block(tree),), {}, dict(values))


LOOKAHEAD = Method(
    name="lookahead",
    title="Lookahead decoding",
    try_when="A step with 20 or more slots costs little more than one slot, as on a GPU.",
    paper="Fu et al. 2024, arXiv:2402.02057",
    drafter="lookahead",
    topology="window",
    plan=_plan_lookahead,
    parameters={
        "window_size": Parameter(LENGTHS.window, "columns of the window, W"),
        "ngram_size": Parameter(LENGTHS.ngram, "tokens of an n-gram, N"),
        "max_candidates": Parameter(LENGTHS.candidates, "n-grams verified a step, G"),
    },
)
