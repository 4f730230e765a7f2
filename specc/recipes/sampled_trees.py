"""Methods that verify trees of a draft model by rules for sampled drafts."""

from __future__ import annotations

from specc.recipes.blocks import RANKS, branching_tree, count, draft_frontier, draft_model
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block, Parents
from specc.runtime.drafters import MOST_TOKENS
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree


def _static(tree: Tree) -> MethodBlocks:
    """Return the blocks of a draft model that fills a static tree, a level a call."""
    widest = max(int((tree.depth == level).sum()) for level in range(int(tree.depth.max())))
    return MethodBlocks((Block(tree),), draft_model(draft_frontier(widest, tree.slots)), {"tree": tree.parents})


def _plan_spectr(values: Values, facts: Facts) -> MethodBlocks:
    return _static(branching_tree([count(values, "chains"), *[1] * (count(values, "num_speculative_tokens") - 1)]))


SPECTR = Method(
    name="spectr",
    title="SpecTr: several independent chains of a draft model",
    try_when="Answers are sampled, and a step with 12 or more slots costs little more than one slot.",
    about=(
        "A draft model draws several chains, each independent of the others. The model runs all of them in one step. A "
        "rule from optimal transport accepts one of them at each place, more often than for one chain alone. Chains "
        "that disagree with the accepted token drop out. The answer keeps the distribution of the model."
    ),
    paper="SpecTr, Sun et al. 2023, arXiv:2310.15141",
    family=Family.SECOND_MODEL,
    drafter="static-tree",
    topology="static tree",
    plan=_plan_spectr,
    parameters={
        "chains": Parameter(3, "chains, k", "8"),
        "num_speculative_tokens": Parameter(4, "tokens of a chain, L", "8"),
    },
    acceptance="kseq",
    by_default=False,
    needs=("assistant-model",),
)


def _plan_rsd_c(values: Values, facts: Facts) -> MethodBlocks:
    tree = branching_tree(values["branching"])
    if max(tree.rank) >= RANKS:
        raise RecipeError(f"branching is {values['branching']!r}; a draft ranks {RANKS} tokens: give {RANKS} at most")
    return _static(tree)


RSD_C = Method(
    name="rsd-c",
    title="Recursive speculative decoding on a tree of constant branching",
    try_when="Answers are sampled, and the draft model's second and third tokens are often right.",
    about=(
        "A draft model draws a tree whose nodes of one level have the same number of children. Siblings are drawn "
        "without replacement, so no two are equal. The model runs the tree in one step. It tries the siblings one "
        "after another, each against what the ones before left of its distribution. The answer keeps the distribution "
        "of the model."
    ),
    paper="RSD-C, Jeon et al. 2024, arXiv:2402.14160",
    family=Family.SECOND_MODEL,
    drafter="static-tree",
    topology="static tree",
    length="budget",
    plan=_plan_rsd_c,
    parameters={
        "branching": Parameter((2, 2, 1), "children of a node in each level, b", "trees of 6 to 60 nodes"),
    },
    acceptance="recursive",
    by_default=False,
    needs=("assistant-model",),
)


def _plan_rsd_s(values: Values, facts: Facts) -> MethodBlocks:
    beams, depth = count(values, "beams"), count(values, "max_depth")
    slots = 1 + beams * depth
    if slots > 1 + MOST_TOKENS:
        raise RecipeError(f"beams {beams} and max_depth {depth} make {slots - 1} nodes; give {MOST_TOKENS} at most")
    engines = draft_model(draft_frontier(beams, slots))
    return MethodBlocks((Block(Parents(slots)),), engines, {"beams": beams, "max_depth": depth})


RSD_S = Method(
    name="rsd-s",
    title="Recursive speculative decoding by stochastic beam search",
    try_when="Answers are sampled, and a draft model is sure at some places and unsure at others.",
    about=(
        "A draft model draws a beam of texts without replacement. Each level keeps the texts that arrive first, so "
        "likely ones have more nodes. The beam becomes a tree, which the model runs in one step. Siblings are tried "
        "one after another by rejection sampling. The answer keeps the distribution of the model."
    ),
    paper="RSD-S, Jeon et al. 2024, arXiv:2402.14160; stochastic beam search, Kool et al. 2019, arXiv:1903.06059",
    departures=(
        "Arrival times stand for the paper's Gumbel noise: the distribution is the same, and a node needs one random "
        "number.",
    ),
    family=Family.SECOND_MODEL,
    drafter="stochastic-beam",
    topology="dynamic tree",
    length="budget",
    plan=_plan_rsd_s,
    parameters={
        "beams": Parameter(3, "nodes of a level, W", "trees of 6 to 60 nodes"),
        "max_depth": Parameter(4, "levels, L"),
    },
    acceptance="recursive",
    by_default=False,
    needs=("assistant-model",),
)
