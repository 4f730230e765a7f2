"""Methods that verify guesses of the target's own, without a draft."""

from __future__ import annotations

from dataclasses import replace

from specc.recipes.blocks import RANKED_OUTPUTS, chains, check_matches, count
from specc.recipes.defaults import LENGTHS, TREES
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block
from specc.runtime.drafters import MOST_TOKENS, check_probability
from specc.runtime.drafters.fast_cot import MOST_STEPS, check_tokens
from specc.runtime.drafters.gauss_seidel import MOST_PARALLEL
from specc.runtime.drafters.tr_jacobi import with_chain
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree


def _plan_jacobi(values: Values, facts: Facts) -> MethodBlocks:
    verify = Block(Tree.chain(1 + count(values, "num_speculative_tokens")))
    return MethodBlocks((verify,), {}, {**values, "vocab_size": facts.vocab_size})


JACOBI = Method(
    name="jacobi",
    title="Jacobi decoding",
    try_when="A step with many slots costs little more than one slot, and no draft model is available.",
    about=(
        "It guesses the next few tokens, at first by repeating the last one. The model runs the guesses in one step, "
        "and says what it would choose at each place. Guesses that equal its choices are kept. The other choices are "
        "the guesses of the next step. At least one token is right in each step, so it never takes more steps than "
        "plain decoding."
    ),
    paper="Santilli et al. 2023, arXiv:2305.10427",
    family=Family.GUESSES,
    drafter="jacobi",
    topology="chain",
    schedule="fused",
    plan=_plan_jacobi,
    parameters={"num_speculative_tokens": Parameter(LENGTHS.jacobi, "tokens guessed a step")},
)

SPECULATIVE_JACOBI = Method(
    name="speculative-jacobi",
    title="Speculative Jacobi decoding: sampled guesses, accepted by their probabilities",
    try_when="The request samples, and Jacobi decoding is fast here at temperature 0.",
    about=(
        "It is Jacobi decoding for requests that sample. A guess is a sample of the row that the last step gave for "
        "its place. The rule of speculative sampling compares that row with the new one. So the answer keeps the "
        "distribution of the model. At temperature 0 it is Jacobi decoding."
    ),
    paper="Teng et al. 2024, arXiv:2410.01699, which decodes images",
    departures=(
        "New slots repeat the pending token; the paper draws them at random or copies neighbours of an image, and text "
        "has no such neighbours.",
    ),
    family=Family.GUESSES,
    drafter="jacobi",
    topology="chain",
    schedule="fused",
    plan=_plan_jacobi,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.jacobi, "tokens guessed a step, the window", "16 and more")
    },
    acceptance="speculative",
    by_default=False,
)


def _plan_gauss_seidel(values: Values, facts: Facts) -> MethodBlocks:
    if "parallel_tokens" in values:
        count(values, "parallel_tokens", most=MOST_PARALLEL)
    return MethodBlocks(chains(count(values, "block_size", 2)), {}, dict(values))


BLOCK_SIZE = Parameter(1 + LENGTHS.jacobi, "tokens of a block, b", "3 in the authors' code")
GAUSS_SEIDEL_JACOBI = Method(
    name="gauss-seidel-jacobi",
    title="Gauss-Seidel Jacobi decoding: Jacobi decoding block by block",
    try_when="Jacobi decoding guesses well, and a step with fewer slots costs less.",
    about=(
        "It decodes a block of tokens by Jacobi's iteration, and then the next block. Inside a block, all places that "
        "are not final are guessed at once. Each step makes one place final at least. Places that are final are not "
        "computed again. So a step has fewer slots towards the end of a block."
    ),
    paper="Santilli et al. 2023, arXiv:2305.10427, algorithm 2",
    family=Family.GUESSES,
    drafter="gauss-seidel",
    topology="chain",
    schedule="fused",
    plan=_plan_gauss_seidel,
    parameters={"block_size": BLOCK_SIZE},
    by_default=False,
)
HYBRID_JACOBI = Method(
    name="hybrid-jacobi",
    title="Hybrid Jacobi decoding: blocks first, then plain decoding",
    try_when="The first part of an answer is easy to guess, and the rest is not.",
    about=(
        "It decodes blocks by Jacobi's iteration at the beginning of an answer. After a number of new tokens it "
        "decodes plainly. The paper found that short answers gain most. A block is decoded as by gauss-seidel-jacobi. "
        "The rest of the answer costs what plain decoding costs."
    ),
    paper="Santilli et al. 2023, arXiv:2305.10427, algorithm 3",
    departures=("The blocks end after a number of tokens; the paper ends them when the end token appears in a block.",),
    family=Family.GUESSES,
    drafter="gauss-seidel",
    topology="chain",
    schedule="fused",
    plan=_plan_gauss_seidel,
    parameters={
        "block_size": BLOCK_SIZE,
        "parallel_tokens": Parameter(
            128, "new tokens after which plain decoding goes on, h", "up to 511 in the authors' code"
        ),
    },
    by_default=False,
)


