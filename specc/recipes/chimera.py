"""The method that drafts by a trigram encoder below one layer of full context."""

from __future__ import annotations

from specc.recipes.blocks import DECODE, RANKS, TREE, count, tree_of
from specc.recipes.defaults import TREES
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.recipes.heads import drafting_blocks
from specc.runtime.block import Block, Frontier
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree


def _plan(values: Values, facts: Facts) -> MethodBlocks:
    """Plan one static tree, of the user or the best one. Each level of it is a call of the head or several."""
    slots = 1 + count(values, "num_speculative_tokens")
    tree = Tree.best_first(TREES.rates, slots, TREES.head_depth) if values["tree"] is None else tree_of(values["tree"])
    if (widest := max(tree.rank)) >= RANKS:
        raise RecipeError(f"tree has a child of rank {widest}; chimera has {RANKS} of each token: use 0..{RANKS - 1}")
    frontier = Frontier(TREES.frontier, TREES.frontier + tree.slots)
    engines = drafting_blocks("chimera", frontier, 1 + int(tree.depth.max()), facts)
    return MethodBlocks((DECODE, Block(tree)), engines, {"tree": tree.parents})


CHIMERA = Method(
    name="chimera",
    title="Chimera: a trigram encoder and one layer of full context, on a static tree",
    try_when="A Chimera head was trained for the model, and a step with 12 slots costs little more than one slot.",
    about=(
        "In a trained head, an MLP over the embeddings of the last three tokens stands for the model's lower "
        "layers. One decoder layer reads that, and the model's last states of all tokens that it has run. Its output "
        "is the state of the next token. The likeliest tokens fill a tree that is fixed when the bundle is compiled, "
        "a level a call. The model verifies the tree in one step."
    ),
    paper="Chimera, Zeng et al. 2024, arXiv:2402.15758",
    departures=(
        "Half of the layer's heads look at states, the others at trigrams; in the paper all look at both.",
        "The last product reads one state; the paper's reads two side by side.",
        "Acceptance is by match; the paper's typical acceptance is lossy, and a request can ask for it.",
    ),
    family=Family.HEADS,
    drafter="chimera",
    topology="static tree",
    length="budget",
    plan=_plan,
    parameters={
        "num_speculative_tokens": Parameter(TREES.head_nodes, "tree nodes"),
        "tree": TREE,
    },
    needs=("head",),
    head="chimera",
)
