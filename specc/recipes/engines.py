"""The engines that a method compiles with its defaults, for people who choose among methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from specc.recipes.entry import Facts, HeadFacts, Method
from specc.runtime.block import Block, Frontier, GuessTree, Layers, Parents
from specc.runtime.errors import RecipeError, TreeError

Plan = TypeVar("Plan")
MOST_LAYERS = 1 << 12
MOST_VOCABULARY = 1 << 17
MOST_GUESSES = 32  # of a head, from one state
USUAL = Facts(
    layers=30, vocab_size=49152, assistant_layers=12, assistant_loops=3
)  # a model of SmolLM2-135M's size, with a draft model of 12 layers, in 3 loops where it is recursive


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
    values = method.settle({})
    blocks = plan_for_any(lambda facts: method.plan(values, facts), [facts, *any_facts(method)])
    roles = [*((VERIFY, block) for block in blocks.verify), *blocks.engines.items()]
    return [
        DefaultEngine(role=role, model=block.model, cache=block.cache, topology=_topology(block), slots=block.slots)
        for role, block in roles
    ]


def any_facts(method: Method) -> list[Facts]:
    """Return the facts of models that are as large as any, for what is planned before the model is known."""
    facts = replace(
        USUAL,
        layers=MOST_LAYERS,
        vocab_size=MOST_VOCABULARY,
        assistant_layers=MOST_LAYERS,
        assistant_loops=MOST_LAYERS,
        assistant="assistant-model" in method.needs,
        corpus="corpus" in method.needs,
    )
    # A head that guesses many tokens allows deeper trees, and asks for more rates.
    deep = HeadFacts(stack=MOST_GUESSES, guesses=MOST_GUESSES, draft_layers=Layers(exit_after=1, bridge=method.head))
    heads = {method.head: deep} if method.head else {}
    return [replace(facts, heads=heads), facts] if heads else [facts]


def plan_for_any(plan: Callable[[Facts], Plan], choices: Sequence[Facts]) -> Plan:
    """Plan by the first facts for which the values of a method are in range.

    Args:
        plan: plans by some facts; raises RecipeError or TreeError for a value out of range.
        choices: the facts. If none fits, the error is that of the last.
    """
    for facts in choices[:-1]:
        try:
            return plan(facts)
        except (RecipeError, TreeError):
            continue
    return plan(choices[-1])


def _topology(block: Block) -> str:
    """Name the topology of a block."""
    if isinstance(block.topology, Parents):
        return "any tree"
    if isinstance(block.topology, Frontier):
        return "growing tree"
    if isinstance(block.topology, GuessTree):
        return "tree with guesses"
    return "chain" if block.topology.is_chain else "static tree"
