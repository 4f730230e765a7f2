"""Which recipes are compiled, with what values, and of which blocks."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from graphs import prepared, tokens

from specc.backends import Options as BuildOptions
from specc.compiler import plans
from specc.compiler.options import Options
from specc.compiler.plans import MARGIN, SEARCHES, RecipePlan, check_early, choose_methods, plan_recipes, search_layers
from specc.compiler.stages import Stages
from specc.recipes import METHODS, Facts, LayerSearch, Method
from specc.recipes.engines import any_facts
from specc.runtime.block import Layers
from specc.runtime.drafters import MOST_TOKENS
from specc.runtime.errors import BackendError, RecipeError, SpeccWarning

pytestmark = pytest.mark.torch

FACTS = Facts(layers=3, vocab_size=100)
UNBOUNDED = (  # They count what fills no memory.
    "beta",
    "group_rows",
    "reasoning_steps",
    "max_depth",
    "parallel_tokens",
    "search_iterations",
    "context_tokens",
    "chunk_tokens",
)


def options(**changes: Any) -> Options:
    return Options(model="model", output="out", **changes)


def names(**changes: Any) -> list[str]:
    return [m.name for m in choose_methods(options(**changes))]


def planned(*recipes: str, **changes: Any) -> list[RecipePlan]:
    """Return the plans of some recipes; plain decoding's comes first."""
    choice = options(recipes=recipes, **changes)
    return plan_recipes(choose_methods(choice), FACTS, choice)


def test_without_names_the_usual_recipes_are_compiled_whose_needs_are_met() -> None:
    usual = {m.name for m in METHODS.values() if m.by_default}
    needy = {m.name for m in METHODS.values() if m.needs}
    assert set(names()) == usual - needy and usual & needy
    heads = {m.name for m in METHODS.values() if m.head and m.by_default}
    assert heads and set(names(assistant_model="small")) == usual - heads
    architectures = sorted({METHODS[name].head for name in heads})
    every = choose_methods(options(assistant_model="small"), architectures)
    assert {m.name for m in every} == usual


def test_a_head_brings_the_recipes_of_its_architecture_and_no_others() -> None:
    recipes = {m.name for m in choose_methods(options(), ("medusa",))}
    assert "medusa" in recipes and "eagle3" not in recipes


@pytest.mark.parametrize(
    ("recipes", "heads", "message"),
    [
        (("eagle3",), (), "recipe eagle3 needs a trained head of architecture eagle3; name its directory with --head"),
        (
            ("eagle3",),
            ("eagle3", "medusa"),
            "no chosen recipe drafts by the head medusa; leave it out, or add --recipe medusa",
        ),
    ],
)
def test_a_recipe_needs_its_head_and_a_head_its_recipe(
    recipes: tuple[str, ...], heads: tuple[str, ...], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        choose_methods(options(recipes=recipes), heads)


def test_a_model_of_one_layer_has_the_recipes_that_need_no_second_one() -> None:
    with pytest.warns(SpeccWarning, match=r"left out .*early-exit.*: an early exit needs a model of 2 layers or more"):
        plans_of_one = plan_recipes(choose_methods(options()), Facts(1, 100), options())
    rest = [plan.method.name for plan in plans_of_one]
    assert rest[0] == "plain" and "prompt-lookup" in rest and "early-exit" not in rest


@pytest.mark.parametrize(
    "changes", [{"recipes": ["early-exit"]}, {"parameters": {"early-exit": {"assistant_early_exit": 1}}}]
)
def test_a_recipe_that_the_user_asks_for_is_never_left_out(changes: dict[str, Any]) -> None:
    choice = options(**changes)
    with pytest.raises(RecipeError, match="an early exit needs a model of 2 layers or more, and this one has 1"):
        plan_recipes(choose_methods(choice), Facts(1, 100), choice)


def test_plain_decoding_comes_first_and_each_recipe_once() -> None:
    assert names(recipes=("early-exit", "jacobi", "early-exit", "plain")) == ["plain", "early-exit", "jacobi"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipes": ("draft-model",)}, "recipe draft-model needs a draft model; name one with --assistant-model"),
        ({"recipes": ("jacobbi",)}, "no recipe 'jacobbi'; did you mean 'jacobi'"),
        ({"recipes": ("jacobi",), "parameters": {"early-exit": {}}}, "is not compiled; add --recipe early-exit"),
        ({"recipes": ("jacobi",), "parameters": {"": {"tree": 1}}}, "no compiled recipe has a parameter 'tree'"),
    ],
)
def test_what_cannot_be_chosen_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        choose_methods(options(**changes))


