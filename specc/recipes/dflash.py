"""DFlash: trained layers guess a whole block of tokens in one call."""

from __future__ import annotations

from dataclasses import replace

from specc.recipes.blocks import chains, count
from specc.recipes.defaults import LENGTHS, WIDTHS
from specc.recipes.entry import Facts, Family, HeadFacts, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block, Frontier
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree


def _plan_dflash(values: Values, facts: Facts) -> MethodBlocks:
    """Plan chains that one call drafts: accepted tokens come first, then a block whose slots see one another.

    Raises:
        RecipeError: a draft would have more tokens than the head guesses.
    """
    guesses = facts.heads.get("dflash", HeadFacts()).guesses or LENGTHS.head
    is_default = values["num_speculative_tokens"] is None
    most = min(LENGTHS.head, guesses) if is_default else count(values, "num_speculative_tokens")
    if most > guesses:
        raise RecipeError(f"num_speculative_tokens is {most}, and the head guesses {guesses}; give {guesses} at most")
    slots = 1 + most + 1 + guesses
    draft = Block(Frontier(slots, slots), ("ids",), model="dflash", cache="dflash", inputs=("state",))
    prefill = replace(draft, topology=Tree.chain(WIDTHS.prefill), last_row=True)
    arguments = {"num_speculative_tokens": most, "block_size": 1 + guesses}
    return MethodBlocks(chains(1 + most), {"draft": draft, "prefill": prefill}, arguments)


DFLASH = Method(
    name="dflash",
    title="DFlash's trained layers, which guess a block of tokens in one call",
    try_when="Such a head was trained for long, and long drafts pay: a block of any length takes one call.",
    about=(
        "A few trained layers draft a whole block in one call. A block is the pending token and slots without a token, "
        "which all see one another. Of the tokens before, each layer reads keys and values that are made from the "
        "model's states. The slot of a position guesses its token. The model verifies the chain in one step."
    ),
    paper="DFlash, Chen et al. 2026, arXiv:2602.06036",
    departures=(
        "The head has two layers by default, and the paper's has five.",
        "The pending token and the last state also enter the first guess directly, so that little text is enough.",
        "Acceptance is by match, so that a seed gives the tokens of plain decoding.",
    ),
    family=Family.HEADS,
    drafter="dflash",
    topology="chain",
    plan=_plan_dflash,
    parameters={
        "num_speculative_tokens": Parameter(
            None,
            f"tokens a draft at most (default: {LENGTHS.head}, or as many as the head guesses)",
            "9 or 15, a block less one",
        ),
    },
    needs=("head",),
    head="dflash",
)
