"""Heads that attend to what the model said, trained on the demo model: the papers' own claims, in bundles.

Each head makes few updates, since each starts from layers of the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from statistics import mean
from typing import Any

import pytest
import torch
from demo_text import DEMO, Text, train_head
from quick_compile import compile_quickly

import specc
from specc.compiler import Options
from specc.heads import Head, save_head
from specc.heads.head import rms_norm
from specc.huggingface import load_model
from specc.runtime.model import Model
from specc.training.acceptance import CHAIN, Acceptance, measure
from specc.training.checkpoint import Progress
from specc.training.courses import COURSES
from specc.training.layer_start import least_squares
from specc.training.shards import Recording
from specc.training.trainer import TrainerOptions

pytestmark = [pytest.mark.torch, pytest.mark.model, pytest.mark.slow]
OPTIONS = TrainerOptions(updates=60, evaluations=3, every=1e9, held_out=10**6)
HEADS = ("tandem", "glide", "mixture-of-attentions")
RECIPES = ("tandem", "glide", "glide-cape", "mixture-of-attentions")
TOKENS = 48  # of an answer
Trained = tuple[Head, Progress, Acceptance]


@pytest.fixture(scope="module")
def text(demo_text: Text) -> Text:
    """Recorded text, half of what is held out."""
    return replace(demo_text, held_out=demo_text.held_out[::2])


@pytest.fixture(scope="module")
def trained(text: Text) -> Callable[[str], Trained]:
    """Return a function that trains the head of a recipe, once."""
    return cache(lambda name: train(text, name))


def train(text: Text, name: str, change: Callable[[Text], Text] = lambda text: text) -> Trained:
    """Train a head.

    Args:
        text: recorded text.
        name: the recipe.
        change: changes what the head reads of the text.
    """
    course, model = COURSES[name], load_model(str(DEMO))
    for bind in filter(None, (course.in_model, course.from_model)):
        course = bind(course, model)
    own = change(text.of(course))
    head, progress = train_head(own, course, f"{name}-{change.__name__}", OPTIONS)
    return head, progress, measure(head, course, own.held_out, CHAIN)


def without_states(text: Text) -> Text:
    """Put the best linear guess from a token alone in the place of the model's states of it."""

    def read(one: Recording) -> torch.Tensor:
        return rms_norm(text.teacher.embedding[one.tokens], None, 1e-6)

    product = least_squares([read(one) for one in text.train], [one.states.float() for one in text.train])

    def changed(one: Recording) -> Recording:
        return replace(one, stored_states=(read(one) @ product.T).bfloat16())

    return replace(text, train=list(map(changed, text.train)), held_out=list(map(changed, text.held_out)))


