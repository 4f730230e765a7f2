"""Methods whose drafts come from slots of the model's own run that stand on no token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from specc.recipes.blocks import CONFIDENCE, DECODE, RANKED_OUTPUTS, RANKS, count
from specc.recipes.defaults import TREES, WIDTHS
from specc.recipes.entry import Facts, Family, HeadFacts, Method, MethodBlocks, Parameter, Values
from specc.recipes.guess_trees import StateTree, expected, state_trees
from specc.runtime.block import KEPT, Block, GuessTree, Pruning
from specc.runtime.drafters import check_probability
from specc.runtime.errors import RecipeError
from specc.runtime.node_budget import check_step_costs
from specc.runtime.tree import Tree

SIZES = (8, 12, 16, 24, 32, 48)  # slots of a step
SHARES = (6, 4, 3, 2)  # One of so many slots takes a drafted token. The others guess.


def _blocks(head: str, states: Sequence[StateTree]) -> MethodBlocks:
    """Return the blocks of steps, an engine for each state. Each verifies a draft, and its slots make the next."""
    steps = [Block(state.topology(head), RANKED_OUTPUTS) for state in states]
    engines = {f"step_{number}": block for number, block in enumerate(steps)}
    verify = sorted(dict.fromkeys(steps), key=lambda block: block.slots)
    return MethodBlocks((DECODE, *verify), engines, parts=frozenset(engines))


def _guesses(head: str, facts: Facts) -> int:
    """Return how many tokens a head guesses behind each token."""
    return facts.heads.get(head, HeadFacts()).stack


def _rates(values: Values, guesses: int) -> tuple[tuple[float, ...], ...]:
    """Return how often the guesses are right, by depth and rank. Raises RecipeError."""
    rates: Any = TREES.guess_rates if values["rates"] is None else values["rates"]
    if not isinstance(rates, (list, tuple)) or not all(isinstance(row, (list, tuple)) and row for row in rates):
        raise RecipeError(f"rates is {rates!r}; give a list for each depth, such as [[0.5, 0.1], [0.3, 0.1]]")
    if len(rates) < guesses:
        raise RecipeError(f"rates has {len(rates)} depths; the head guesses {guesses} tokens: give so many lists")
    for rate in (rate for row in rates for rate in row):
        check_probability(**{"a rate of rates": rate})
    return tuple(tuple(map(float, row[:RANKS])) for row in rates[:guesses])


@lru_cache(64)
def _best_size(rates: tuple[tuple[float, ...], ...], costs: tuple[tuple[int, float], ...]) -> tuple[int, int]:
    """Return the drafted tokens and the guesses of the step that gives most tokens for its cost."""
    sizes = [(slots, cost, slots // share) for slots, cost in costs for share in SHARES if slots // share >= 1]
    if not sizes:
        raise RecipeError(f"step_costs is {list(costs)}; give the cost of a step of 4 slots or more, too")

    def speed(size: tuple[int, float, int]) -> float:
        slots, cost, nodes = size
        return expected(state_trees(rates, nodes, slots - 1 - nodes), rates) / cost

    slots, _, nodes = max(sizes, key=speed)
    return nodes, slots - 1 - nodes


def _plan_chains(threshold: str, values: Values, facts: Facts) -> MethodBlocks:
    """Plan chains of each number of guesses. All tokens of a chain have all guesses behind them.

    Args:
        threshold: the name of the parameter below whose value a guess ends a draft.
        values: see `Method`.
        facts: see `Method`.
    """
    guesses = _guesses("lexical_units", facts)
    check_probability(**{threshold: values[threshold]})
    states = [StateTree(Tree.chain(1 + state), (guesses,) * (1 + state)) for state in range(1 + guesses)]
    return replace(_blocks("lexical_units", states), arguments={"assistant_confidence_threshold": values[threshold]})


def _plan_unverified(values: Values, facts: Facts) -> MethodBlocks:
    threshold, repeat = "confidence_threshold", "longest_repeat"
    planned = _plan_chains(threshold, values, facts)
    arguments = {**planned.arguments, repeat: count(values, repeat, least=0)}
    return replace(planned, arguments=arguments, rule={"threshold": values[threshold]})


def _plan_trees(head: str, values: Values, facts: Facts) -> MethodBlocks:
    """Plan trees whose tokens have all guesses of a head behind them."""
    rates, nodes = _rates(values, _guesses(head, facts)), count(values, "num_speculative_tokens")
    return _blocks(head, state_trees(rates, nodes, (1 + nodes) * len(rates)))


def _plan_streams(values: Values, facts: Facts) -> MethodBlocks:
    """Plan trees whose tokens have all guesses behind them, and which lose tokens in the middle of the model."""
    nodes, kept_nodes = count(values, "num_speculative_tokens"), count(values, "kept_nodes", least=0)
    if kept_nodes >= nodes:
        raise RecipeError(
            f"kept_nodes is {kept_nodes}; give less than num_speculative_tokens, which is {nodes}, or 0 to keep all"
        )
    planned = _plan_trees("speculative_streaming", values, facts)
    if not kept_nodes:
        return planned
    pruning = Pruning(max(1, int(TREES.pruned_share * facts.layers)), 1 + kept_nodes)
    pruned = {block: _prune(block, pruning) for block in planned.verify}
    return replace(
        planned,
        verify=tuple(pruned.values()),
        engines={name: pruned[block] for name, block in planned.engines.items()},
    )


def _prune(block: Block, pruning: Pruning) -> Block:
    """Return a block that drops tokens, if its tree has more of them than are kept."""
    if not isinstance(block.topology, GuessTree) or block.topology.tokens <= pruning.tokens:
        return block
    return replace(block, outputs=(*block.outputs, KEPT), pruning=pruning)


def _plan_ppd(values: Values, facts: Facts) -> MethodBlocks:
    """Plan the tree of each state, of the size that pays or of the size that the user names."""
    rates = _rates(values, _guesses("ppd", facts))
    if values["step_costs"] is None:
        costs = [(slots, 1 + WIDTHS.wide_step + WIDTHS.slot * (slots - 1)) for slots in SIZES]
    else:
        costs = [(slots, cost) for slots, cost in check_step_costs(values["step_costs"]) if slots >= 4]
    nodes, guess_slots = _best_size(rates, tuple(costs))
    if values["num_speculative_tokens"] is not None:
        nodes = count(values, "num_speculative_tokens")
    if values["guess_slots"] is not None:
        guess_slots = count(values, "guess_slots")
    return _blocks("ppd", state_trees(rates, nodes, guess_slots))


_RATES = Parameter(
    None,
    "how often each guess is right, by depth and rank, as `acceptance.rates` of the head's card.json "
    "(default: rates that are usual)",
)
PPD = Method(
    name="ppd",
    title="Parallel Prompt Decoding: trained embeddings behind each token, whose slots draft",
    try_when="Such a head was trained for the model, and a step with 16 slots costs little more than one slot.",
    about=(
        "Behind the tokens of a step stand slots with trained embeddings in the place of tokens. Each guesses a token "
        "further ahead. So the step that verifies a draft also makes the next one, and nothing else runs. Tokens that "
        "are likelier to be the last accepted one have more guesses behind them. The next step has a tree of its own "
        "for each number of guesses that the accepted token had."
    ),
    paper="Parallel Prompt Decoding, Chen et al. 2024, arXiv:2405.18628",
    departures=(
        "The trees are smaller, since a step with 60 slots costs much more on a CPU than on a GPU.",
        "A guess has one embedding; the paper can also average several.",
        "Acceptance is by match; the paper's typical acceptance is lossy, and a request can ask for it.",
    ),
    family=Family.HEADS,
    drafter="guess-slots",
    topology="static tree",
    length="budget",
    schedule="fused",
    plan=_plan_ppd,
    parameters={
        "num_speculative_tokens": Parameter(None, "tree nodes of a step (default: as many as pay by the costs)"),
        "guess_slots": Parameter(None, "guesses of a step (default: as many as pay by the costs)"),
        "rates": _RATES,
        "step_costs": Parameter(
            None,
            "pairs of slots and the cost of a step, of which the best is compiled (default: costs as of a CPU)",
            "measured on the GPU",
        ),
    },
    needs=("head",),
    head="ppd",
)


HIDDEN_TRANSFER = Method(
    name="hidden-transfer",
    title="Hidden Transfer: pseudo hidden states behind each token, whose slots draft",
    try_when="Such a head was trained for the model, and a step with 24 slots costs little more than one slot.",
    about=(
        "Behind the tokens of a step stand slots that begin after deep layers, each guess after a layer of its own. A "
        "trained matrix for each guess makes what it begins with, from the token's hidden state there. The layers "
        "behind it and the model's own product make the guesses. A tree of the likeliest ones is the next draft. So "
        "the step that verifies a draft also makes the next one, and nothing else runs."
    ),
    paper="Hidden Transfer, Wu et al. 2024, arXiv:2404.12022",
    departures=(
        "Which layers the paper takes was not at hand: here they end at three quarters of the model's layers.",
        "The layers before it also run the slots, for nothing.",
    ),
    family=Family.HEADS,
    drafter="guess-slots",
    topology="static tree",
    length="budget",
    schedule="fused",
    plan=partial(_plan_trees, "hidden_transfer"),
    parameters={"num_speculative_tokens": Parameter(TREES.guess_nodes, "tree nodes of a step"), "rates": _RATES},
    needs=("head",),
    head="hidden_transfer",
)


SPECULATIVE_STREAMING = Method(
    name="speculative-streaming",
    title="Speculative Streaming: streams behind each token in the top layers, which draft",
    try_when="Such a head was trained for the model, and guesses from its first layers alone are poor.",
    about=(
        "Behind the tokens of a step stand streams that begin after a deep layer. Each begins with the token's hidden "
        "state there, changed by a small trained product, and with a vector of its own. The top layers see the token "
        "and the streams before. Their guesses fill a tree, which is the next draft. So the step that verifies a draft "
        "also makes the next one, and nothing else runs."
    ),
    paper="Speculative Streaming, Bhendawade et al. 2024, arXiv:2402.11131",
    departures=(
        "The model stays as it is, unless 'specc train --with-model' trains adapters of its layers, as the paper does.",
        "The tree keeps all its nodes unless `kept_nodes` says how many; the paper always drops some.",
        "The model's own norm and product give the logits by which nodes are dropped; the paper has a layer for it.",
        "The layers before the streams also run their slots, for nothing.",
    ),
    family=Family.HEADS,
    drafter="guess-slots",
    topology="static tree",
    length="budget",
    schedule="fused",
    plan=_plan_streams,
    parameters={
        "num_speculative_tokens": Parameter(TREES.guess_nodes, "tree nodes of a step"),
        "kept_nodes": Parameter(0, "the likeliest tree nodes that go on after a quarter of the layers; 0 keeps all"),
        "rates": _RATES,
    },
    needs=("head",),
    head="speculative_streaming",
)


LEXICAL_UNITS = Method(
    name="lexical-units",
    title="Lexical Unit Decoding: a trained padding token behind each token, whose slots draft",
    try_when="Such a head was trained for the model, and text has many fixed phrases.",
    about=(
        "Behind the tokens of a step stand slots with one trained embedding in the place of a token. They guess the "
        "next tokens. The guesses are drafted up to the first one of little probability. The model verifies the chain "
        "in one step. That step also makes the next guesses."
    ),
    paper="Lexical Unit Decoding, Sun et al. 2024, arXiv:2405.15208",
    departures=(
        "The embedding alone is trained, unless 'specc train --with-model' trains the model too, as the paper does.",
        "Guesses are verified; `lexical-units-unverified` has the paper's own rule, which is lossy.",
    ),
    family=Family.HEADS,
    drafter="guess-slots",
    topology="chain",
    length="confidence",
    schedule="fused",
    plan=partial(_plan_chains, "assistant_confidence_threshold"),
    parameters={"assistant_confidence_threshold": CONFIDENCE},
    needs=("head",),
    head="lexical_units",
)


LEXICAL_UNITS_UNVERIFIED = Method(
    name="lexical-units-unverified",
    title="Lexical Unit Decoding by its own rule: confident guesses are kept unverified (lossy)",
    try_when="Answers may differ from the model's own.",
    about=(
        "It guesses as lexical-units does. The guesses that are more probable than a threshold are kept, whatever the "
        "model says of them. So a step keeps more tokens, and the answer may differ from the model's own. A guess that "
        "would repeat the tokens right before it is left to the model. With the threshold 1 nothing is drafted, as in "
        "plain decoding."
    ),
    paper="Lexical Unit Decoding, Sun et al. 2024, arXiv:2405.15208",
    departures=(
        "The embedding alone is trained, unless 'specc train --with-model' trains the model too, as the paper does.",
        "How the paper controls repetitions was not at hand: here no guess repeats the tokens right before it.",
    ),
    family=Family.HEADS,
    drafter="guess-slots",
    topology="chain",
    length="confidence",
    schedule="fused",
    plan=_plan_unverified,
    parameters={
        "confidence_threshold": Parameter(0.9, "a guess of more probability is kept unverified (lossy); 1 drafts none"),
        "longest_repeat": Parameter(
            3, "a guess is left to the model if the last tokens, so many at most, would stand twice in a row; 0: never"
        ),
    },
    acceptance="confidence",
    lossless=False,
    by_default=False,
    needs=("head",),
    head="lexical_units",
    trained_as="lexical-units",
)