def _plan_fastcot(values: Values, facts: Facts) -> MethodBlocks:
    threshold, tokens = values["confidence_threshold"], values["answer_tokens"]
    check_probability(confidence_threshold=threshold)
    check_tokens(tokens, facts.vocab_size)
    count(values, "reasoning_steps", 0, MOST_STEPS)
    blocks = _plan_jacobi(values, facts)
    if values["reasoning_steps"] and tokens:
        slots = blocks.verify[0].slots + len(tokens)
        if slots > 1 + MOST_TOKENS:
            most = 1 + MOST_TOKENS - blocks.verify[0].slots
            raise RecipeError(f"answer_tokens has {len(tokens)} tokens; give at most {most} beside the guesses")
        blocks = replace(blocks, verify=(*blocks.verify, Block(Tree.chain(slots))))
    return replace(blocks, rule={"threshold": threshold})


FASTCOT = Method(
    name="fastcot",
    title="FastCoT: Jacobi decoding that keeps confident guesses unverified, and asks for the answer early (lossy)",
    try_when="Answers may differ from the model's own, and Jacobi decoding guesses well here.",
    about=(
        "It guesses the next tokens as Jacobi decoding does. A guess of more probability than a threshold is kept "
        "without verification, in every step or only where the reasoning ends. There a text that asks for the answer "
        "may follow, so the last part of the reasoning is only guessed. The answer may differ from the model's own. "
        "With the threshold 1 every guess is verified, and the reasoning is not cut."
    ),
    paper="Zhang et al. 2023, arXiv:2311.08263",
    departures=(
        "By default guesses are kept in every step; the paper's are kept where the reasoning ends alone, which is what "
        "`reasoning_steps` does.",
        "The paper's test that ends the reasoning was not at hand. Here it ends after a number of steps, as soon as "
        "all guesses are likelier than the threshold.",
        "The window has one size; the paper's varies by the position, in a way that was not at hand.",
    ),
    family=Family.GUESSES,
    drafter="fast-cot",
    topology="chain",
    schedule="fused",
    plan=_plan_fastcot,
    parameters={
        "num_speculative_tokens": Parameter(
            LENGTHS.jacobi,
            "tokens guessed a step",
            "varies by the position",
        ),
        "confidence_threshold": Parameter(
            0.9, "a guess of more probability is kept unverified (lossy); 1 verifies all, and is lossless"
        ),
        "reasoning_steps": Parameter(
            0, "steps before the reasoning may end, where alone guesses are kept; 0 keeps them in every step"
        ),
        "answer_tokens": Parameter((), "token ids of the text that asks for the answer, behind the last guesses"),
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
    about=(
        "A window of guesses runs beside the text, several rows deep. Each step of the model extends every column of "
        "the window by one token. The columns become n-grams, which go into a pool by their first token. N-grams that "
        "begin with the pending token are verified in the same step. Prompt and answer also fill the pool."
    ),
    paper="Fu et al. 2024, arXiv:2402.02057",
    departures=("The window is smaller, since a step with 100 slots costs much more on a CPU than on a GPU.",),
    family=Family.GUESSES,
    drafter="lookahead",
    topology="window",
    schedule="fused",
    plan=_plan_lookahead,
    parameters={
        "window_size": Parameter(LENGTHS.window, "columns of the window, W", "7 to 20 for 7B models"),
        "ngram_size": Parameter(LENGTHS.ngram, "tokens of an n-gram, N", "5 to 7 for 7B models"),
        "max_candidates": Parameter(LENGTHS.candidates, "n-grams verified a step, G", "as many as the columns"),
    },
)


def _plan_tr_jacobi(values: Values, facts: Facts) -> MethodBlocks:
    check_matches(values)
    copies = count(values, "retrieved_tokens")
    guesses = Tree.best_first(TREES.rates, 1 + count(values, "num_speculative_tokens"), count(values, "max_depth"))
    tree = Tree(with_chain(guesses.parents, copies))
    arguments = {"template": tree.parents, "retrieved_tokens": copies}
    longest = values["max_matching_ngram_size"]
    return MethodBlocks((Block(tree, RANKED_OUTPUTS),), {}, {**arguments, "max_matching_ngram_size": longest})


TR_JACOBI = Method(
    name="tr-jacobi",
    title="TR-Jacobi: a tree of the model's own guesses, with a branch that is copied from the text",
    try_when="A step with 20 or more slots costs little more than one slot, and the text repeats itself.",
    about=(
        "Below the last accepted token the model also answered at places with wrong tokens. Its likeliest answers "
        "there fill a tree for the next step. One branch of the tree is copied from the text by prompt lookup. Places "
        "without an answer get tokens of the prompt at random. The model verifies the tree in one step, which needs no "
        "draft model."
    ),
    paper="Make Some Noise, Wang et al. 2024, arXiv:2406.17404: TR-Jacobi",
    departures=(
        "Any model works. 'specc train --recipe tr-jacobi' trains one with noise, as in the paper, on its own answers.",
        "The tree is smaller, since a step with 67 slots costs much more on a CPU than on a GPU.",
    ),
    family=Family.GUESSES,
    drafter="tr-jacobi",
    topology="static tree",
    length="budget",
    schedule="union",
    plan=_plan_tr_jacobi,
    parameters={
        "num_speculative_tokens": Parameter(15, "nodes of the tree of guesses", "67 with the copied branch"),
        "max_depth": Parameter(5, "levels of that tree", "5"),
        "retrieved_tokens": Parameter(5, "tokens of the branch that is copied", "5"),
        "max_matching_ngram_size": Parameter(LENGTHS.longest_match, "tokens that must match at most", "3"),
    },
    by_default=False,
)