@pytest.fixture(scope="module")
def runner(trained: Callable[[str], Trained], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A bundle of all heads."""
    directory = tmp_path_factory.mktemp("cross")
    for name in HEADS:
        save_head(trained(name)[0], directory / name, {"card.json": "{}"})
    prompts = directory / "p.jsonl"
    prompts.write_text(json.dumps({"prompt": "def wrap(text):"}) + "\n", encoding="utf-8")
    bundle = directory / "b.specc"
    compile_quickly(
        Options(
            model=str(DEMO),
            output=bundle,
            recipes=RECIPES,
            heads=[directory / name for name in HEADS],
            prompts=prompts,
            golden_tokens=8,
            # The threshold would end a chain where a comb goes on; both draft as deep here. Where calls go through a
            # network, a call costs the same for any tree.
            parameters={"glide": {"assistant_confidence_threshold": 0.0, "num_speculative_tokens": 4},
                        "glide-cape": {"max_depth": 4},
                        "mixture-of-attentions": {"num_speculative_tokens": 24, "step_costs": []}},
        )
    )  # fmt: skip
    with specc.load(bundle) as model:
        yield model


@pytest.fixture(scope="module")
def figures(runner: Model, text: Text) -> Mapping[str, list[Any]]:
    """The counts of greedy answers to held-out prompts by each recipe. All tokens are plain decoding's."""
    return {recipe: answers(runner, recipe, text) for recipe in ("plain", *RECIPES)}


def answers(model: Model, recipe: str, text: Text) -> list[Any]:
    """Return the counts of each answer of a recipe, which are compared with plain decoding's tokens."""
    counts: list[Any] = []
    guard: dict[str, Any] = {} if recipe == "plain" else {"guard": False}
    for one in text.held_out:
        prompt, options = one.tokens[: one.prompt].tolist(), guard | {"ignore_eos": True}
        answer = model.session().generate(prompt, TOKENS, recipe=recipe, **options)
        assert answer.token_ids == model.session().generate(prompt, TOKENS, recipe="plain", ignore_eos=True).token_ids
        counts.append(answer.stats)
    return counts


def test_a_tandem_drafts_better_with_the_states_of_the_model_than_without(
    text: Text, trained: Callable[[str], Trained], record_property: Any
) -> None:
    """The control learns as long from the same start, but reads of each token what its embedding tells."""
    (_, progress, ours), (_, _, theirs) = trained("tandem"), train(text, "tandem", without_states)
    record_property("figures", {"with": ours.chain, "without": theirs.chain, "start": progress.acceptances["0"]})
    print(ours, theirs, progress.acceptances)
    assert ours.chain > theirs.chain + 0.1
    assert ours.chain > progress.acceptances["0"] + 0.02


def test_glide_learns_to_draft_better_than_the_best_guess_from_the_last_token(
    text: Text, trained: Callable[[str], Trained], record_property: Any
) -> None:
    _, progress, acceptance = trained("glide")
    rows = [(rms_norm(text.teacher.embedding[one.tokens], None, 1e-6), one) for one in text.train]
    product = least_squares([x for x, _ in rows], [one.final.float() for _, one in rows])
    right = []
    for one in text.held_out:
        guesses = rms_norm(text.teacher.embedding[one.tokens], None, 1e-6) @ product.T @ text.teacher.product.T
        right.append(guesses[one.prompt - 1 : -1].argmax(-1) == one.tokens[one.prompt :])
    of_token = float(torch.cat(right).float().mean())
    record_property("figures", {"layer": acceptance.by_rank[0], "token": of_token, "progress": progress.acceptances})
    print(acceptance, of_token, progress.acceptances)
    assert acceptance.by_rank[0] > of_token + 0.1
    assert acceptance.chain > progress.acceptances["0"] + 0.02


def test_a_comb_takes_at_least_as_many_tokens_a_step_as_a_chain(
    figures: Mapping[str, list[Any]], record_property: Any
) -> None:
    means = {name: mean(one.mean_acceptance_length for one in figures[name]) for name in ("glide", "glide-cape")}
    record_property("figures", means)
    print(means)
    assert means["glide-cape"] >= means["glide"] > 1.4


def test_a_tandem_takes_more_than_one_token_a_step_in_a_bundle(
    figures: Mapping[str, list[Any]], record_property: Any
) -> None:
    length = mean(one.mean_acceptance_length for one in figures["tandem"])
    record_property("figures", length)
    print(length)
    assert length > 1.4


def test_a_mixture_of_attentions_calls_the_model_less_than_half_as_often_as_there_are_tokens(
    figures: Mapping[str, list[Any]], record_property: Any
) -> None:
    """The control is plain decoding, which calls the model once for each token but the first."""
    calls = {
        name: sum(one.target_calls for one in figures[name]) / sum(one.new_tokens for one in figures[name])
        for name in ("mixture-of-attentions", "plain")
    }
    record_property("figures", calls)
    print(calls)
    assert calls["mixture-of-attentions"] < 0.5 < calls["plain"]


def test_states_of_a_token_are_joined_once_where_the_model_runs_and_not_by_drafts(runner: Model) -> None:
    engines = runner.shared.bundle.manifest.engines
    outputs = {engine.name: {tensor.name for tensor in engine.outputs} for engine in engines}
    inputs = {engine.name: {tensor.name for tensor in engine.inputs} for engine in engines}
    drafts = {name for name in outputs if name.startswith("mixture_of_attentions-")}
    assert {"decode", "prefill"} <= {name for name, names in outputs.items() if "state_mixture_of_attentions" in names}
    assert drafts and all("state" in inputs[name] for name in drafts)
    assert not any("state_mixture_of_attentions" in outputs[name] for name in drafts)
