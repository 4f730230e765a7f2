"""Which recipes a compile makes, with what values of their parameters, and of which blocks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch.fx import GraphModule

from specc.compiler.layer_search import Advance, skip_if_faster, skip_some
from specc.compiler.options import Options
from specc.compiler.stages import Stages
from specc.recipes import METHODS, Facts, LayerSearch, Method, MethodBlocks, committing, method
from specc.runtime.block import Block, Frontier
from specc.runtime.errors import RecipeError, SpeccWarning

DRAFT_DTYPES = ("fp32", "int8", "int4")
MARGIN = 128  # rows of a cache past the context: scratch for the slots of the widest block

Search = Callable[[GraphModule, Sequence[int], Mapping[str, Any], Advance], dict[str, Any]]
SEARCHES: dict[LayerSearch, Search] = {LayerSearch.SKIP_SOME: skip_some, LayerSearch.SKIP_IF_FASTER: skip_if_faster}


@dataclass(frozen=True, kw_only=True)
class RecipePlan:
    """A recipe to compile: a method, a value for each of its parameters, and the blocks that follow from them."""

    method: Method
    values: Mapping[str, Any]
    blocks: MethodBlocks


def choose_methods(options: Options, heads: Collection[str] = ()) -> list[Method]:
    """Return the methods to compile, plain decoding first.

    Args:
        options: the user's options.
        heads: the architectures of the trained heads.

    Raises:
        RecipeError: a recipe is unknown or lacks what it needs, or a parameter belongs to no chosen recipe, or the type
            of the drafts' weights does not exist.
    """
    if options.draft_dtype not in DRAFT_DTYPES:
        raise RecipeError(f"draft_dtype is {options.draft_dtype!r}; choose one of {', '.join(DRAFT_DTYPES)}")
    names = list(options.recipes) or [
        m.name for m in METHODS.values() if m.by_default and not _missing(m, options, heads)
    ]
    methods = [method(name) for name in dict.fromkeys(("plain", *names))]
    for m in methods:
        if missing := _missing(m, options, heads):
            raise RecipeError(f"recipe {m.name} needs {missing}")
    for head in sorted(set(heads) - {m.head for m in methods}):
        recipes = [m.name for m in METHODS.values() if m.head == head]
        raise RecipeError(f"no chosen recipe drafts by the head {head}; leave it out, or add --recipe {recipes[0]}")
    for name in options.parameters.keys() - {""}:
        if name not in {m.name for m in methods}:
            raise RecipeError(f"parameters for recipe {name!r}, which is not compiled; add --recipe {name}")
    for name in options.parameters.get("", {}):
        if not any(name in m.parameters for m in methods):
            raise RecipeError(f"no compiled recipe has a parameter {name!r}; see: specc recipes")
    return methods


def _missing(m: Method, options: Options, heads: Collection[str]) -> str:
    """Say what a method needs that the options do not give; empty if it needs nothing more."""
    if "assistant-model" in m.needs and not options.assistant_model:
        return "a draft model; name one with --assistant-model"
    if m.head and m.head not in heads:
        return f"a trained head of architecture {m.head}; name its directory with --head"
    return ""


def plan_recipes(methods: Sequence[Method], facts: Facts, options: Options) -> list[RecipePlan]:
    """Plan each method with the user's values of its parameters, or their defaults.

    A warning names the recipes whose drafts have a type of their own, if the user asks for another one. Another one
    names the recipes that are left out: those that the user did not ask for and whose defaults this model cannot meet.

    Raises:
        RecipeError: a value is out of range.
    """
    plans = []
    unmet: dict[str, list[str]] = {}  # names of recipes, by the reason
    for m in methods:
        for_all = {name: v for name, v in options.parameters.get("", {}).items() if name in m.parameters}
        values = m.settle(for_all | dict(options.parameters.get(m.name, {})))
        try:
            plans.append(_plan(m, values, facts, options.draft_dtype))
        except RecipeError as e:
            if options.recipes or for_all or m.name in options.parameters:
                raise
            unmet.setdefault(str(e), []).append(m.name)
    for reason, names_left_out in unmet.items():
        warnings.warn(f"left out {', '.join(names_left_out)}: {reason}", SpeccWarning, stacklevel=2)
    own = [p.method.name for p in plans if _draft_dtypes(p) - {options.draft_dtype}]
    if own and options.draft_dtype != Options.draft_dtype:
        names = ", ".join(own)
        warnings.warn(
            f"draft_dtype {options.draft_dtype} does not apply to {names}: these methods draft by 4-bit weights",
            SpeccWarning,
            stacklevel=2,
        )
    return plans


def _draft_dtypes(plan: RecipePlan) -> set[str]:
    return {block.weights for block in plan.blocks.engines.values()}


def search_layers(
    plans: Sequence[RecipePlan],
    facts: Facts,
    options: Options,
    graph: GraphModule,
    tokens: Sequence[int],
    stages: Stages,
) -> list[RecipePlan]:
    """Plan those recipes again whose method searches for layers to skip.

    Args:
        plans: all recipes.
        facts: what `plan_recipes` was called with.
        options: what `plan_recipes` was called with.
        graph: the target's prepared graph.
        tokens: the text on which a search compares layers.
        stages: told of each search and its candidates.

    Returns:
        All recipes, in the order of `plans`.
    """
    searched = []
    for plan in plans:
        if plan.method.search is None:
            searched.append(plan)
            continue
        stages.begin("search", f"search the layers that {plan.method.name} skips")
        layers = SEARCHES[plan.method.search](graph, tokens, plan.values, stages.advance)
        searched.append(_plan(plan.method, {**plan.values, **layers}, facts, options.draft_dtype))
    return searched


def _plan(m: Method, values: Mapping[str, Any], facts: Facts, draft_dtype: str) -> RecipePlan:
    blocks = m.plan(values, facts)
    drafts = {role: _with_draft_dtype(block, draft_dtype) for role, block in blocks.engines.items()}
    for block in (*blocks.verify, *drafts.values()):
        rows = max(block.slots, block.topology.span if isinstance(block.topology, Frontier) else 0)
        if rows > MARGIN:
            raise RecipeError(f"recipe {m.name} needs {rows} slots; {MARGIN} is the most: choose fewer tokens a draft")
    verify = tuple(committing(block, facts.heads) for block in blocks.verify)
    return RecipePlan(method=m, values=values, blocks=replace(blocks, verify=verify, engines=drafts))


def _with_draft_dtype(block: Block, draft_dtype: str) -> Block:
    """Return the block with weights of the user's type, unless the method asks for a type of its own."""
    return replace(block, weights=draft_dtype) if block.weights == "fp32" else block
