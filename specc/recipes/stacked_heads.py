"""Methods whose trained head guesses several tokens from one state, in one call."""

from __future__ import annotations

from dataclasses import replace

from specc.recipes.blocks import DECODE, RANKS, TREE, count, tree_of
from specc.recipes.defaults import TREES, WIDTHS
from specc.recipes.entry import Facts, Family, HeadFacts, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block
from specc.runtime.errors import RecipeError
from specc.runtime.sequence import TARGET
from specc.runtime.tree import Tree


def _plan(head: str, tree: Tree, facts: Facts) -> MethodBlocks:
    """Plan drafts of one tree, which one call of the heads fills."""
    attends = head in facts.heads and facts.heads[head].attends
    draft = Block(Tree.chain(1), (f"top_k:{RANKS}",), model=head, cache=head if attends else TARGET, inputs=("state",))
    engines = {"draft": draft}
    if attends:
        slots = {"feed": 1 + int(tree.depth.max()), "prefill": WIDTHS.prefill}
        engines |= {role: replace(draft, topology=Tree.chain(count), last_row=True) for role, count in slots.items()}
    return MethodBlocks((DECODE, Block(tree)), engines, {"tree": tree.parents})


def _guesses(head: str, facts: Facts) -> int:
    """Return how many tokens a head guesses from one state."""
    return facts.heads.get(head, HeadFacts()).stack


def _plan_tree(head: str, values: Values, facts: Facts) -> MethodBlocks:
    """Plan the tree of the user, or the best one."""
    slots, heads = 1 + count(values, "num_speculative_tokens"), _guesses(head, facts)
    tree = Tree.best_first(TREES.rates, slots, heads) if values["tree"] is None else tree_of(values["tree"])
    if (deepest := int(tree.depth.max())) > heads:
        raise RecipeError(f"tree has {deepest} levels; the head guesses {heads} tokens: give {heads} levels at most")
    if (widest := max(tree.rank)) >= RANKS:
        raise RecipeError(f"tree has a child of rank {widest}; {head} has {RANKS} of each token: use 0..{RANKS - 1}")
    return _plan(head, tree, facts)


def _plan_medusa(values: Values, facts: Facts) -> MethodBlocks:
    return _plan_tree("medusa", values, facts)


MEDUSA = Method(
    name="medusa",
    title="Medusa's trained heads, on a static tree",
    try_when="Medusa heads were trained for the model, and a step with 12 slots costs little more than one slot.",
    about=(
        "Several trained heads read the model's last hidden state. Each guesses the token one place further than the "
        "one before it. Their likeliest guesses fill a tree that is fixed when the bundle is compiled. One call of the "
        "heads gives the whole tree. The model verifies it in one step."
    ),
    paper="Medusa-1, Cai et al. 2024, arXiv:2401.10774",
    departures=(
        "The tree is smaller, since a step with 64 slots costs much more on a CPU than on a GPU.",
        "Acceptance is by match; the paper's typical acceptance is lossy, and a request can ask for it.",
    ),
    family=Family.HEADS,
    drafter="medusa",
    topology="static tree",
    length="budget",
    schedule="fused",
    plan=_plan_medusa,
    parameters={
        "num_speculative_tokens": Parameter(TREES.head_nodes, "tree nodes", "63"),
        "tree": TREE,
    },
    needs=("head",),
    head="medusa",
)


def _plan_blockwise(values: Values, facts: Facts) -> MethodBlocks:
    most = _guesses("blockwise", facts)
    length = most if values["num_speculative_tokens"] is None else count(values, "num_speculative_tokens", most=most)
    return _plan("blockwise", Tree.chain(1 + length), facts)


BLOCKWISE = Method(
    name="blockwise",
    title="Blockwise parallel decoding: trained guesses of the next tokens, on chains",
    try_when="Blockwise heads were trained for the model, and few slots a step are cheap.",
    about=(
        "A trained layer reads the model's last hidden state. Each part of it, under the model's own last product, "
        "guesses the token one place further. The guesses are a chain. The model verifies the chain in one step. Its "
        "last accepted state gives the next guesses."
    ),
    paper="Stern et al. 2018, arXiv:1811.03115",
    departures=(
        "The model stays as it is; the paper also trains the model with the heads.",
        "The heads run in a call of their own after the step, on the one accepted state; in the paper they run on all "
        "slots of the step. The steps are as many.",
        "Acceptance is by match, the paper's exact criterion; its top-k and distance criteria are lossy.",
    ),
    family=Family.HEADS,
    drafter="medusa",
    topology="chain",
    schedule="fused",
    plan=_plan_blockwise,
    parameters={
        "num_speculative_tokens": Parameter(None, "tokens a draft (default: as many as the head guesses)", "1 to 9"),
    },
    needs=("head",),
    head="blockwise",
)


def _plan_amphista(values: Values, facts: Facts) -> MethodBlocks:
    return _plan_tree("amphista", values, facts)


AMPHISTA = Method(
    name="amphista",
    title="Amphista's trained guesses, which attend to each other, on a static tree",
    try_when="An Amphista head was trained for the model, and a step of 12 slots costs little more than one.",
    about=(
        "Two trained layers adapt the model's hidden states to drafting. Then a slot is made for each token ahead. "
        "Each slot attends to all of them, the later ones too. One call gives all guesses, which fill a tree that is "
        "fixed when the bundle is compiled. The model verifies it in one step."
    ),
    paper="Amphista, Li et al. 2024, arXiv:2406.13170",
    departures=(
        "The slots correct a linear guess, which starts from a closed form; the paper's make the whole guess.",
        "The tree is smaller, since a step with 64 slots costs much more on a CPU than on a GPU.",
        "Acceptance is by match; the paper's typical acceptance is lossy, and a request can ask for it.",
    ),
    family=Family.HEADS,
    drafter="medusa",
    topology="static tree",
    length="budget",
    plan=_plan_amphista,
    parameters={
        "num_speculative_tokens": Parameter(TREES.head_nodes, "tree nodes", "63"),
        "tree": TREE,
    },
    needs=("head",),
    head="amphista",
)
