"""SWIFT: self-speculation by skipping layers, with a search that goes on while it decodes."""

from __future__ import annotations

from typing import Any

from specc.recipes.blocks import SKIP, check_layers, count, skipped_layers
from specc.recipes.draft_trees import comb_values
from specc.recipes.entry import Facts, Family, LayerSearch, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block, Frontier, Layers
from specc.runtime.drafters import MOST_TOKENS, check_probability
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree


def _plan_swift(values: Values, facts: Facts) -> MethodBlocks:
    verify, arguments = comb_values(values)
    outputs = ("ids", f"top_k:{SWIFT_RANKS}", "logits")
    window, sets = count(values, "context_tokens"), _layer_sets(values, facts)
    if 2 * window > 1 + MOST_TOKENS:
        raise RecipeError(f"context_tokens is {window}; give 64 or less, since a comparison reads twice as many rows")
    for name in ("candidates", "patience"):
        count(values, name)
    check_probability(target_matchness=values["target_matchness"])
    engines = {}
    for number, layers in enumerate(sets):
        engines[f"draft_{number}"] = Block(Tree.chain(1), outputs, layers)
        if len(sets) > 1:
            engines[f"check_{number}"] = Block(Frontier(window, 2 * window), ("ids",), layers)
    own = {name: values[name] for name in ("target_matchness", "patience")}
    return MethodBlocks((verify,), engines, arguments | own)


def _layer_sets(values: Values, facts: Facts) -> list[Layers]:
    """Return what each draft leaves out. Raises RecipeError for what is no set of layers."""
    if values["skip_sets"] is None:
        return [skipped_layers(values, facts)]
    if any(values[name] is not None for name in SKIP):
        raise RecipeError("skip_sets and layers to skip are both there; leave out one of the two")
    pairs = values["skip_sets"]
    if not isinstance(pairs, (list, tuple)) or not 1 <= len(pairs) <= MOST_SETS or not all(map(_is_pair, pairs)):
        raise RecipeError(
            f"skip_sets is {pairs!r}; give 1 to {MOST_SETS} pairs of layers without attention and layers without MLP, "
            "such as [[[2, 3], [3]], [[4], [2, 4]]]"
        )
    for pair in pairs:
        for layers in pair:
            check_layers("skip_sets", layers, facts)
    return [
        skipped_layers({"skip_layers": None, "skip_attention": attention, "skip_mlp": mlp}, facts)
        for attention, mlp in pairs
    ]


def _is_pair(pair: Any) -> bool:
    """Tell whether something is a pair of lists."""
    return isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(part, (list, tuple)) for part in pair)


SWIFT_RANKS = 10
MOST_SETS = 16
SWIFT = Method(
    name="swift",
    title="SWIFT: layer-skipping drafts with siblings, among which it chooses while it decodes",
    try_when="The answer is new text, the model has many layers, and a step with 16 or more slots is cheap.",
    about=(
        "The model drafts by itself with some of its layers left out. Several sets of layers are compiled over the "
        "same weights, and comparisons on the text that was just written choose the set that serves. It drafts a chain "
        "of its likeliest tokens while they have enough probability. At each place it also proposes its next likeliest "
        "tokens, more of them where it is less sure. The model verifies the comb in one step."
    ),
    paper="SWIFT, Xia et al. 2025, arXiv:2410.06916",
    departures=(
        "The search goes over the sets that were compiled, and the paper's over all sets of one size: each set is an "
        "engine. The sets are found on calibration text, one for each part of it.",
        "A comparison runs two sets after each 16 tokens and no set in each step, since a pass over many tokens costs "
        "much more than a step on a CPU. A set's matchness is smoothed, and the paper takes the last one.",
        "The search goes on when drafts are accepted less often than when it ended; the paper's ends for good.",
        "A comb has fewer nodes, since a step with 250 slots costs much more on a CPU than on a GPU.",
        "Requests that sample are verified by match, and the paper's by recursive rejection: a seed then gives the "
        "tokens of plain decoding.",
    ),
    family=Family.ITSELF,
    drafter="layer-sets",
    topology="comb",
    length="confidence",
    plan=_plan_swift,
    parameters={
        "num_speculative_tokens": Parameter(15, "nodes at most", "250"),
        "max_depth": Parameter(5, "tokens of the chain at most", "25"),
        "siblings": Parameter(
            ((0.95, 3), (0.8, 5), (0.5, 8), (0.0, SWIFT_RANKS)),
            "pairs: where the likeliest token has more probability than the first number, so many tokens are proposed",
            "3, 5, 8 and 10 above 0.95, 0.8, 0.5 and 0",
        ),
        "assistant_confidence_threshold": Parameter(
            0.8, "drafting stops after a token to which the draft gave less probability", "0.8"
        ),
        "candidates": Parameter(4, "sets of layers that are compiled at most", "all sets of one size"),
        "skip_sets": Parameter(
            None,
            "pairs of layers without attention and layers without MLP, one for each draft (default: a search on "
            "calibration text)",
        ),
        "context_tokens": Parameter(16, "generated tokens on which two sets are compared", "32 to 50"),
        "target_matchness": Parameter(0.95, "the search ends when the set that serves matches better", "0.93 to 0.95"),
        "patience": Parameter(8, "comparisons without a change that end the search", "300"),
        **SKIP,
    },
    by_default=False,
    search=LayerSearch.SKIP_SETS,
)
