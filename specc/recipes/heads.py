"""Methods that draft by a recurrent trained head: a small layer that reads the target's hidden states, then its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from specc.recipes.blocks import CONFIDENCE, DECODE, RANKS, chains, count, head_block, length_arguments
from specc.recipes.defaults import LENGTHS, TREES, WIDTHS
from specc.recipes.entry import Facts, Family, HeadFacts, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block, Frontier, Parents
from specc.runtime.node_budget import NodeBudget, check_step_costs
from specc.runtime.tree import Tree


def plan_chain(head: str, values: Values, facts: Facts) -> MethodBlocks:
    """Plan chains by a recurrent head. After a step, one call runs the accepted tokens beside the target's states."""
    slots = 1 + count(values, "num_speculative_tokens")
    engines = drafting_blocks(head, Tree.chain(1), slots, facts)
    return MethodBlocks(chains(slots), engines, length_arguments(values))


def drafting_blocks(head: str, topology: Tree | Frontier, slots: int, facts: Facts) -> dict[str, Block]:
    """Return the blocks of a recurrent head: one that drafts, and those that run accepted tokens.

    Those that run accepted tokens have logits for trees too, so that trees share them with chains, whose drafts can be
    sampled.

    Args:
        head: its name.
        topology: that of a call that drafts.
        slots: accepted tokens of a step at most.
        facts: of the model and its heads.
    """
    head_facts = facts.heads.get(head, HeadFacts())
    draft = head_block(head, topology, head_facts, logits=isinstance(topology, Tree), drafts=True)
    if not head_facts.attends:  # It needs the last token alone, so one block reads steps and prompts.
        last = head_block(head, Tree.chain(1), head_facts, logits=True)
        return {"draft": draft, "feed": last, "prefill": last}
    return {
        "draft": draft,
        "feed": head_block(head, Tree.chain(slots), head_facts, last_row=True, logits=True),
        "prefill": head_block(head, Tree.chain(WIDTHS.prefill), head_facts, last_row=True, logits=True),
    }


def stacked_blocks(head: str, topology: Tree | Frontier, slots: int, facts: Facts) -> dict[str, Block]:
    """Return the blocks of a recurrent head that guesses several tokens in each slot. It attends to the text.

    Args:
        head: its name.
        topology: that of a call that drafts.
        slots: accepted tokens of a step at most.
        facts: of the model and its heads.
    """
    outputs = (f"top_k:{RANKS}", "next_state")
    draft = Block(topology, outputs, model=head, cache=head, inputs=("state",))
    widths = {"feed": slots, "prefill": WIDTHS.prefill}
    reading = {role: replace(draft, topology=Tree.chain(width), last_row=True) for role, width in widths.items()}
    return {"draft": draft, **reading}


def plan_tree(
    head: str,
    values: Values,
    facts: Facts,
    blocks: Callable[[str, Tree | Frontier, int, Facts], dict[str, Block]] = drafting_blocks,
) -> MethodBlocks:
    """Plan trees by a recurrent head. A call runs some nodes of a level, which see those above them in the tree.

    Args:
        head: its name.
        values: of the parameters.
        facts: of the model and its heads.
        blocks: returns the blocks of the head, as `drafting_blocks` does.
    """
    slots, depth = 1 + count(values, "num_speculative_tokens"), count(values, "max_depth")
    costs = step_costs(slots) if values["step_costs"] is None else check_step_costs(values["step_costs"])
    arguments = dict(values) | {"step_costs": tuple(costs)}
    NodeBudget(slots - 1, costs)
    width = TREES.frontier
    frontier = Frontier(width, 1 + width * depth)
    longest = slots if "match_rates" in values else 1 + depth
    engines = blocks(head, frontier, longest, facts)
    widths = [n for n, _ in costs if 1 < n < slots]
    return MethodBlocks((DECODE, *(Block(Parents(n)) for n in (*widths, slots))), engines, arguments)


def step_costs(slots: int) -> list[tuple[int, float]]:
    """Return the widths of a dynamic tree of so many slots, and what a step of each costs until it is measured."""
    widths = [*(width for width in WIDTHS.trees if width < slots), slots]
    return [(1, 1.0), *((width, round(1 + WIDTHS.wide_step + WIDTHS.slot * (width - 1), 3)) for width in widths)]


