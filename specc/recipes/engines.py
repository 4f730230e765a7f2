"""The engines that a method compiles with its defaults, for people who choose among methods."""

from __future__ import annotations

from dataclasses import dataclass, replace

from specc.recipes.entry import Facts, Method
from specc.runtime.block import Block, Frontier, GuessTree, Parents
from specc.runtime.errors import RecipeError

MOST_LAYERS = 1 << 12
USUAL = Facts(
    layers=30, vocab_size=49152, assistant_layers=12
)  # a model of SmolLM2-135M's size, with a draft model of 12 layers


VERIFY = "verify"


@dataclass(frozen=True, kw_only=True)
class DefaultEngine:
    """An engine of a method.

    Attributes:
        role: `verify`, or the name of the drafter's argument.
        model: whose weights it reads: `target`, `assistant` or `untuned`.
        cache: whose rows it reads and writes, a word of `axes.CACHES`.
        topology: `chain`, `static tree`, `tree with guesses`, `any tree`, or `growing tree`.
        slots: how many tokens one call runs.
    """

    role: str
    model: str
    cache: str
    topology: str
    slots: int


def default_engines(method: Method) -> list[DefaultEngine]:
    """Return the engines that a method compiles with its defaults for a usual model.

    Raises:
        RecipeError: a default is out of range, as it may be in a recipe file.
    """
    facts = replace(USUAL, assistant="assistant-model" in method.needs, corpus="corpus" in method.needs)
    try:
        blocks = method.plan(method.settle({}), facts)
    except RecipeError:  # A recipe file may name layers that only a larger model has.
        blocks = method.plan(method.settle({}), replace(facts, layers=MOST_LAYERS, assistant_layers=MOST_LAYERS))
    roles = [*((VERIFY, block) for block in blocks.verify), *blocks.engines.items()]
    return [
        DefaultEngine(role=role, model=block.model, cache=block.cache, topology=_topology(block), slots=block.slots)
        for role, block in roles
    ]


def _topology(block: Block) -> str:
    """Name the topology of a block."""
    if isinstance(block.topology, Parents):
        return "any tree"
    if isinstance(block.topology, Frontier):
        return "growing tree"
    if isinstance(block.topology, GuessTree):
        return "tree with guesses"
    return "chain" if block.topology.is_chain else "static tree"
