"""The method that drafts by a trained head which makes two tokens a call."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from specc.recipes.blocks import DECODE, RANKS, TREE, count, tree_of
from specc.recipes.defaults import TREES
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.recipes.heads import stacked_blocks
from specc.runtime.block import Block, Frontier
from specc.runtime.drafters.falcon import BLOCK
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree

DEPTH = 2 * BLOCK  # levels of the tree by default: those of two calls
PREFILL = 16  # slots of the block that reads prompts, in which each slot has a cell of its own


def _plan(values: Values, facts: Facts) -> MethodBlocks:
    """Plan one static tree, of the user or the best one, and a draft block that runs a level's blocks in one call."""
    slots = 1 + count(values, "num_speculative_tokens")
    tree = Tree.best_first(TREES.rates, slots, DEPTH) if values["tree"] is None else tree_of(values["tree"])
    if (widest := max(tree.rank)) >= RANKS:
        raise RecipeError(f"tree has a child of rank {widest}; falcon has {RANKS} of each token: use 0..{RANKS - 1}")
    depths = [int(tree.depth[node]) for node, below in enumerate(tree.children) if below]
    blocks = Counter(depth for depth in depths if depth and depth % BLOCK == 0)
    width = BLOCK * max(blocks.values(), default=1)
    frontier = Frontier(width, 1 + width * max(1, len(blocks)))
    engines = stacked_blocks("falcon", frontier, 1 + int(tree.depth.max()), facts)
    engines["prefill"] = replace(engines["prefill"], topology=Tree.chain(PREFILL))
    return MethodBlocks((DECODE, Block(tree)), engines, {"tree": tree.parents})


FALCON = Method(
    name="falcon",
    title="Falcon: LSTM layers and a block of two slots make two tokens a call, on a static tree",
    try_when="Such a head was trained for the model, and a call of the head costs much beside a step of the model.",
    about=(
        "Two LSTM layers of a trained head run over the tokens beside the states that the model's last product reads. "
        "Then one decoder layer attends: two slots see one another and all before them. They guess two tokens, and "
        "the states behind both. The next call runs blocks of two drafted tokens, so a tree that is fixed when the "
        "bundle is compiled grows by two levels a call. The model verifies it in one step."
    ),
    paper="Falcon, Gao et al. 2024, arXiv:2412.12639",
    departures=(
        "Both guesses correct a linear one, which starts from a closed form; the paper's layers make the whole guess.",
        "The tree is smaller by default, since a step with many slots costs much more on a CPU than on a GPU.",
    ),
    family=Family.HEADS,
    drafter="falcon",
    topology="static tree",
    length="budget",
    plan=_plan,
    parameters={"num_speculative_tokens": Parameter(TREES.head_nodes, "tree nodes"), "tree": TREE},
    needs=("head",),
    head="falcon",
)
