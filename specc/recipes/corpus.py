"""Methods that look up drafts in a corpus, which is a part of the bundle."""

from __future__ import annotations

from specc.recipes.blocks import DECODE, chains, check_matches, count, draft_frontier, draft_model
from specc.recipes.defaults import TREES
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.recipes.heads import drafting_blocks
from specc.runtime.block import MIXTURE, Block, Frontier, Parents
from specc.runtime.corpus_index import CORPUS_FILE
from specc.runtime.drafters import check_probability
from specc.runtime.tree import Tree


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
        "The draft is an independent model or none; the paper has EAGLE-2's trained head, as rasd-eagle2.",
        "A branch is dropped if its first token is not among the draft's eight likeliest ones.",
    ),
    family=Family.TEXT,
    drafter="retrieval-tree",
    topology="dynamic tree",
    length="budget",
    schedule="union",
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


def _plan_rasd_eagle2(values: Values, facts: Facts) -> MethodBlocks:
    check_matches(values)
    count(values, "retrieved_tokens")
    frontier = Frontier(TREES.frontier, 1 + TREES.frontier * count(values, "max_depth"))
    verify = (DECODE, Block(Parents(1 + count(values, "num_speculative_tokens"))))
    engines = drafting_blocks("eagle", frontier, 1 + values["max_depth"], facts)
    return MethodBlocks(verify, engines, {**values, "corpus": CORPUS_FILE, "vocab_size": facts.vocab_size})


RASD_EAGLE2 = Method(
    name="rasd-eagle2",
    title="RASD: a tree that is retrieved from a corpus, fused with that of EAGLE-2's trained layer",
    try_when="An EAGLE head was trained for the model, and answers resemble texts that you have.",
    about=(
        "A trained layer grows a tree, as in eagle2. The longest end of the text that occurs in the corpus of the "
        "bundle is looked up, and what followed it there becomes another tree. Its branches whose first token the "
        "layer finds unlikely are dropped. Both trees are fused: nodes with one path become one node. The model "
        "verifies the tree in one step."
    ),
    paper="RASD, Quan et al. 2025, arXiv:2503.03434; EAGLE-2, Li et al. 2024, arXiv:2406.16858",
    departures=("A branch is dropped if its first token is not among the layer's eight likeliest ones.",),
    family=Family.HEADS,
    drafter="retrieval-eagle",
    topology="dynamic tree",
    length="budget",
    schedule="union",
    plan=_plan_rasd_eagle2,
    parameters={
        **RASD.parameters,
        "retrieved_tokens": Parameter(8, "those of them from the corpus at most"),
    },
    by_default=False,
    needs=("corpus", "head"),
    head="eagle",
    trained_as="eagle",
)


def _plan_superposed(values: Values, facts: Facts) -> MethodBlocks:
    texts, tokens = count(values, "suggestions", most=MOST_TEXTS), count(values, "num_speculative_tokens")
    check_probability(alpha=values["alpha"])
    mixture = Block(Tree.chain(texts), ("ids", f"top_k:{TEXT_RANKS}"), inputs=(MIXTURE,))
    own = {"num_speculative_tokens": tokens, "alpha": values["alpha"]}
    arguments = {**own, "corpus": CORPUS_FILE, "vocab_size": facts.vocab_size}
    return MethodBlocks(chains(1 + tokens), {"mixture": mixture}, arguments)


MOST_TEXTS = 16
TEXT_RANKS = 9
SUPERPOSED = Method(
    name="superposed",
    title="Superposed Decoding: several suggestions from one pass for each token (suggestions are lossy)",
    try_when="Users choose among several short continuations, as in a field that completes what they type.",
    about=(
        "It writes several texts at once. The model reads the weighted sum of the embeddings of their last tokens in "
        "one slot, so a pass gives one token of every text. The n-grams of a corpus say which token goes with which "
        "text. `specc generate --suggestions N` and `Session.suggest` give the texts, which nothing verifies. Where "
        "one answer is asked for, the best text is a draft, and the model verifies it."
    ),
    paper="Superposed Decoding, Shen et al. 2024, arXiv:2405.18400",
    departures=(
        "The n-grams are those of the corpus of the bundle, found by its index; the paper has tables of 2 to 6 tokens "
        "from a large corpus.",
        "One answer is verified by match; the paper gives suggestions alone.",
        "The pass has a slot for each text, of which the first one holds the sum; the others run unused.",
    ),
    family=Family.OTHER,
    drafter="superposed",
    topology="superposed",
    length="fixed",
    plan=_plan_superposed,
    parameters={
        "suggestions": Parameter(3, "texts at once", "3"),
        "num_speculative_tokens": Parameter(10, "tokens of a text, where it becomes a draft", "10"),
        "alpha": Parameter(
            0.54, "weight of the n-grams; with 0 and one suggestion the text is that of greedy decoding", "0.54"
        ),
    },
    by_default=False,
    needs=("corpus",),
)