_CHAIN = {
    "num_speculative_tokens": Parameter(LENGTHS.head, "tokens a draft at most"),
    "assistant_confidence_threshold": CONFIDENCE,
}
STEP_COSTS = Parameter(
    None,
    "pairs of slots and the cost of a step; these widths are compiled, and as many nodes are drafted as pay; [] drafts "
    "whole trees (default: 4, 6, 8 and all slots)",
)
NODES = {
    "num_speculative_tokens": Parameter(TREES.head_nodes, "tree nodes at most", "60"),
    "max_depth": Parameter(TREES.head_depth, "levels of the tree at most", "6"),
    "step_costs": STEP_COSTS,
}
EAGLE = Method(
    name="eagle",
    title="EAGLE's trained layer, on chains",
    try_when="An EAGLE head was trained for the model, by others or by 'specc train'; eagle3 learns more.",
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
    plan=partial(plan_chain, "eagle"),
    parameters=_CHAIN,
    needs=("head",),
    head="eagle",
)


EAGLE2 = Method(
    name="eagle2",
    title="EAGLE's trained layer, on EAGLE-2's dynamic trees",
    try_when="An EAGLE head was trained for the model, and a step with 12 slots costs little more than one slot.",
    about=(
        "A trained layer drafts, as in eagle. It grows a tree: each level runs the nodes that are likeliest to be "
        "reached, by its own probabilities. Then all nodes are ranked once more. As many of the likeliest are the "
        "draft as pay by the costs of a step. The model verifies them in one step."
    ),
    paper="EAGLE-2, Li et al. 2024, arXiv:2406.16858",
    departures=(
        "The tree is smaller, since a step with 60 slots costs much more on a CPU than on a GPU.",
        "Trees have as many nodes as pay; the paper's always have their full size.",
    ),
    family=Family.HEADS,
    drafter="eagle-tree",
    topology="dynamic tree",
    length="budget",
    plan=partial(plan_tree, "eagle"),
    parameters=NODES,
    needs=("head",),
    head="eagle",
    trained_as="eagle",
)


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
    plan=partial(plan_chain, "mtp"),
    parameters=_CHAIN,
    needs=("head",),
    head="mtp",
)


def _plan_peagle(values: Values, facts: Facts) -> MethodBlocks:
    """Plan chains that one call drafts: accepted tokens come first, then a slot for each further guess."""
    most = count(values, "num_speculative_tokens")
    draft = Block(Tree.chain(2 * most), ("ids",), model="peagle", cache="peagle", inputs=("state",))
    prefill = Block(
        Tree.chain(WIDTHS.prefill), ("ids",), last_row=True, model="peagle", cache="peagle", inputs=("state",)
    )
    return MethodBlocks(chains(1 + most), {"draft": draft, "prefill": prefill}, {"num_speculative_tokens": most})


PEAGLE = Method(
    name="peagle",
    title="P-EAGLE's trained layer, which drafts a chain in one call",
    try_when="Such a head was trained for the model, and a call with twice as many slots costs little more.",
    about=(
        "A trained layer drafts, as in eagle3, but a whole chain in one call. Behind the accepted tokens stand slots "
        "without a token. Each has a learned embedding and a learned state. It guesses the token of its position. The "
        "model verifies the chain in one step."
    ),
    paper="P-EAGLE, Hui et al. 2026, arXiv:2602.01469",
    departures=("The head has one layer by default, and the paper's has four.",),
    family=Family.HEADS,
    drafter="peagle",
    topology="chain",
    plan=_plan_peagle,
    parameters={"num_speculative_tokens": Parameter(LENGTHS.head, "tokens a draft at most")},
    needs=("head",),
    head="peagle",
)


ADAEAGLE = Method(
    name="adaeagle",
    title="AdaEAGLE: a trained layer that also says how much to draft",
    try_when="Such a head was trained for the model, and drafts are accepted now wholly, now not at all.",
    about=(
        "A trained layer drafts, as in eagle3. A small network reads the pending token and the last state, and guesses "
        "how many drafted tokens will be accepted. So many are drafted, one token a call, or none. The number is known "
        "before the first call that only drafts. The model verifies the chain in one step."
    ),
    paper="AdaEAGLE, Zhang et al. 2024, arXiv:2412.18910",
    departures=(
        "The network reads the state that the layer reads, and both are trained together.",
        "It stands on EAGLE-3's layer, and the paper's on EAGLE's.",
    ),
    family=Family.HEADS,
    drafter="ada-eagle",
    topology="chain",
    length="predicted",
    plan=partial(plan_chain, "adaeagle"),
    parameters=_CHAIN,
    needs=("head",),
    head="adaeagle",
)


