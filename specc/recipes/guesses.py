"""Methods that verify guesses of the target's own, without a draft."""

from __future__ import annotations

from dataclasses import replace

from specc.recipes.blocks import chains, count
from specc.recipes.defaults import LENGTHS
from specc.recipes.entry import Facts, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block
from specc.runtime.drafters import check_probability
from specc.runtime.drafters.gauss_seidel import MOST_PARALLEL
from specc.runtime.tree import Tree


def _plan_jacobi(values: Values, facts: Facts) -> MethodBlocks:
    verify = Block(Tree.chain(1 + count(values, "num_speculative_tokens")))
    return MethodBlocks((verify,), {}, {**values, "vocab_size": facts.vocab_size})


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

SPECULATIVE_JACOBI = Method(
    name="speculative-jacobi",
    title="Speculative Jacobi decoding: sampled guesses, accepted by their probabilities",
    try_when="The request samples, and Jacobi decoding is fast here at temperature 0.",
    paper="Teng et al. 2024, arXiv:2410.01699, which decodes images",
    drafter="jacobi",
    topology="chain",
    plan=_plan_jacobi,
    parameters={
        "num_speculative_tokens": Parameter(
            LENGTHS.jacobi, "tokens guessed a step, the paper's window; 16 and more there"
        )
    },
    acceptance="speculative",
    by_default=False,
)


def _plan_gauss_seidel(values: Values, facts: Facts) -> MethodBlocks:
    if "parallel_tokens" in values:
        count(values, "parallel_tokens", most=MOST_PARALLEL)
    return MethodBlocks(chains(count(values, "block_size", 2)), {}, dict(values))


BLOCK_SIZE = Parameter(1 + LENGTHS.jacobi, "tokens of a block, b in the paper; 3 in its code")
GAUSS_SEIDEL_JACOBI = Method(
    name="gauss-seidel-jacobi",
    title="Gauss-Seidel Jacobi decoding: Jacobi decoding block by block",
    try_when="Jacobi decoding guesses well, and a step with fewer slots costs less.",
    paper="Santilli et al. 2023, arXiv:2305.10427, algorithm 2",
    drafter="gauss-seidel",
    topology="chain",
    plan=_plan_gauss_seidel,
    parameters={"block_size": BLOCK_SIZE},
    by_default=False,
)
HYBRID_JACOBI = Method(
    name="hybrid-jacobi",
    title="Hybrid Jacobi decoding: blocks first, then plain decoding",
    try_when="The first part of an answer is easy to guess, and the rest is not.",
    paper="Santilli et al. 2023, arXiv:2305.10427, algorithm 3",
    drafter="gauss-seidel",
    topology="chain",
    plan=_plan_gauss_seidel,
    parameters={
        "block_size": BLOCK_SIZE,
        "parallel_tokens": Parameter(
            128, "new tokens after which plain decoding goes on, h in the paper; up to 511 in its code"
        ),
    },
    by_default=False,
)


def _plan_fastcot(values: Values, facts: Facts) -> MethodBlocks:
    threshold = values["confidence_threshold"]
    check_probability(confidence_threshold=threshold)
    guesses = {name: value for name, value in values.items() if name != "confidence_threshold"}
    return replace(_plan_jacobi(guesses, facts), rule={"threshold": threshold})


FASTCOT = Method(
    name="fastcot",
    title="FastCoT: Jacobi decoding that keeps confident guesses unverified (lossy)",
    try_when="Answers may differ from the model's own, and a glance at the end of a long text is enough.",
    paper="Zhang et al. 2023, arXiv:2311.08263",
    drafter="jacobi",
    topology="chain",
    plan=_plan_fastcot,
    parameters={
        "num_speculative_tokens": Parameter(
            LENGTHS.jacobi,
            "tokens guessed a step; the paper varies them by the position",
        ),
        "confidence_threshold": Parameter(
            0.9, "a guess of more probability is kept unverified (lossy); 1 verifies all, and is lossless"
        ),
    },
    acceptance="confidence",
    lossless=False,
    by_default=False,
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
