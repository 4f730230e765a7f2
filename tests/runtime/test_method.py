"""Names in a recipe find their files, and nothing else; a drafter gets what its rule needs."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import toys

from specc.recipes import METHODS, Method
from specc.runtime import acceptance, drafters
from specc.runtime.acceptance.match import match
from specc.runtime.drafters import Drafter
from specc.runtime.drafters.prompt_lookup import PromptLookup
from specc.runtime.errors import BackendError, RecipeError
from specc.runtime.method import RunnableMethod, load_acceptance, load_drafter, load_method
from specc.runtime.recipe import Recipe

Load = Callable[[str], Any]
SAMPLES = Recipe(name="b", drafter="layer-skip", verify=())
COPIES = Recipe(name="a", drafter="prompt-lookup", verify=())


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(drafters.__path__)])
def test_a_drafter_is_found_by_the_name_of_its_file(module: str) -> None:
    drafter: Any = load_drafter(module.replace("_", "-"))
    assert drafter.__module__ == f"{drafters.__name__}.{module}" and issubclass(drafter, Drafter)


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(acceptance.__path__)])
def test_a_rule_is_found_by_the_name_of_its_file(module: str) -> None:
    rule = load_acceptance(module)
    assert rule.__module__ == f"{acceptance.__name__}.{module}" and rule.__name__ == module


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_table_of_methods_names_files_that_exist(method: Method) -> None:
    load_drafter(method.drafter)
    load_acceptance(method.acceptance)


@pytest.mark.parametrize("load", [load_drafter, load_acceptance])
@pytest.mark.parametrize("name", ["", "../plain", "a/b", "os.path", ".plain", "__init__", "Match", "match\n", "7", "é"])
def test_what_cannot_name_a_file_is_refused_before_anything_is_imported(
    load: Load, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"imported {name}"))
    with pytest.raises(RecipeError) as e:
        load(name)
    assert repr(name) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("load", [load_drafter, load_acceptance])
def test_a_name_that_does_not_exist_is_named(load: Load) -> None:
    with pytest.raises(RecipeError, match="'telepathy'"):
        load("telepathy")


def test_a_module_that_a_drafter_misses_is_not_taken_for_the_drafter(monkeypatch: pytest.MonkeyPatch) -> None:
    load = importlib.import_module

    def missing(name: str) -> ModuleType:
        if name.endswith(".plain"):
            raise ModuleNotFoundError("No module named 'scipy'", name="scipy")
        return load(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="scipy"):
        load_drafter("plain")


def test_a_method_takes_the_recipes_rule_or_another() -> None:
    assert load_method(COPIES).accept is match
    assert load_method(COPIES, "match").accept is match
    assert load_method(SAMPLES, "speculative").accept is load_acceptance("speculative")
    assert load_method(COPIES, match).key == ("a",)
    assert load_method(SAMPLES, "speculative").key == ("b", "sample")


def test_a_rule_that_needs_draft_probs_needs_a_drafter_that_samples() -> None:
    with pytest.raises(RecipeError) as e:
        load_method(COPIES, "speculative")
    assert str(e.value) == (
        "acceptance 'speculative' needs a drafter that samples, and the drafter of recipe a does not; use match"
    )


def test_a_rule_has_the_recipes_parameters_unless_the_request_names_another_rule() -> None:
    recipe = replace(COPIES, acceptance="typical", rule_parameters={"epsilon": 0.2})
    assert load_method(recipe).accept is not load_acceptance("typical")
    assert load_method(recipe).accept.__name__ == "typical"
    assert load_method(recipe, "typical").accept is load_acceptance("typical")
    with pytest.raises(RecipeError, match="acceptance typical has no parameter 'epsylon'; did you mean 'epsilon'"):
        load_method(replace(COPIES, acceptance="typical", rule_parameters={"epsylon": 0.2}))


def test_a_rule_that_needs_logits_needs_a_drafter_that_keeps_them() -> None:
    with pytest.raises(RecipeError, match="needs a drafter that samples, and the drafter of recipe a does not"):
        load_method(COPIES, "contrastive")
    layer_skip = replace(COPIES, drafter="layer-skip")
    assert load_method(layer_skip, "contrastive").key == ("a", "sample", "keep_logits")


def test_a_rule_for_siblings_drawn_with_replacement_needs_a_drafter_that_draws_them_so() -> None:
    """Otherwise its promise would be wrong."""
    with pytest.raises(RecipeError, match="needs a drafter that draws siblings with replacement, and the drafter of"):
        load_method(replace(COPIES, drafter="dynamic-tree"), "kseq")
    static_tree = replace(COPIES, drafter="static-tree")
    assert load_method(static_tree, "kseq").key == ("a", "sample", "replacement")
    assert load_method(static_tree, "recursive").key == ("a", "sample")


def test_a_function_that_is_not_marked_as_a_rule_is_refused() -> None:
    unmarked: Any = lambda draft, verified: None  # noqa: E731
    with pytest.raises(RecipeError, match="is not an acceptance rule; mark it with specc"):
        load_method(COPIES, unmarked)


def test_a_drafter_gets_its_engines_and_parameters_and_samples_for_a_rule_that_asks_for_it() -> None:
    engine: Any = object()
    recipe = Recipe(name="c", drafter="layer-skip", verify=(), parameters={"num_speculative_tokens": 9})
    for rule, sample in (("match", False), ("speculative", True)):
        drafter: Any = load_method(recipe, rule).make_drafter({"draft": engine})
        count = drafter.length.num_speculative_tokens
        assert (drafter.engine, count, drafter.sample) == (engine, 9, sample)


ODD: list[Any] = [None, True, -1, 0, 128, 10**30, 0.5, math.nan, math.inf, "3", [], {"a": 1}]
# A drafter, its parameter, and the odd values that are right for it.
PARAMETERS: list[tuple[str, str, list[Any]]] = [
    ("prompt-lookup", "prompt_lookup_num_tokens", []),
    ("prompt-lookup", "max_matching_ngram_size", []),
    ("recycled-lookup", "max_matching_ngram_size", []),
    ("cascade", "num_speculative_tokens", []),
    ("cascade", "prompt_lookup_num_tokens", []),
    ("cascade", "min_matching_ngram_size", []),
    ("cascade", "assistant_confidence_threshold", [0, 0.5]),
    ("staged", "num_speculative_tokens", []),
    ("staged", "min_matching_ngram_size", []),
    ("draft-model", "num_speculative_tokens", []),
    ("draft-model", "rejection_threshold", [0, 0.5]),
    ("draft-model", "num_assistant_tokens_schedule", []),
    ("draft-model", "fallback_threshold", [0, 0.5]),
    ("entropy-adaptive", "num_speculative_tokens", []),
    ("entropy-adaptive", "entropy_threshold", [0, 0.5]),
    ("entropy-adaptive", "entropy_window", []),
    ("entropy-adaptive", "least_tokens", []),
    ("layer-skip", "assistant_confidence_threshold", [0, 0.5]),
    ("layer-skip", "target_acceptance_rate", [0, 0.5]),
    ("layer-skip", "group_rows", [0, 128]),
    ("draft-model", "margin_threshold", [0, 0.5]),
    ("dynamic-tree", "num_speculative_tokens", []),
    ("heap-tree", "num_speculative_tokens", []),
    ("heap-tree", "max_depth", []),
    ("comb", "siblings", []),
    ("comb", "num_speculative_tokens", []),
    ("comb", "max_depth", []),
    ("comb", "assistant_confidence_threshold", [0, 0.5]),
    ("ranked-tree", "num_speculative_tokens", []),
    ("ranked-tree", "beams", []),
    ("ranked-tree", "max_depth", []),
    ("ranked-tree", "mass_threshold", [0, 0.5]),
    ("ranked-tree", "mass_depths", [[]]),
    ("staged-tree", "num_speculative_tokens", []),
    ("staged-tree", "max_depth", []),
    ("staged-tree", "max_matching_ngram_size", []),
    ("staged-tree", "min_matching_ngram_size", []),
    ("tr-jacobi", "template", []),
    ("tr-jacobi", "retrieved_tokens", []),
    ("tr-jacobi", "max_matching_ngram_size", []),
    ("copy-spec-draft", "min_matching_ngram_size", []),
    ("copy-spec-draft", "prompt_lookup_num_tokens", []),
    ("retrieval-tree", "vocab_size", [128]),
    ("retrieval-tree", "num_speculative_tokens", []),
    ("retrieval-tree", "retrieved_tokens", []),
    ("retrieval-tree", "max_matching_ngram_size", []),
    ("retrieval-tree", "max_depth", []),
    ("retrieval-tree", "beams", []),
    ("retrieval-eagle", "vocab_size", [128]),
    ("retrieval-eagle", "num_speculative_tokens", []),
    ("retrieval-eagle", "retrieved_tokens", []),
    ("retrieval-eagle", "max_matching_ngram_size", []),
    ("retrieval-eagle", "max_depth", []),
    ("guess-slots", "assistant_confidence_threshold", [0, 0.5]),
    ("guess-slots", "longest_repeat", [0, 128]),
    ("mask-tokens", "assistant_confidence_threshold", [0, 0.5]),
    ("trigram-search", "vocab_size", [128]),
    ("pearl", "num_speculative_tokens", []),
    ("short-context", "context_tokens", [128]),
    ("short-context", "chunk_tokens", [128]),
    ("nested-exits", "num_speculative_tokens", []),
    ("nested-exits", "exit_threshold", [0, 0.5]),
    ("recursive-depths", "exit_threshold", [0, 0.5]),
    ("dynamic-tree", "max_depth", []),
    ("early-exit", "tree", []),
    ("copy-spec", "min_matching_ngram_size", []),
    ("copy-spec", "prompt_lookup_num_tokens", []),
    ("aggressive-decoding", "num_speculative_tokens", []),
    ("static-tree", "tree", []),
    ("stochastic-beam", "beams", []),
    ("stochastic-beam", "max_depth", []),
    ("jacobi", "num_speculative_tokens", []),
    ("jacobi", "vocab_size", [None, 128]),
    ("fast-cot", "num_speculative_tokens", []),
    ("fast-cot", "vocab_size", [128]),
    ("fast-cot", "reasoning_steps", [0, 128]),
    ("fast-cot", "confidence_threshold", [0, 0.5]),
    ("gauss-seidel", "block_size", []),
    ("gauss-seidel", "parallel_tokens", [None, 128]),
    ("lookahead", "window_size", []),
    ("lookahead", "ngram_size", []),
    ("lookahead", "max_candidates", [0]),
    ("trigram-search", "num_speculative_tokens", []),
    ("trigram-search", "max_depth", []),
    ("trigram-search", "search_iterations", [0, 128]),
    ("eagle", "num_speculative_tokens", []),
    ("eagle", "assistant_confidence_threshold", [0, 0.5]),
    ("eagle-tree", "num_speculative_tokens", []),
    ("eagle-tree", "max_depth", []),
    ("token-recycling", "tree", []),
    ("token-recycling", "vocab_size", [128]),
    ("token-recycling", "successors", []),
    ("eagle-cascade", "num_speculative_tokens", []),
    ("eagle-cascade", "prompt_lookup_num_tokens", []),
    ("eagle-cascade", "max_matching_ngram_size", []),
    ("eagle-cascade", "min_matching_ngram_size", []),
    ("eagle-cascade", "assistant_confidence_threshold", [0, 0.5]),
    ("eagle-lookup", "num_speculative_tokens", []),
    ("eagle-lookup", "max_depth", []),
    ("falcon", "tree", []),
    ("jakiro", "num_speculative_tokens", []),
    ("jakiro", "max_depth", []),
    ("chimera", "tree", []),
    ("head-beam", "beams", []),
    ("head-beam", "max_depth", []),
    ("layer-sets", "num_speculative_tokens", []),
    ("layer-sets", "max_depth", []),
    ("layer-sets", "assistant_confidence_threshold", [0, 0.5]),
    ("layer-sets", "target_matchness", [0, 0.5]),
    ("layer-sets", "patience", []),
    ("peagle", "num_speculative_tokens", []),
    ("dflash", "num_speculative_tokens", []),
    ("dflash", "block_size", []),
    ("superposed", "vocab_size", [128]),
    ("superposed", "num_speculative_tokens", []),
    ("superposed", "alpha", [0, 0.5]),
]


def make_drafter_of(drafter: str, parameters: Mapping[str, Any]) -> Drafter:
    """Make a drafter as a recipe of a stranger does, over engines that it may not use."""
    takes = inspect.signature(load_drafter(drafter)).parameters
    engines: dict[str, Any] = {role: object() for role in ("draft", "wide", "feed", "prefill") if role in takes}
    if "exits" in takes:
        engines["exit_0"] = object()
    required = {
        "tree": [-1, 0],
        "template": [-1, 0, *range(1, 6)],
        "vocab_size": 8,
        "siblings": [[0, 2]],
        "corpus": toys.corpus(8),
    }
    whole = {name: value for name, value in required.items() if name in takes} | dict(parameters)
    return load_method(Recipe(name="odd", drafter=drafter, verify=(), parameters=whole)).make_drafter(engines)


@pytest.mark.parametrize(("drafter", "name", "right"), PARAMETERS)
def test_a_parameter_that_a_drafter_cannot_have_is_one_line(drafter: str, name: str, right: list[Any]) -> None:
    for value in ODD:
        if not any(value is each or (value == each and type(value) is type(each)) for each in right):
            with pytest.raises(RecipeError, match="recipe odd: ") as e:
                make_drafter_of(drafter, {name: value})
            assert str(e.value).isprintable()


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(drafters.__path__)])
def test_a_parameter_or_an_engine_that_a_drafter_does_not_have_is_one_line(module: str) -> None:
    for name in ("surprise", "self", "seq"):
        with pytest.raises(RecipeError, match=r"does not go with its engines|engines are \w+; give") as e:
            make_drafter_of(module.replace("_", "-"), {name: 1})
        assert str(e.value).isprintable()


def test_every_parameter_of_a_method_is_tried() -> None:
    """So that a new drafter has its place in the table above."""
    counts = {name: inspect.signature(load_drafter(name)).parameters for name in {m.drafter for m in METHODS.values()}}
    numbers = {(d, p.name) for d, ps in counts.items() for p in ps.values() if p.annotation in ("int", "float")}
    inherited = {("recycled-lookup", "prompt_lookup_num_tokens")}
    twice = {("staged", "prompt_lookup_num_tokens"), ("staged", "max_matching_ngram_size")}
    twice |= {("cascade", "max_matching_ngram_size")}
    assert numbers - {(d, p) for d, p, _ in PARAMETERS} == inherited | twice


ERRORS = [TypeError("no"), IndexError("no"), AssertionError(), ZeroDivisionError("no")]


def method_that_raises(error: Exception) -> RunnableMethod:
    """Return a method whose drafter cannot be made."""

    class Broken(PromptLookup):
        def __init__(self, **options: object) -> None:
            raise error

    return replace(load_method(COPIES), drafter=Broken)


@pytest.mark.parametrize("error", ERRORS)
def test_what_python_raises_while_a_drafter_works_is_one_line(error: Exception) -> None:
    with pytest.raises(RecipeError, match=f"{type(error).__name__}.*; decode by recipe plain") as e:
        method_that_raises(error).make_drafter({})
    assert e.value.__cause__ is error


def test_an_error_of_ours_passes_a_drafter_as_it_is() -> None:
    ours = BackendError("the engine broke")
    with pytest.raises(BackendError) as e:
        method_that_raises(ours).make_drafter({})
    assert e.value is ours


RULES = (
    "confidence, contrastive, distance, enriched, guided, judge, kseq, match, proxy, recursive, speculative, top_beta, "
    "trust, typical"
)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("recrsive", "did you mean 'recursive'?"),
        ("top-beta", "did you mean 'top_beta'?"),
        ("telepathy", f"there are {RULES}; upgrade specc if a bundle asks for another"),
    ],
)
def test_a_rule_that_does_not_exist_comes_with_the_nearest_or_all(name: str, remedy: str) -> None:
    with pytest.raises(RecipeError) as e:
        load_method(COPIES, name)
    assert str(e.value) == f"no acceptance rule {name!r}; {remedy}"


def test_a_drafter_that_does_not_exist_comes_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"^no drafter 'promt-lookup'; did you mean 'prompt-lookup'\?$"):
        load_drafter("promt-lookup")


@pytest.mark.parametrize(
    ("field", "words"),
    [("drafter_version", "drafter plain"), ("acceptance_version", "acceptance rule match")],
)
def test_a_version_of_an_algorithm_that_this_runtime_lacks_is_refused(field: str, words: str) -> None:
    recipe = Recipe(name="plain", drafter="plain", verify=("decode",))
    load_method(recipe)
    changes: dict[str, Any] = {field: 2}
    message = f"recipe plain needs version 2 of the {words}, and this specc has version 1; choose another recipe"
    with pytest.raises(RecipeError, match=re.escape(message)):
        load_method(replace(recipe, **changes))
