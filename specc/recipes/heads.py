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


def _plan_eagle(values: Values, facts: Facts) -> MethodBlocks:
    return _plan_chain("eagle", values, facts)


_CHAIN = {
    "num_speculative_tokens": Parameter(LENGTHS.head, "tokens a draft at most"),
    "assistant_confidence_threshold": CONFIDENCE,
}
_NODES = {
    "num_speculative_tokens": Parameter(TREES.head_nodes, "tree nodes at most", "60"),
    "max_depth": Parameter(TREES.head_depth, "levels of the tree at most", "6"),
}
EAGLE = Method(
    name="eagle",
    title="EAGLE's trained layer, on chains",
    try_when="An EAGLE head was trained for the model, by others or by 'specc train'; eagle3 learns more from text.",
    about=(
        "A trained layer drafts. It reads the last token beside the state that the model's last product read before. "
        "It guesses the next such state, and the model's own product turns it into a token. It drafts a chain, one "
        "token a call. The model verifies it in one step."
    ),
    paper="EAGLE, Li et al. 2024, arXiv:2401.15077",
    departures=("Drafts are chains, and the paper's are a tree of fixed shape; eagle2 has trees.",),
    family=Family.HEADS,
    drafter="eagle",
    topology="chain",
    length="confidence",
    plan=_plan_eagle,
    parameters=_CHAIN,
    needs=("head",),
    head="eagle",
)


def _plan_eagle2(values: Values, facts: Facts) -> MethodBlocks:
    return _plan_tree("eagle", values, facts)


EAGLE2 = Method(
    name="eagle2",
    title="EAGLE's trained layer, on EAGLE-2's dynamic trees",
    try_when="An EAGLE head was trained for the model, and a step with 12 slots costs little more than one slot.",
    about=(
        "A trained layer drafts, as in eagle. It grows a tree: each level runs the nodes that are likeliest to be "
        "reached, by its own probabilities. Then all nodes are ranked once more. The likeliest are the draft. The "
        "model verifies them in one step."
    ),
    paper="EAGLE-2, Li et al. 2024, arXiv:2406.16858",
    departures=("The tree is smaller, since a step with 60 slots costs much more on a CPU than on a GPU.",),
    family=Family.HEADS,
    drafter="eagle-tree",
    topology="dynamic tree",
    length="budget",
    plan=_plan_eagle2,
    parameters=_NODES,
    needs=("head",),
    head="eagle",
)


def _plan_mtp(values: Values, facts: Facts) -> MethodBlocks:
    return _plan_chain("mtp", values, facts)


MTP = Method(
    name="mtp",
    title="A module for multi-token prediction, on chains",
    try_when="The model came with such a module, as DeepSeek-V3's kin do, or 'specc train' made one.",
    about=(
        "A trained layer drafts. It norms the last token's embedding and the model's last state, and multiplies both "
        "by one matrix. Its output makes a token by the model's own product, and is the state of the next call. It "
        "drafts a chain, one token a call. The model verifies it in one step."
    ),
    paper="DeepSeek-V3, DeepSeek-AI 2024, arXiv:2412.19437; FastMTP, Cai et al. 2025, arXiv:2509.18362",
    departures=("One module is run for each token, as in FastMTP; DeepSeek-V3 trains a module for each depth.",),
    family=Family.HEADS,
    drafter="eagle",
    topology="chain",
    length="confidence",
    plan=_plan_mtp,
    parameters=_CHAIN,
    needs=("head",),
    head="mtp",
)


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
    parameters=_CHAIN,
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
    parameters=_NODES,
    needs=("head",),
    head="eagle3",
)
