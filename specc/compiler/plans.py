"""Which recipes a compile makes, with what values of their parameters, and of which blocks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch.fx import GraphModule

from specc.compiler.layer_search import Advance, skip_if_faster, skip_sets, skip_some
from specc.compiler.options import Options
from specc.compiler.stages import Stages
from specc.recipes import Facts, LayerSearch, Method, MethodBlocks, committing
from specc.recipes.choice import MARGIN, available, choose, plan, values_of
from specc.runtime.block import Block
from specc.runtime.errors import RecipeError, SpeccWarning

__all__ = ["MARGIN", "RecipePlan", "choose_methods", "plan_recipes", "search_layers", "warn_of_unused"]
DRAFT_DTYPES = ("fp32", "int8", "int4")

Search = Callable[[GraphModule, Sequence[int], Mapping[str, Any], Advance], dict[str, Any]]
SEARCHES: dict[LayerSearch, Search] = {
    LayerSearch.SKIP_SOME: skip_some,
    LayerSearch.SKIP_SETS: skip_sets,
    LayerSearch.SKIP_IF_FASTER: skip_if_faster,
}


@dataclass(frozen=True, kw_only=True)
class RecipePlan:
    """A recipe to compile: a method, a value for each of its parameters, and the blocks that follow from them."""

    method: Method
    values: Mapping[str, Any]
    blocks: MethodBlocks


def choose_methods(options: Options, heads: Collection[str] | None = ()) -> list[Method]:
    """Return the methods to compile, plain decoding first.

    Args:
        options: the user's options.
        heads: the architectures of the trained heads; None if they are not read.

    Raises:
        RecipeError: a recipe is unknown or lacks what it needs, or a parameter belongs to no chosen recipe, or the type
            of the drafts' weights does not exist.
    """
    if options.draft_dtype not in DRAFT_DTYPES:
        raise RecipeError(f"draft_dtype is {options.draft_dtype!r}; choose one of {', '.join(DRAFT_DTYPES)}")
    has = available(assistant_model=options.assistant_model, untuned_model=options.untuned_model, corpus=options.corpus)
    return choose(options.recipes, options.parameters, has, heads)


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
        values = values_of(m, options.parameters)
        names_for_all = set(options.parameters.get("", {})) & m.parameters.keys()
        try:
            plans.append(_plan(m, values, facts, options.draft_dtype))
        except RecipeError as e:
            if options.recipes or names_for_all or m.name in options.parameters:
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


def warn_of_unused(plans: Sequence[RecipePlan], small_models: Mapping[str, str]) -> None:
    """Warn of smaller models that no recipe runs.

    Args:
        plans: the recipes.
        small_models: hub ids or directories, by the names that blocks have for them.
    """
    names = {block.model for recipe in plans for block in recipe.blocks.engines.values()}
    for name in small_models.keys() - names:
        warnings.warn(
            f"no chosen recipe runs {small_models[name]} as the {name} model; leave it out, or add a recipe that "
            "needs it: specc recipes",
            SpeccWarning,
            stacklevel=2,
        )


def _draft_dtypes(recipe: RecipePlan) -> set[str]:
    blocks = recipe.blocks
    return {block.weights for role, block in blocks.engines.items() if role not in blocks.parts}


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
    for recipe in plans:
        if recipe.method.search is None:
            searched.append(recipe)
            continue
        stages.begin("search", f"search the layers that {recipe.method.name} skips")
        layers = SEARCHES[recipe.method.search](graph, tokens, recipe.values, stages.advance)
        searched.append(_plan(recipe.method, {**recipe.values, **layers}, facts, options.draft_dtype))
    return searched


def _plan(m: Method, values: Mapping[str, Any], facts: Facts, draft_dtype: str) -> RecipePlan:
    blocks = plan(m, values, facts)
    verify = tuple(committing(block, facts.reading_heads) for block in blocks.verify)
    whole = dict(zip(blocks.verify, verify, strict=True))  # A part that verifies drafts is one engine for both.
    drafts = {
        role: whole.get(block, block) if role in blocks.parts else _with_draft_dtype(block, draft_dtype)
        for role, block in blocks.engines.items()
    }
    return RecipePlan(method=m, values=values, blocks=replace(blocks, verify=verify, engines=drafts))


def _with_draft_dtype(block: Block, draft_dtype: str) -> Block:
    """Return the block with weights of the user's type, unless the method asks for a type of its own."""
    return replace(block, weights=draft_dtype) if block.weights == "fp32" else block
