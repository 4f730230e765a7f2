"""Methods that draft trees: static ones, and one that changes with each step."""

from __future__ import annotations

from specc.recipes.blocks import (
    DECODE,
    EXIT,
    RANKED_OUTPUTS,
    RANKS,
    TREE,
    count,
    draft_frontier,
    draft_model,
    exit_layers,
    tree_of,
)
from specc.recipes.defaults import TREES
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block, Parents
from specc.runtime.corpus_index import CORPUS_FILE
from specc.runtime.drafters.trigram_search import MOST_ITERATIONS
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree


def _plan_early_exit(values: Values, facts: Facts) -> MethodBlocks:
    if values["tree"] is None:
        tree = Tree.best_first(TREES.rates[: TREES.exit_ranks], TREES.exit_slots, TREES.exit_depth)
    else:
        tree = tree_of(values["tree"])
    widest = max(int((tree.depth == level).sum()) for level in range(tree.depth.max() + 1))
    frontier = draft_frontier(min(widest, TREES.frontier), tree.slots)
    draft = Block(frontier, RANKED_OUTPUTS, exit_layers(values, facts))
    return MethodBlocks((Block(tree),), {"draft": draft}, {"tree": tree.parents})


EARLY_EXIT = Method(
    name="early-exit",
    title="Self-speculation by early exit, on a static tree",
    try_when="The model was trained for early exit, such as the LayerSkip checkpoints.",
    about=(
        "The model drafts by its first layers, followed by its own norm and head. The likeliest tokens of each level "
        "fill a tree that is fixed when the bundle is compiled. Each level of the tree costs one short call. The model "
        "verifies all branches in one step. The exit's rows are those of the model, so no second cache is needed."
    ),
    paper="LayerSkip, Elhoushi et al. 2024, arXiv:2404.16710; Medusa's trees, Cai et al. 2024, arXiv:2401.10774",
    departures=(
        "The model is as it was trained; LayerSkip trains it with early exits, without which few drafts are right.",
        "Verification runs all layers for each slot; the recipe layerskip goes on from the exit's hidden states.",
    ),
    family=Family.ITSELF,
    drafter="early-exit",
    topology="static tree",
    length="budget",
    plan=_plan_early_exit,
    parameters={"assistant_early_exit": EXIT, "tree": TREE},
)


def _plan_token_recycling(values: Values, facts: Facts) -> MethodBlocks:
    slots = 1 + count(values, "num_speculative_tokens")
    if values["tree"] is None:
        tree = Tree.best_first(TREES.rates, slots, TREES.recycled_depth)
    else:
        tree = tree_of(values["tree"])
    if (widest := max(tree.rank)) >= RANKS:
        raise RecipeError(
            f"tree has a child of rank {widest}; token-recycling keeps {RANKS} successors: use ranks 0..{RANKS - 1}"
        )
    arguments = {"tree": tree.parents, "vocab_size": facts.vocab_size}
    return MethodBlocks((Block(tree, RANKED_OUTPUTS),), {}, arguments)


TOKEN_RECYCLING = Method(
    name="token-recycling",
    title="Token Recycling",
    try_when="A step with 20 or more slots costs little more than one slot, and one session lasts long.",
    about=(
        "It keeps a table of the eight likeliest successors of each token, as the model last gave them. The table "
        "fills a tree below the pending token. The model verifies the tree in one step. In the same step it gives the "
        "successors of every token of the tree, right or wrong, and the table takes them. It learns in a session, and "
        "needs no draft model."
    ),
    paper="Luo et al. 2024, arXiv:2408.08696",
    departures=("The tree is smaller, since a step with 80 slots costs much more on a CPU than on a GPU.",),
    family=Family.GUESSES,
    drafter="token-recycling",
    topology="static tree",
    length="budget",
    schedule="fused",
    plan=_plan_token_recycling,
    parameters={
        "num_speculative_tokens": Parameter(TREES.recycled_nodes, "tree nodes", "80"),
        "tree": TREE,
    },
)


def _plan_dynamic_tree(values: Values, facts: Facts) -> MethodBlocks:
    slots = 1 + count(values, "num_speculative_tokens")
    frontier = draft_frontier(TREES.frontier, slots)
    arguments = {name: count(values, name) for name in ("num_speculative_tokens", "max_depth")}
    if facts.assistant:
        return MethodBlocks((Block(Parents(slots)),), draft_model(frontier), arguments)
    draft = Block(frontier, RANKED_OUTPUTS, exit_layers(values, facts))
    return MethodBlocks((Block(Parents(slots)),), {"draft": draft}, arguments)


DYNAMIC_TREE = Method(
    name="dynamic-tree",
    title="DySpec's tree by a threshold, over early exit or a draft model",
    try_when="A draft model or an early exit has high probabilities at some places and low ones at others.",
    about=(
        "A draft grows a tree level by level. A node gets children while the probability to reach them exceeds a "
        "threshold, one divided by the slots. So sure places give long branches, and unsure places give wide ones. "
        "The draft is an early exit of the model, or a draft model if the compile has one. The model verifies the tree "
        "in one step."
    ),
    paper="DySpec, Xiong et al. 2024, arXiv:2410.11744",
    departures=(
        "Children are the likeliest tokens, and acceptance is by match; the recipe dyspec-threshold draws them and "
        "accepts by their probabilities, as the paper does.",
    ),
    family=Family.ITSELF,
    drafter="dynamic-tree",
    topology="dynamic tree",
    length="budget",
    plan=_plan_dynamic_tree,
    parameters={
        "num_speculative_tokens": Parameter(TREES.dynamic_nodes, "tree nodes at most"),
        "max_depth": Parameter(TREES.dynamic_depth, "levels of the tree at most"),
        "assistant_early_exit": EXIT,
    },
)


def _plan_adaptix(values: Values, facts: Facts) -> MethodBlocks:
    slots = 1 + count(values, "num_speculative_tokens")
    count(values, "max_depth")
    count(values, "search_iterations", 0, MOST_ITERATIONS)
    corpus = {"corpus": CORPUS_FILE, "vocab_size": facts.vocab_size} if facts.corpus else {}
    return MethodBlocks((DECODE, Block(Parents(slots))), {}, {**values, **corpus})


ADAPTIX = Method(
    name="adaptix",
    title="ADED, or Adaptix: a tree search over the trigrams of the text",
    try_when="The text repeats itself with variations, and a step with many slots costs little more than one slot.",
    about=(
        "It counts which tokens follow each pair of tokens, in a corpus and in the text. A search over these counts "
        "finds the likely continuations. The most probable ones become a tree. The model verifies the tree in one "
        "step. Recent trigrams of the text weigh more with each step."
    ),
    paper="Liu et al. 2024, arXiv:2407.12021",
    departures=(
        "Each occurrence in the text counts one, so that the search works without --corpus too.",
        "The search is best-first, unless search_iterations is set; the paper's is a Monte Carlo tree search. It takes "
        "many times as long, and by the trigrams themselves fewer of its tokens are right.",
    ),
    family=Family.TEXT,
    drafter="trigram-search",
    topology="dynamic tree",
    length="budget",
    plan=_plan_adaptix,
    parameters={
        "num_speculative_tokens": Parameter(TREES.recycled_nodes, "tree nodes at most", "64"),
        "max_depth": Parameter(4, "levels of the search", "4"),
        "search_iterations": Parameter(
            0, "paths that the paper's Monte Carlo tree search tries; with 0 the search is best-first", "150"
        ),
    },
    by_default=False,
)
