"""Methods that look up drafts in a corpus, which is a part of the bundle."""

from __future__ import annotations

from specc.recipes.blocks import DECODE, check_matches, count, draft_frontier, draft_model
from specc.recipes.defaults import TREES
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block, Parents
from specc.runtime.corpus_index import CORPUS_FILE


def _plan_rasd(values: Values, facts: Facts) -> MethodBlocks:
    check_matches(values)
    for name in ("retrieved_tokens", "max_depth"):
        count(values, name)
    verify = (DECODE, Block(Parents(1 + count(values, "num_speculative_tokens"))))
    arguments = {**values, "corpus": CORPUS_FILE, "vocab_size": facts.vocab_size}
    if not facts.assistant:
        return MethodBlocks(verify, {}, arguments)
    frontier = draft_frontier(TREES.frontier, 1 + TREES.frontier * values["max_depth"])
    return MethodBlocks(verify, draft_model(frontier), {**arguments, "beams": TREES.frontier})


RASD = Method(
    name="rasd",
    title="RASD: a tree that is retrieved from a corpus, fused with a draft model's",
    try_when="Answers resemble texts that you have, such as documents of one company or code of one project.",
    about=(
        "The bundle holds a corpus with an index of all its suffixes. The longest end of the text that occurs in the "
        "corpus is looked up, and what followed it there becomes a tree. If the compile has a draft model, branches "
        "that it finds unlikely are dropped, and its own tree is fused with the rest. Nodes with one path become one "
        "node. The model verifies the tree in one step."
    ),
    paper="RASD, Quan et al. 2025, arXiv:2503.03434",
    departures=(
        "The draft is an independent model or none; the paper has EAGLE-2's trained head.",
        "A branch is dropped if its first token is not among the draft's eight likeliest ones.",
    ),
    family=Family.TEXT,
    drafter="retrieval-tree",
    topology="dynamic tree",
    length="budget",
    plan=_plan_rasd,
    parameters={
        "num_speculative_tokens": Parameter(15, "tree nodes at most"),
        "retrieved_tokens": Parameter(8, "those of them from the corpus at most, if there is a draft model"),
        "max_matching_ngram_size": Parameter(8, "tokens of the end of the text that is looked up, at most"),
        "max_depth": Parameter(5, "levels of the trees at most"),
    },
    by_default=False,
    needs=("corpus",),
)
