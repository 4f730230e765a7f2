"""S3D: the model without its middle layers guesses a whole draft in one run."""

from __future__ import annotations

from specc.recipes.blocks import RANKED_OUTPUTS, chains
from specc.recipes.entry import Facts, Family, HeadFacts, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block, GuessTree
from specc.runtime.drafters import check_probability
from specc.runtime.tree import Tree


def _plan_s3d(values: Values, facts: Facts) -> MethodBlocks:
    """Plan a draft of one token and the head's guesses behind it, and chains that verify all of them."""
    check_probability(assistant_confidence_threshold=values["assistant_confidence_threshold"])
    head = facts.heads.get("s3d", HeadFacts())
    topology = GuessTree(Tree.chain(1 + head.stack).parents, 1, "s3d")
    draft = Block(topology, RANKED_OUTPUTS, head.draft_layers)
    return MethodBlocks(chains(1 + topology.slots), {"draft": draft}, dict(values))


S3D = Method(
    name="s3d",
    title="S3D: the model without its middle layers guesses several tokens in one run",
    try_when="Such a head was trained for the model, and memory has no room for a draft model.",
    about=(
        "The model drafts by its first and last layers. Behind the pending token stand mask tokens, so one run guesses "
        "a whole chain. A small trained MLP stands in the place of the layers that are left out. Drafts read the rows "
        "of the model, so no second cache is needed. The model verifies the chain in one step."
    ),
    paper="S3D, Zhong & Bharadwaj 2024, arXiv:2405.20314",
    departures=(
        "The mask token and an MLP are trained, and the model stays as it is; the paper trains layers of the model.",
        "Acceptance is by match, so that a seed gives the tokens of plain decoding.",
    ),
    family=Family.HEADS,
    drafter="mask-tokens",
    topology="chain",
    length="confidence",
    plan=_plan_s3d,
    parameters={
        "assistant_confidence_threshold": Parameter(
            0.0, "a guess to which the draft gave less probability ends the draft before it"
        )
    },
    needs=("head",),
    head="s3d",
)