def test_a_value_for_all_recipes_gives_way_to_one_for_a_single_recipe() -> None:
    parameters = {"": {"num_speculative_tokens": 2}, "jacobi": {"num_speculative_tokens": 7}}
    plain, jacobi, skip = planned("jacobi", "layer-skip", parameters=parameters)
    assert "num_speculative_tokens" not in plain.values
    assert (jacobi.values["num_speculative_tokens"], skip.values["num_speculative_tokens"]) == (7, 2)


def test_drafts_read_the_type_that_the_user_chose_unless_the_method_has_one() -> None:
    with pytest.warns(SpeccWarning):
        _, skip, copy = planned("layer-skip", "quantized-self-draft", draft_dtype="int8")
    assert skip.blocks.engines["draft"].weights == "int8"
    assert copy.blocks.engines["draft"].weights == "int4"
    assert {block.weights for plan in (skip, copy) for block in plan.blocks.verify} == {"fp32"}


@pytest.mark.parametrize(("user", "of_head", "of_others"), [(None, "int8", "int4"), ("fp32", "fp32", "fp32")])
def test_heads_draft_by_8_bits_and_other_drafts_by_4_unless_the_user_chose(
    user: str | None, of_head: str, of_others: str
) -> None:
    (method,) = (m for m in METHODS.values() if m.name == "eagle3-tree")
    (facts, *_) = any_facts(method)
    (head,) = plan_recipes([method], facts, options(recipes=["eagle3-tree"], draft_dtype=user))
    assert {block.weights for block in head.blocks.engines.values()} == {of_head}
    _, skip = planned("layer-skip", draft_dtype=user)
    assert {block.weights for block in skip.blocks.engines.values()} == {of_others}


@pytest.mark.parametrize("recipe", ["layer-skip", "cascade", "plain"])
def test_a_type_of_drafts_that_does_not_exist_is_refused_before_anything_is_loaded(recipe: str) -> None:
    with pytest.raises(RecipeError, match="draft_dtype is 'int3'; choose one of fp32, int8, int4"):
        choose_methods(options(recipes=[recipe], draft_dtype="int3"))


