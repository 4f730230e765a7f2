"""Methods that draft by a trained head with cross-attention to what the model said of the text."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from specc.recipes.blocks import CONFIDENCE, chains, count, draft_model, length_arguments
from specc.recipes.defaults import LENGTHS
from specc.recipes.draft_trees import CAPE, comb_values
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.recipes.heads import NODES, plan_tree
from specc.runtime.block import TARGET_ROWS, Block
from specc.runtime.tree import Tree

MIXTURE_OF_ATTENTIONS = Method(
    name="mixture-of-attentions",
    title="Mixture of Attentions: a trained head whose drafts stand on the model's own states",
    try_when="Such a head was trained for the model, and drafts of more than a few tokens are often accepted.",
    about=(
        "A trained head drafts. Attention over a token's states after several layers joins them to one, where the "
        "model runs. The head looks at the tokens by self-attention, and at the joined states by cross-attention. A "
        "drafted token stands beside the last state that the model gave. It grows a tree as eagle2 does, which the "
        "model verifies in one step."
    ),
    paper="Mixture of Attentions For Speculative Decoding, Zimmer et al. 2024, arXiv:2410.03804",
    departures=(
        "Layer self-attention reads states after six layers at most, and not the keys and values of all layers.",
        "The joined state also enters the residual stream, so that a closed form can start the head.",
        "The last layers of the model never run for a draft, and the model and the head run on one machine.",
    ),
    family=Family.HEADS,
    drafter="eagle-tree",
    topology="dynamic tree",
    length="budget",
    plan=partial(plan_tree, "mixture_of_attentions"),
    parameters=NODES,
    needs=("head",),
    head="mixture_of_attentions",
)


def rows_head(head: str) -> dict[str, Block]:
    """Return the blocks of a head that reads the target's rows: one drafts, and one reads prompts."""
    blocks = draft_model(Tree.chain(1))
    return {role: replace(block, model=head, cache=head, inputs=(TARGET_ROWS,)) for role, block in blocks.items()}


def _plan_glide(values: Values, facts: Facts) -> MethodBlocks:
    slots = 1 + count(values, "num_speculative_tokens")
    return MethodBlocks(chains(slots), rows_head("glide"), length_arguments(values))


GLIDE = Method(
    name="glide",
    title="GliDe: a trained layer that reads the model's keys and values, on chains",
    try_when="Such a head was trained for the model. It reads the model's cache, so it needs no states.",
    about=(
        "A trained layer drafts as a draft model does, token after token. Between its own attention and its MLP it "
        "attends to the rows of a layer of the model. It reads them in the model's own cache, so nothing is copied. "
        "A drafted token sees the rows of all verified tokens. The model verifies the chain in one step."
    ),
    paper="GliDe with a CaPE, Du et al. 2024, arXiv:2402.02082",
    departures=(
        "Tokens enter by the model's table and a product, and leave by the model's last product.",
        "In training each depth sees the rows that a draft of that depth has; the paper hides blocks of five.",
        "'specc train' lets it read a layer behind the first quarter of the model; the paper's reads the last one.",
    ),
    family=Family.HEADS,
    drafter="draft-model",
    topology="chain",
    length="confidence",
    plan=_plan_glide,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.head, "tokens a draft at most", "5"),
        "assistant_confidence_threshold": CONFIDENCE,
    },
    needs=("head",),
    head="glide",
)


def _plan_glide_cape(values: Values, facts: Facts) -> MethodBlocks:
    verify, arguments = comb_values(values)
    return MethodBlocks((verify,), rows_head("glide"), arguments)


GLIDE_CAPE = Method(
    name="glide-cape",
    title="GliDe with CaPE: more tokens beside each drafted one where the layer is less sure",
    try_when="The recipe glide pays, and a step with more slots costs little more.",
    about=(
        "A trained layer drafts a chain, as in glide. At each place it proposes up to seven tokens, the more, the less "
        "sure it is. Only the likeliest one is drafted on from. The siblings cost no call of the layer. The model "
        "verifies all of them in one step."
    ),
    paper="GliDe with a CaPE, Du et al. 2024, arXiv:2402.02082",
    departures=("As in glide.",),
    family=Family.HEADS,
    drafter="comb",
    topology="comb",
    plan=_plan_glide_cape,
    parameters={**CAPE.parameters, "max_depth": Parameter(LENGTHS.head, "tokens of the chain at most", "5")},
    needs=("head",),
    head="glide",
    trained_as="glide",
)
