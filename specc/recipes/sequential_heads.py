"""Methods whose trained head drafts one token a call, and reads the drafted tokens before it."""

from __future__ import annotations

from functools import partial

from specc.recipes.blocks import DECODE, RANKS, count
from specc.recipes.defaults import TREES
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.recipes.heads import STEP_COSTS, drafting_blocks, plan_tree
from specc.runtime.block import Block, Frontier, Parents

GUESS = "The head corrects a linear guess, which starts from a closed form; the paper's makes the whole guess."
SMALLER = "The tree is smaller and grows by probabilities, as in EAGLE-2; the paper's has one shape, and 64 slots."
MATCH = "Acceptance is by match; the paper's typical acceptance is lossy, and a request can ask for it."
NODES = {
    "num_speculative_tokens": Parameter(TREES.head_nodes, "tree nodes at most", "63"),
    "max_depth": Parameter(TREES.head_depth, "levels of the tree at most", "4"),
    "step_costs": STEP_COSTS,
}


HYDRA = Method(
    name="hydra",
    title="Hydra's trained heads, each of which reads the drafted tokens before it",
    try_when="Hydra heads were trained for the model, and a step with 12 slots costs little more than one slot.",
    about=(
        "Several trained heads draft, one for each token ahead. Each reads the model's last hidden state and the "
        "embeddings of all tokens since, the drafted ones too. They have no attention, so a call is cheap. The "
        "likeliest tokens make a tree. The model verifies it in one step."
    ),
    paper="Hydra, Ankner et al. 2024, arXiv:2402.05109",
    departures=(GUESS, "The heads learn the model's probabilities; the paper's Hydra learns tokens.", SMALLER, MATCH),
    family=Family.HEADS,
    drafter="eagle-tree",
    topology="dynamic tree",
    length="budget",
    plan=partial(plan_tree, "hydra"),
    parameters=NODES,
    needs=("head",),
    head="hydra",
)


HYDRA_PLUS_PLUS = Method(
    name="hydra-plus-plus",
    title="Hydra++: deeper heads, and a decoder layer before them",
    try_when="Hydra++ heads were trained for the model, and a step with 12 slots costs little more than one slot.",
    about=(
        "As in hydra, each head reads the drafted tokens before it. A decoder layer runs the model's hidden states "
        "first. So the heads know more of the text. Only the model's own tokens run it, once each. The heads have "
        "more layers."
    ),
    paper="Hydra++, Ankner et al. 2024, arXiv:2402.05109",
    departures=(GUESS, "The layers of a head after its first are shared by all heads.", SMALLER, MATCH),
    family=Family.HEADS,
    drafter="eagle-tree",
    topology="dynamic tree",
    length="budget",
    plan=partial(plan_tree, "hydra_plus_plus"),
    parameters=NODES,
    needs=("head",),
    head="hydra_plus_plus",
)


def _plan_recurrent_drafter(values: Values, facts: Facts) -> MethodBlocks:
    beams, depth = count(values, "beams", most=RANKS), count(values, "max_depth")
    frontier = Frontier(beams, 1 + beams * depth)
    engines = drafting_blocks("recurrent_drafter", frontier, 1 + depth, facts)
    return MethodBlocks((DECODE, Block(Parents(1 + beams * depth))), engines, dict(values))


RECURRENT_DRAFTER = Method(
    name="recurrent-drafter",
    title="Recurrent Drafter: beam search by a small recurrent network",
    try_when="Such a head was trained for the model, and a step with 17 slots costs little more than one slot.",
    about=(
        "A trained recurrent network drafts. It reads the model's last hidden state, and a small state of its own of "
        "the tokens since. A beam search keeps the likeliest texts. Their common beginnings are drafted once. The "
        "model verifies the tree in one step."
    ),
    paper="Recurrent Drafter, Zhang et al. 2024, arXiv:2403.09919",
    departures=(
        GUESS,
        "Acceptance is by match at every temperature. The paper compares the probabilities of a beam with the model's. "
        "That rule keeps neither tokens nor distribution, since a beam is no sample.",
    ),
    family=Family.HEADS,
    drafter="head-beam",
    topology="beam",
    plan=_plan_recurrent_drafter,
    parameters={
        "beams": Parameter(TREES.frontier, f"texts that the search keeps, {RANKS} at most", "10 to 45"),
        "max_depth": Parameter(4, "tokens of a text", "4 or 5"),
    },
    needs=("head",),
    head="recurrent_drafter",
)


CLOVER = Method(
    name="clover",
    title="Clover's trained head, which attends to the drafted token",
    try_when="A Clover head was trained for the model, and a step with 12 slots costs little more than one slot.",
    about=(
        "A trained head drafts. Its guess of one token is its state for the next. A small attention chooses what to "
        "take from that state and what from the drafted token. A decoder layer over the model's hidden states comes "
        "before. Only the model's own tokens run it."
    ),
    paper="Clover, Xiao et al. 2024, arXiv:2405.00263",
    departures=(GUESS, "One head is run again for each token; the paper has one for each.", SMALLER, MATCH),
    family=Family.HEADS,
    drafter="eagle-tree",
    topology="dynamic tree",
    length="budget",
    plan=partial(plan_tree, "clover"),
    parameters=NODES,
    needs=("head",),
    head="clover",
)


CLOVER_2 = Method(
    name="clover-2",
    title="Clover-2: two decoder layers, and a token weighted by a cosine",
    try_when="A Clover-2 head was trained for the model, and a step with 12 slots costs little more than one slot.",
    about=(
        "As in clover, the guess of one token is the state for the next. What a drafted token says is weighted by a "
        "cosine. Each part of the state has its own. An MLP over the state and the token follows. Two decoder layers "
        "over the model's hidden states come before."
    ),
    paper="Clover-2, Xiao et al. 2024, arXiv:2408.00264",
    departures=(
        GUESS,
        "The two layers start at zero; the paper's start as the model's last layer.",
        SMALLER,
        MATCH,
    ),
    family=Family.HEADS,
    drafter="eagle-tree",
    topology="dynamic tree",
    length="budget",
    plan=partial(plan_tree, "clover_2"),
    parameters=NODES,
    needs=("head",),
    head="clover_2",
)