def test_a_warning_names_the_recipes_whose_drafts_have_another_type() -> None:
    message = "draft_dtype int8 does not apply to cascade, staged: these methods draft by 4-bit weights"
    with pytest.warns(SpeccWarning, match=message):
        planned("layer-skip", "cascade", "staged", draft_dtype="int8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        planned("layer-skip", draft_dtype="int8")
        planned("cascade")


def test_a_block_is_no_wider_than_the_scratch_of_the_cache() -> None:
    """A single number is bounded by itself, a sum of two here."""
    assert MARGIN == MOST_TOKENS + 1
    assert planned("jacobi", parameters={"jacobi": {"num_speculative_tokens": MOST_TOKENS}})
    names = "num_speculative_tokens", "prompt_lookup_num_tokens"
    assert planned("cascade", parameters={"cascade": dict(zip(names, (64, 63), strict=True))})
    with pytest.raises(RecipeError, match="recipe cascade needs 129 slots; 128 is the most"):
        planned("cascade", parameters={"cascade": dict.fromkeys(names, 64)})


@pytest.mark.parametrize("number", [MOST_TOKENS + 1, 10**9, 10**30])
@pytest.mark.parametrize("m", METHODS.values(), ids=list(METHODS))
def test_a_number_that_would_fill_the_memory_is_refused(m: Method, number: int) -> None:
    """Of every parameter that is a number of tokens."""
    facts = replace(FACTS, assistant=True)
    for name in [n for n, p in m.parameters.items() if isinstance(p.default, int) and n not in UNBOUNDED]:
        choice = options(recipes=[m.name], assistant_model="small", parameters={m.name: {name: number}})
        remedy = r"give a whole number from [0-2] to \d+|the model has 3 layers: give 1\.\.2|give 8, or 0 for .*"
        with pytest.raises(RecipeError, match=f"^recipe {m.name}: {name} is {number}; ({remedy})$"):
            plan_recipes([m], facts, choice)


def test_the_rows_of_a_frontier_count_too() -> None:
    """A draft call of 4 slots sees the rows of the whole tree."""
    with pytest.raises(RecipeError, match="recipe dynamic-tree needs 129 slots; 128 is the most"):
        planned("dynamic-tree", parameters={"dynamic-tree": {"num_speculative_tokens": MARGIN - 4}})


def test_every_search_has_a_function() -> None:
    assert SEARCHES.keys() == set(LayerSearch)


def test_a_search_plans_again_what_was_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def search(graph: object, tokens: object, values: object, advance: Any) -> dict[str, Any]:
        advance(0, 2)
        return {"skip_attention": [1], "skip_mlp": []}

    monkeypatch.setitem(plans.SEARCHES, LayerSearch.SKIP_SOME, search)
    choice, titles = options(recipes=("layer-skip", "jacobi")), []
    before = planned("layer-skip", "jacobi")
    stages = Stages(lambda title, done, total: titles.append(title), {"search": 1.0})
    graph, text = prepared("llama"), tokens()[0].tolist()
    after = search_layers(before, FACTS, choice, graph, text, stages)
    assert [plan.method.name for plan in after] == ["plain", "layer-skip", "jacobi"]
    draft = after[1].blocks.engines["draft"]
    assert draft.layers == Layers(skip_attention=(1,)) and draft.weights == "int4"
    assert after[1].values["skip_attention"] == [1]
    assert (after[0], after[2]) == (before[0], before[2])
    title = "search the layers that layer-skip skips"
    assert titles == [title, f"{title} · 1 of 2"]


@pytest.mark.parametrize(
    ("recipe", "parameter", "value"), [("layer-skip", "skip_layers", [1]), ("swift", "skip_sets", [[[1], [1]]])]
)
def test_layers_that_the_user_names_are_not_searched_for_and_no_stage_says_so(
    recipe: str, parameter: str, value: Any
) -> None:
    choice = options(recipes=(recipe,), parameters={recipe: {parameter: value}})
    before = plan_recipes(choose_methods(choice), FACTS, choice)
    titles: list[str] = []
    stages = Stages(lambda title, done, total: titles.append(title), {"search": 1.0})
    assert search_layers(before, FACTS, choice, prepared("llama"), [1, 2], stages) == before and titles == []


def warned(*recipes: str, **changes: Any) -> list[str]:
    """Return what a compile says before a model is loaded."""
    choice = options(recipes=recipes, **changes)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        check_early(choose_methods(choice), choice)
    return [str(warning.message) for warning in record]


@pytest.mark.parametrize(
    ("recipe", "user", "changes", "option"),
    [
        ("prompt-lookup", "draft-model", {"assistant_model": "./small"}, "--assistant-model ./small: draft-model, "),
        ("prompt-lookup", "fs-gen-proxy", {"untuned_model": "./old"}, "--untuned-model ./old: fs-gen-proxy would"),
        ("prompt-lookup", "rasd", {"corpus": "texts"}, "--corpus texts: adaptix, rasd, rasd-eagle2, superposed would"),
        ("prompt-lookup", "early-exit", {"draft_dtype": "int8"}, "--draft-dtype int8: recipes whose drafts run an"),
    ],
)
def test_an_option_that_no_chosen_recipe_uses_is_named_with_those_that_would(
    recipe: str, user: str, changes: dict[str, Any], option: str
) -> None:
    (text,) = warned(recipe, **changes)
    assert text.startswith(f"no chosen recipe uses {option}") and text.endswith("or leave the option out")
    assert warned(user, **({"assistant_model": "./small"} if METHODS[user].needs[:1] else {}) | changes)[1:] == []


def test_a_draft_model_that_a_recipe_may_have_is_used() -> None:
    assert warned("dynamic-tree", assistant_model="./small") == []
    assert warned("rasd", assistant_model="./small", corpus="texts") == []


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("recipe", ["quantspec", "quantspec-int8"])
def test_rows_in_few_bits_beside_weights_in_half_precision_are_refused_early(recipe: str, dtype: str) -> None:
    with pytest.raises(BackendError, match=rf"recipe {recipe}: rows in . bits stand beside weights in fp32, "):
        warned(recipe, dtype=dtype)
    assert warned(recipe, dtype="fp32") == warned(recipe) == []


@pytest.mark.parametrize("backend", ["inductor", "tensorrt"])
def test_a_lowering_that_a_backend_does_not_have_is_refused_early(backend: str) -> None:
    with pytest.raises(BackendError, match=r"; leave out --lowering|; take --lowering portable"):
        warned("jacobi", backends=(backend,), build=BuildOptions("fast"))


@pytest.mark.parametrize("layers", [4, 5])
def test_layers_that_the_configuration_does_not_have_are_refused_early(layers: int) -> None:
    choice = options(recipes=("early-exit",), parameters={"early-exit": {"assistant_early_exit": 4}})
    config = SimpleNamespace(num_hidden_layers=layers, vocab_size=100)
    refusal: Any = pytest.raises(RecipeError, match="assistant_early_exit is 4; give a number of layers from 1 to 3")
    with refusal if layers == 4 else nullcontext():
        check_early(choose_methods(choice), choice, config)


def test_a_recipe_of_the_usual_ones_that_the_model_cannot_have_waits_to_be_left_out() -> None:
    choice = options()
    check_early(choose_methods(choice), choice, SimpleNamespace(num_hidden_layers=1, vocab_size=100))
