"""Methods that draft by a recurrent trained head: a small layer that reads the target's hidden states, then its own."""

from __future__ import annotations

from specc.recipes.blocks import CONFIDENCE, DECODE, chains, count, head_block, length_arguments
from specc.recipes.defaults import LENGTHS, TREES, WIDTHS
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block, Frontier, Parents
from specc.runtime.tree import Tree


def _plan_chain(head: str, values: Values, facts: Facts) -> MethodBlocks:
    """Plan chains by a recurrent head. After a step, one call runs the accepted tokens beside the target's states."""
    slots = 1 + count(values, "num_speculative_tokens")
    engines = {"draft": head_block(head, Tree.chain(1)), **_reading_blocks(head, slots)}
    return MethodBlocks(chains(slots), engines, length_arguments(values))


def _reading_blocks(head: str, slots: int) -> dict[str, Block]:
    """Return the blocks of a head that run accepted tokens: those of a step of so many slots, and of a prompt."""
    return {
        "feed": head_block(head, Tree.chain(slots), last_row=True),
        "prefill": head_block(head, Tree.chain(WIDTHS.prefill), last_row=True),
    }


def _plan_eagle3(values: Values, facts: Facts) -> MethodBlocks:
    return _plan_chain("eagle3", values, facts)


EAGLE3 = Method(
    name="eagle3",
    title="EAGLE-3's trained layer, on chains",
    try_when="The answer is new text, and a head was trained for the model by 'specc train'.",
    about=(
        "A trained layer drafts. It reads the model's hidden states of several layers beside the embeddings of tokens. "
        "For tokens that are only drafted it reads its own state instead. It drafts a chain, one token a call. The "
        "model verifies it in one step, which also gives the states for the next draft."
    ),
    paper="EAGLE-3, Li et al. 2025, arXiv:2503.01840",
    departures=("Drafts are chains; eagle3-tree has trees.",),
    family=Family.HEADS,
    drafter="eagle",
    topology="chain",
    length="confidence",
    plan=_plan_eagle3,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.head, "tokens a draft at most"),
        "assistant_confidence_threshold": CONFIDENCE,
    },
    needs=("head",),
    head="eagle3",
)


def _plan_tree(head: str, values: Values, facts: Facts) -> MethodBlocks:
    """Plan trees by a recurrent head. A call runs some nodes of a level, which see those above them in the tree."""
    slots, depth = 1 + count(values, "num_speculative_tokens"), count(values, "max_depth")
    width = TREES.frontier
    frontier = Frontier(width, 1 + width * depth)
    engines = {"draft": head_block(head, frontier), **_reading_blocks(head, 1 + depth)}
    verify = (DECODE, Block(Parents(slots)))
    return MethodBlocks(verify, engines, {name: values[name] for name in ("num_speculative_tokens", "max_depth")})


def _plan_eagle3_tree(values: Values, facts: Facts) -> MethodBlocks:
    return _plan_tree("eagle3", values, facts)


EAGLE3_TREE = Method(
    name="eagle3-tree",
    title="EAGLE-3's trained layer, on EAGLE-2's dynamic trees",
    try_when="A head was trained for the model, and a step with 12 slots costs little more than one slot.",
    about=(
        "A trained layer drafts, as in eagle3. It grows a tree: each level runs the nodes that are likeliest to be "
        "reached, by its own probabilities. Then all nodes are ranked once more. The likeliest are the draft. The "
        "model verifies them in one step."
    ),
    paper="EAGLE-2, Li et al. 2024, arXiv:2406.16858; EAGLE-3, Li et al. 2025, arXiv:2503.01840",
    departures=("The tree is smaller, since a step with 60 slots costs much more on a CPU than on a GPU.",),
    family=Family.HEADS,
    drafter="eagle-tree",
    topology="dynamic tree",
    length="budget",
    plan=_plan_eagle3_tree,
    parameters={
        "num_speculative_tokens": Parameter(TREES.head_nodes, "tree nodes at most", "60"),
        "max_depth": Parameter(TREES.head_depth, "levels of the tree at most", "6"),
    },
    needs=("head",),
    head="eagle3",
)
