"""Which recipes a compile makes, with what values of their parameters, and of which blocks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch.fx import GraphModule

from specc.backends import check_blocks
from specc.compiler.layer_search import Advance, skip_if_faster, skip_sets, skip_some
from specc.compiler.options import Options
from specc.compiler.stages import Stages
from specc.recipes import METHODS, Facts, LayerSearch, Method, MethodBlocks, committing
from specc.recipes.axes import CORPUS, corpus_readers
from specc.recipes.choice import MARGIN, available, check_ranges, choose, plan, values_of
from specc.recipes.engines import any_facts, plan_for_any
from specc.runtime.block import Block
from specc.runtime.errors import RecipeError, SpeccWarning, TreeError

__all__ = [
    "MARGIN",
    "RecipePlan",
    "check_early",
    "check_plans",
    "choose_methods",
    "plan_recipes",
    "reads_corpus",
    "search_layers",
]
DRAFT_DTYPES = ("fp32", "int8", "int4")
# Without --draft-dtype. A head is small, so 8 bits cost little, and 4 bits cost it a tenth of its tokens: see
# "A trained head" in docs/measurements.md.
DRAFT_DTYPE, HEAD_DTYPE = "int4", "int8"

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
    if options.draft_dtype not in (None, *DRAFT_DTYPES):
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
        try:
            plans.append(_plan(m, values, facts, options.draft_dtype))
        except RecipeError as e:
            if _is_asked_for(m, options):
                raise
            unmet.setdefault(str(e.__cause__ or e), []).append(m.name)  # The recipe is named apart.
    for reason, names_left_out in unmet.items():
        warnings.warn(f"left out {', '.join(names_left_out)}: {reason}", SpeccWarning, stacklevel=2)
    own = [p.method.name for p in plans if _draft_dtypes(p) - {options.draft_dtype}]
    if own and options.draft_dtype is not None:
        names = ", ".join(own)
        warnings.warn(
            f"draft_dtype {options.draft_dtype} does not apply to {names}: these methods draft by 4-bit weights",
            SpeccWarning,
            stacklevel=2,
        )
    return plans


def check_early(methods: Sequence[Method], options: Options, config: Any = None) -> None:
    """Refuse what can be known before a model is loaded, and warn of options that no recipe uses.

    Args:
        methods: the recipes.
        options: the user's options.
        config: the configuration of the target's language model; None if it cannot be read alone.

    Raises:
        RecipeError: a value is out of range for any model, or for this one.
        BackendError: a backend cannot build a recipe.
    """
    check_ranges(methods, options.parameters)
    plans = []
    for m in methods:
        has_assistant, has_corpus = options.assistant_model is not None, options.corpus is not None
        choices = [replace(facts, assistant=has_assistant, corpus=has_corpus) for facts in any_facts(m)]
        if config is not None:
            choices = [replace(c, layers=config.num_hidden_layers, vocab_size=config.vocab_size) for c in choices]
        values = values_of(m, options.parameters)
        try:
            plans.append(plan_for_any(partial(_plan, m, values, draft_dtype=options.draft_dtype), choices))
        except (RecipeError, TreeError):
            if _is_asked_for(m, options):
                raise
    check_plans(plans, options)
    _warn_of_unused(plans, options)


def check_plans(plans: Sequence[RecipePlan], options: Options) -> None:
    """Refuse backends that cannot build what recipes run. Raises BackendError."""
    for each in plans:
        check_blocks(options.backends, each.method.name, each.blocks.all, options.dtype, options.build)


def reads_corpus(plans: Sequence[RecipePlan]) -> bool:
    """Tell whether a recipe looks up drafts in a corpus."""
    return any(CORPUS in each.blocks.arguments for each in plans)


def _warn_of_unused(plans: Sequence[RecipePlan], options: Options) -> None:
    """Warn of smaller models, of a corpus, and of a type of drafts that no recipe uses."""
    models = {block.model for each in plans for block in each.blocks.engines.values()}
    unused = {f"{name}-model": source for name, source in options.small_models.items() if name not in models}
    if options.corpus and not reads_corpus(plans):
        unused[CORPUS] = str(options.corpus)
    texts = {}
    for need, value in unused.items():
        users = corpus_readers(METHODS) if need == CORPUS else [m.name for m in METHODS.values() if need in m.needs]
        texts[f"--{need} {value}"] = f"{', '.join(users[:4])}{' and others' if len(users) > 4 else ''} would"
    if options.draft_dtype is not None and not any(map(_draft_dtypes, plans)):
        texts[f"--draft-dtype {options.draft_dtype}"] = "recipes whose drafts run an engine would"
    for option, remedy in texts.items():
        text = f"no chosen recipe uses {option}: {remedy}; add one with --recipe, or leave the option out"
        warnings.warn(text, SpeccWarning, stacklevel=2)


def _is_asked_for(m: Method, options: Options) -> bool:
    """Tell whether a user named recipes, or set a parameter of this one."""
    names_for_all = set(options.parameters.get("", {})) & m.parameters.keys()
    return bool(options.recipes or names_for_all or m.name in options.parameters)


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
    """Plan those recipes again whose method searches for layers to skip, if the user names none.

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
        search = recipe.method.search
        if search is None or not recipe.method.searches(recipe.values):
            searched.append(recipe)
            continue
        stages.begin("search", f"search the layers that {recipe.method.name} skips")
        layers = SEARCHES[search](graph, tokens, recipe.values, stages.advance)
        searched.append(_plan(recipe.method, {**recipe.values, **layers}, facts, options.draft_dtype))
    return searched


def _plan(m: Method, values: Mapping[str, Any], facts: Facts, draft_dtype: str | None) -> RecipePlan:
    blocks = plan(m, values, facts)
    verify = tuple(committing(block, facts.reading_heads) for block in blocks.verify)
    whole = dict(zip(blocks.verify, verify, strict=True))  # A part that verifies drafts is one engine for both.
    drafts = {
        role: whole.get(block, block)
        if role in blocks.parts
        else _with_draft_dtype(block, draft_dtype or _usual_dtype(block, m))
        for role, block in blocks.engines.items()
    }
    return RecipePlan(method=m, values=values, blocks=replace(blocks, verify=verify, engines=drafts))


def _usual_dtype(block: Block, m: Method) -> str:
    """Return the type of a draft's weights if the user chose none."""
    return HEAD_DTYPE if block.model == m.head else DRAFT_DTYPE


def _with_draft_dtype(block: Block, draft_dtype: str) -> Block:
    """Return the block with weights of the user's type, unless the method asks for a type of its own."""
    return replace(block, weights=draft_dtype) if block.weights == "fp32" else block
