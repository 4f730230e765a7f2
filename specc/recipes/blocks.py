"""Blocks that several methods have in common, and checks of the values that they are made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

from specc.recipes.defaults import LENGTHS, TREES, WIDTHS
from specc.recipes.entry import Facts, HeadFacts, Parameter, Values
from specc.runtime.acceptance import with_parameters
from specc.runtime.block import STATE, Block, Frontier, Layers
from specc.runtime.drafters import MOST_TOKENS
from specc.runtime.errors import RecipeError, TreeError
from specc.runtime.lengths import LengthPolicy
from specc.runtime.method import load_acceptance
from specc.runtime.sequence import TARGET
from specc.runtime.tree import Tree

DECODE = Block(Tree.chain(1))
RANKS = 8  # successors of a token that an engine returns, likeliest first
ANY_HEAD = HeadFacts()
LENGTH_ARGUMENTS = tuple(field.name for field in fields(LengthPolicy))
RANKED_OUTPUTS = ("ids", f"top_k:{RANKS}", "logits")

CONFIDENCE = Parameter(0.0, "drafting stops after a token to which the draft gave less probability")
EXIT = Parameter(None, "layers that the draft runs (default: a quarter of the model's)")
TREE = Parameter(None, 'tree literal, a list of paths such as "[(0,), (1,), (0, 0)]" (default: best-first)')
LONGEST_MATCH = Parameter(LENGTHS.longest_match, "the largest number of last tokens that must match")
SKIP = {
    "skip_layers": Parameter(None, "layers to skip whole (default: a search on calibration text)"),
    "skip_attention": Parameter(None, "layers whose attention to skip"),
    "skip_mlp": Parameter(None, "layers whose MLP to skip"),
}


def prefill(model: str = "target") -> Block:
    """Return the block that reads a prompt; its logits are those of one row, the last of the prompt."""
    return Block(Tree.chain(WIDTHS.prefill), last_row=True, model=model, cache=model)


def committing(block: Block, heads: Iterable[str]) -> Block:
    """Return a block of the target that commits rows, so that it returns what trained heads read of each row."""
    return replace(block, outputs=(*block.outputs, *(f"{STATE}{name}" for name in heads)))


def head_block(
    head: str,
    topology: Tree | Frontier,
    facts: HeadFacts = ANY_HEAD,
    *,
    last_row: bool = False,
    logits: bool = False,
    drafts: bool = False,
) -> Block:
    """Return a block of a recurrent head, which has rows of its own if it attends.

    Args:
        head: the head's architecture.
        topology: how many slots there are, and which see which.
        facts: of the head.
        last_row: whether only the last slot's token is guessed.
        logits: whether it returns logits, from which drafts are sampled.
        drafts: whether it runs drafted tokens alone, which need no layers that read the text.
    """
    skipped = tuple(range(facts.context_layers)) if drafts else ()
    return Block(
        topology,
        ("ids", f"top_k:{RANKS}", *(("logits",) if logits else ()), "next_state"),
        Layers(skip_attention=skipped, skip_mlp=skipped),
        last_row=last_row,
        model=head,
        cache=head if facts.attends else TARGET,
        inputs=("state",),
    )


def draft_model(topology: Tree | Frontier) -> dict[str, Block]:
    """Return the blocks of a draft model with rows of its own: one drafts, and one reads prompts."""
    draft = Block(topology, RANKED_OUTPUTS, model="assistant", cache="assistant")
    return {"draft": draft, "prefill": prefill("assistant")}


def count(values: Values, name: str, least: int = 1, most: int = MOST_TOKENS) -> int:
    """Return a parameter that is a whole number in a range. Raises RecipeError."""
    value = values[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise RecipeError(f"{name} is {value!r}; give a whole number from {least} to {most}")
    return value


def check_matches(values: Values) -> None:
    """Check how many tokens a lookup may match, since it keeps each run of so many. Raises RecipeError."""
    for name in ("max_matching_ngram_size", "min_matching_ngram_size"):
        if name in values:
            count(values, name)


def chains(longest: int) -> tuple[Block, ...]:
    """Return blocks for chains of up to `longest` slots: one slot, some widths between, and all."""
    between = (Block(Tree.chain(slots)) for slots in WIDTHS.below if slots < longest)
    return (DECODE, *between, Block(Tree.chain(longest)))


def tree_of(paths: Any) -> Tree:
    """Return the tree of the parameter `tree`. Raises TreeError, which names it, for what is not one."""
    if not isinstance(paths, (list, tuple)):
        raise TreeError(f"tree is {paths!r}; give a list of paths, such as [(0,), (1,)]")
    try:
        return Tree.from_paths(paths)
    except TreeError as e:
        raise TreeError(f"tree: {e}") from e


def draft_frontier(width: int, tree_slots: int) -> Frontier:
    """Return the topology of a draft that grows a tree, `width` slots a call.

    The last call may be padded to its width. So the rows that it sees are the tree's and a whole call's.
    """
    return Frontier(width, TREES.frontier + tree_slots)


def branching_tree(branching: Any) -> Tree:
    """Return the tree whose nodes have the same number of children in each level. Raises RecipeError.

    Args:
        branching: the number of children of a node, for each level from the root on.
    """
    numbers = branching if isinstance(branching, (list, tuple)) else ()
    if not numbers or not all(type(number) is int and 1 <= number <= MOST_TOKENS for number in numbers):
        raise RecipeError(f"branching is {branching!r}; give the children of a node in each level, such as [2, 2, 1]")
    parents, level = [-1], [0]
    for number in numbers:
        parents += [slot for slot in level for _ in range(number)]
        level = list(range(len(parents) - len(level) * number, len(parents)))
        if len(parents) > 1 + MOST_TOKENS:
            raise RecipeError(f"branching {branching!r} makes more than {MOST_TOKENS} nodes; give smaller numbers")
    return Tree(tuple(parents))


def exit_layers(values: Values, facts: Facts) -> Layers:
    """Return the layers of a draft that ends early. Raises RecipeError."""
    layer = values["assistant_early_exit"]
    if layer is None:
        layer = max(1, int(facts.layers * LENGTHS.exit_share))
    if facts.layers < 2:
        raise RecipeError(f"an early exit needs a model of 2 layers or more, and this one has {facts.layers}")
    if type(layer) is not int or not 1 <= layer < facts.layers:
        raise RecipeError(f"assistant_early_exit is {layer!r}; give a number of layers from 1 to {facts.layers - 1}")
    return Layers(exit_after=layer)


def skipped_layers(values: Values, facts: Facts) -> Layers:
    """Return the layers of a draft that skips some. Raises RecipeError for a layer that the model does not have."""
    for name in ("skip_layers", "skip_attention", "skip_mlp"):
        check_layers(name, () if values[name] is None else values[name], facts)
    whole = set(values["skip_layers"] or ())
    attention, mlp = whole.union(values["skip_attention"] or ()), whole.union(values["skip_mlp"] or ())
    return Layers(skip_attention=tuple(sorted(attention)), skip_mlp=tuple(sorted(mlp)))


def check_layers(name: str, layers: Any, facts: Facts) -> None:
    """Check a list of layers. Raises RecipeError, with the name, for a layer that the model does not have."""
    if not isinstance(layers, list | tuple):
        raise RecipeError(f"{name} is {layers!r}; give a list of layers, such as [5]")
    for layer in layers:
        if type(layer) is not int or layer not in range(facts.layers):
            raise RecipeError(f"{name} has {layer!r}; give numbers of layers from 0 to {facts.layers - 1}")


def length_arguments(values: Values) -> dict[str, Any]:
    """Return those values that are parameters of a length policy. Raises RecipeError for one out of range."""
    arguments = {name: values[name] for name in LENGTH_ARGUMENTS if name in values}
    LengthPolicy(**arguments)
    return arguments


def rule_parameters(acceptance: str, values: Values) -> dict[str, Any]:
    """Return those values that are parameters of an acceptance rule. Raises RecipeError for one out of range."""
    rule = load_acceptance(acceptance)
    parameters = {name: values[name] for name in rule.ranges if name in values}
    with_parameters(rule, parameters)
    return parameters