FSPAD = Method(
    name="fspad",
    title="FSPAD: EAGLE's layer over states that the token samples",
    try_when="Such a head was trained for the model, and a step with 12 slots costs little more than one slot.",
    about=(
        "A trained layer drafts, as in eagle. Before it runs, the token's embedding gates the last state. What the "
        "next slot reads is not what makes the logits, so each is trained for its own aim. It grows a tree as eagle2 "
        "does. The model verifies the tree in one step."
    ),
    paper="FSPAD, Gui et al. 2024, arXiv:2408.15562",
    departures=("The gate and the split of the two outputs are our reading of the paper's abstract.",),
    family=Family.HEADS,
    drafter="eagle-tree",
    topology="dynamic tree",
    length="budget",
    plan=partial(plan_tree, "fspad"),
    parameters=NODES,
    needs=("head",),
    head="fspad",
)


EAGLE3 = Method(
    name="eagle3",
    title="EAGLE-3's trained layer, on chains",
    try_when="The answer is new text, and a head was trained for the model by 'specc train'.",
    about=(
        "A trained layer reads the model's hidden states of several layers beside the embeddings of tokens. "
        "For tokens that are only drafted it reads its own state instead. It drafts a chain, one token a call. The "
        "model verifies it in one step, which also gives the states for the next draft. With --acceptance "
        "speculative a request that samples has sampled drafts."
    ),
    paper="EAGLE-3, Li et al. 2025, arXiv:2503.01840",
    departures=("Drafts are chains; eagle3-tree has trees.",),
    family=Family.HEADS,
    drafter="eagle",
    topology="chain",
    length="confidence",
    plan=partial(plan_chain, "eagle3"),
    parameters=_CHAIN,
    needs=("head",),
    head="eagle3",
)


EAGLE3_TREE = Method(
    name="eagle3-tree",
    title="EAGLE-3's trained layer, on EAGLE-2's dynamic trees",
    try_when="A head was trained for the model, and a step with 12 slots costs little more than one slot.",
    about=(
        "A trained layer drafts, as in eagle3. It grows a tree: each level runs the nodes that are likeliest to be "
        "reached, by its own probabilities. Then all nodes are ranked once more. As many of the likeliest are the "
        "draft as pay by the costs of a step. The model verifies them in one step."
    ),
    paper="EAGLE-2, Li et al. 2024, arXiv:2406.16858; EAGLE-3, Li et al. 2025, arXiv:2503.01840",
    departures=(
        "The tree is smaller, since a step with 60 slots costs much more on a CPU than on a GPU.",
        "Trees have as many nodes as pay; the paper's always have their full size.",
    ),
    family=Family.HEADS,
    drafter="eagle-tree",
    topology="dynamic tree",
    length="budget",
    plan=partial(plan_tree, "eagle3"),
    parameters=NODES,
    needs=("head",),
    head="eagle3",
    trained_as="eagle3",
)


TANDEM = Method(
    name="tandem",
    title="Tandem: a small model that attends to the states of the model",
    try_when="Such a head was trained for the model; eagle3 costs less for a token.",
    about=(
        "A small model of a few layers drafts. Its layers attend to the tokens that the model has run by the model's "
        "states of them, each layer to those after one layer of the model. They attend to drafted tokens by states of "
        "their own. It drafts a chain, one token a call. The model verifies it in one step."
    ),
    paper="Tandem Transformers, Aishwarya et al. 2024, arXiv:2402.08644: with speculative decoding",
    departures=(
        "The model stays as it is, and the small one starts from layers of it; the paper trains both further.",
        "A small model attends to no states of the token that it runs, but to those before it.",
        "A threshold on the confidence ends a draft; the paper trains a router for that.",
    ),
    family=Family.HEADS,
    drafter="eagle",
    topology="chain",
    length="confidence",
    plan=partial(plan_chain, "tandem"),
    parameters=_CHAIN,
    needs=("head",),
    head="tandem",
)
