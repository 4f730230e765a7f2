"""Heads that are a part of the model's own run, trained for seconds on the demo model, and compiled."""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import specc
from specc.compiler import Options, compile_bundle
from specc.heads import Head, HeadConfig, build_head, save_head
from specc.huggingface import load_model, load_tokenizer
from specc.recipes import METHODS
from specc.recipes.guess_trees import expected, state_trees
from specc.runtime.acceptance import rule
from specc.runtime.acceptance.match import match
from specc.runtime.block import GuessTree
from specc.runtime.draft import Accepted, Draft, Verified
from specc.runtime.model import Model
from specc.training.acceptance import measure
from specc.training.beginning import config_of
from specc.training.course import Course
from specc.training.courses import COURSES
from specc.training.distillation import Distillation
from specc.training.prompts import read_prompts
from specc.training.record import HELD_OUT, RecordingOptions, batches, record
from specc.training.shards import Recording, read_shard
from specc.training.teacher import Teacher, teacher_of
from specc.training.trainer import Trainer, TrainerOptions

pytestmark = [pytest.mark.torch, pytest.mark.model, pytest.mark.slow]
MODEL = Path(__file__).parents[1] / "examples" / "pycode-10m"
SOURCES = (argparse, ast, inspect)
ANSWER = 48
SIZES: dict[str, dict[str, Any]] = {
    "ppd": {"num_speculative_tokens": 5, "guess_slots": 10},
    "s3d": {},
}
UPDATES = 60


@dataclass(frozen=True)
class Text:
    """Recorded text of the demo model."""

    model: PreTrainedModel
    teacher: Teacher
    train: list[Recording]
    held_out: list[Recording]
    directory: Path


@dataclass(frozen=True)
class Trained:
    """A head after its training, and how often its guesses are right in the first half of the held-out answers."""

    course: Course
    head: Head
    rates: list[list[float]]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    directory = tmp_path_factory.mktemp("text")
    model = load_model(str(MODEL))
    options = RecordingOptions(taps=(-1,), prompts=200, answer_tokens=ANSWER, held_out=40)
    files = [Path(inspect.getfile(module)) for module in SOURCES]
    prompts = read_prompts(files, load_tokenizer(str(MODEL)), count=200, longest=64, seed=0)
    teacher = teacher_of(model, "pycode-10m")
    shards = record(model, teacher.target.digest, batches(prompts, options), directory, options, [])
    parts: dict[bool, list[Recording]] = {True: [], False: []}
    for file in filter(None, shards):
        parts[file.name.startswith(HELD_OUT)] += read_shard(file)
    return Text(model, teacher, parts[False], parts[True], directory)


@pytest.fixture(scope="module")
def trained(text: Text) -> Callable[[str], Trained]:
    """Return a function that trains the head of a recipe, once."""
    return functools.cache(lambda name: train(text, name))


def train(text: Text, name: str) -> Trained:
    torch.manual_seed(0)
    course, target = COURSES[name], text.teacher.target
    if course.in_model is not None:
        course = course.in_model(course, text.model)
    head = build_head(
        HeadConfig(
            architecture=course.architecture,
            target=target,
            taps=course.taps(target.layers),
            draft_vocab_size=target.vocab_size,
            settings=course.settings(text.teacher.config),
        )
    )
    head.attach(text.teacher.embedding, text.teacher.product)
    course.start(head, text.teacher, text.train)
    options = TrainerOptions(
        updates=UPDATES, evaluations=1, every=1e9, learning_rate=2e-3, tokens=256, warm_up=10, held_out=800
    )
    loss = Distillation(text.teacher, None)
    Trainer(head, course, loss, options, text.directory / f"{name}.safetensors", {}).run(
        text.train, {"text": text.held_out}
    )
    rates = measure(head, course, text.held_out[::2], course.steps).rates
    return Trained(course, head, [list(depth) for depth in rates])


@pytest.fixture(scope="module")
def runner(
    trained: Callable[[str], Trained], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Model]]:
    """Return a function that compiles the recipe of a head, once."""
    directory = tmp_path_factory.mktemp("bundles")
    models: dict[str, Model] = {}

    def compiled(name: str) -> Model:
        if name not in models:
            head = trained(name)
            save_head(head.head, directory / name, {"card.json": "{}"})
            prompts = directory / "prompts.jsonl"
            prompts.write_text(json.dumps({"prompt": "def wrap(text):"}) + "\n", encoding="utf-8")
            rates = {"rates": head.rates} if "rates" in METHODS[name].parameters else {}
            options = Options(
                model=str(MODEL),
                output=directory / f"{name}.specc",
                recipes=(name,),
                heads=[directory / name],
                prompts=prompts,
                golden_tokens=8,
                parameters={name: SIZES.get(name, {}) | rates},
            )
            compile_bundle(options)
            models[name] = specc.load(directory / f"{name}.specc")
        return models[name]

    yield compiled
    for model in models.values():
        model.close()


def test_random_heads_of_all_kinds_in_one_bundle_leave_the_tokens_of_plain_decoding(
    model: Path, tmp_path: Path
) -> None:
    """Greedy and sampled, on a tiny model. Few of their drafts are accepted."""
    target = load_model(str(model))
    teacher = teacher_of(target, "tiny")
    names = [name for name, course in COURSES.items() if course.in_model is not None]
    for name in names:
        course = COURSES[name]
        torch.manual_seed(1)
        head = build_head(config_of(course, teacher, teacher.target.vocab_size))
        save_head(head, tmp_path / name, {"card.json": "{}"})
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": "def wrap(text):"}) + "\n", encoding="utf-8")
    options = Options(
        model=str(model),
        output=tmp_path / "b.specc",
        recipes=names,
        heads=[tmp_path / name for name in names],
        prompts=file,
        golden_tokens=8,
    )
    compile_bundle(options)
    prompt = [i % 400 for i in range(150)]
    with specc.load(tmp_path / "b.specc") as runner:
        for name in names:
            for temperature in (0.0, 0.8):
                choice: dict[str, Any] = {"temperature": temperature, "seed": 3, "ignore_eos": True}
                plain = runner.session().generate(prompt, 40, recipe="plain", **choice)
                answer = runner.session().generate(prompt, 40, recipe=name, guard=False, **choice)
                assert answer.token_ids == plain.token_ids
                assert answer.stats.drafted > 40


def test_random_streams_in_a_pruned_tree_leave_the_tokens_of_plain_decoding(model: Path, tmp_path: Path) -> None:
    """Greedy and sampled, on a tiny model, whose engines keep so many tokens at each step."""
    target = load_model(str(model))
    teacher = teacher_of(target, "tiny")
    torch.manual_seed(1)
    name, kept_nodes = "speculative-streaming", 2
    head = build_head(config_of(COURSES[name], teacher, teacher.target.vocab_size))
    save_head(head, tmp_path / "head", {"card.json": "{}"})
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": "def wrap(text):"}) + "\n", encoding="utf-8")
    options = Options(
        model=str(model),
        output=tmp_path / "b.specc",
        recipes=[name],
        heads=[tmp_path / "head"],
        prompts=file,
        golden_tokens=8,
        parameters={name: {"num_speculative_tokens": 6, "kept_nodes": kept_nodes}},
    )
    compile_bundle(options)
    prompt = [i % 400 for i in range(150)]
    with specc.load(tmp_path / "b.specc") as runner:
        pruned = [engine for engine in runner.bundle.manifest.engines if engine.block.pruning]
        assert {t.shape for engine in pruned for t in engine.outputs if t.name == "kept"} == {(1, 1 + kept_nodes)}
        for temperature in (0.0, 0.8):
            choice: dict[str, Any] = {"temperature": temperature, "seed": 3, "ignore_eos": True}
            sizes: list[int] = []

            @rule()
            def noted(draft: Draft, verified: Verified, sizes: list[int] = sizes) -> Accepted:
                sizes.append(draft.tree.slots)
                return match(draft, verified)

            plain = runner.session().generate(prompt, 40, recipe="plain", **choice)
            answer = runner.session().generate(prompt, 40, recipe=name, acceptance=noted, guard=False, **choice)
            assert answer.token_ids == plain.token_ids
            assert set(sizes) == {1, 1 + kept_nodes}


def prompts(text: Text) -> list[list[int]]:
    """Return the prompts of the second half of the held-out answers."""
    return [recording.tokens[: recording.prompt].tolist() for recording in text.held_out[1::2]]


@pytest.mark.parametrize("name", SIZES)
def test_greedy_and_seeded_tokens_are_those_of_plain_decoding(
    name: str, text: Text, runner: Callable[[str], Model]
) -> None:
    steps = tokens = 0
    for number, prompt in enumerate(prompts(text)[:8]):
        for temperature in (0.0, 0.8):
            options: dict[str, Any] = {"temperature": temperature, "seed": number, "ignore_eos": True}
            plain = runner(name).session().generate(prompt, 40, recipe="plain", **options)
            answer = runner(name).session().generate(prompt, 40, recipe=name, guard=False, **options)
            assert answer.token_ids == plain.token_ids
            steps, tokens = steps + answer.stats.target_calls, tokens + len(answer.token_ids)
    assert tokens > 1.1 * steps  # drafts are accepted


def test_ppd_has_the_state_of_the_accepted_tokens_guesses_and_predicts_the_tokens_of_a_step(
    text: Text, trained: Callable[[str], Trained], runner: Callable[[str], Model]
) -> None:
    """The states follow one another as the slots say, and the Markov chain's tokens a step are within 10 %."""
    rates, size = trained("ppd").rates, SIZES["ppd"]
    predicted = expected(state_trees(rates, size["num_speculative_tokens"], size["guess_slots"]), rates)
    model, states = runner("ppd"), set()
    tokens = steps = 0
    for prompt in prompts(text):
        path: list[tuple[Draft, Accepted]] = []

        @rule()
        def noted(draft: Draft, verified: Verified, path: list[tuple[Draft, Accepted]] = path) -> Accepted:
            accepted = match(draft, verified)
            path.append((draft, accepted))
            return accepted

        answer = model.session().generate(prompt, ANSWER, recipe="ppd", acceptance=noted, guard=False, ignore_eos=True)
        state = 0
        for draft, accepted in path:
            assert draft.by is not None and isinstance(draft.by.block.topology, GuessTree)
            assert int(draft.tree.depth.max()) <= state
            state = len(draft.by.block.topology.guesses[accepted.slots[-1]])
            states.add(state)
        tokens, steps = tokens + len(answer.token_ids) - 1, steps + answer.stats.target_calls
    assert len(states) > 1
    assert tokens / steps == pytest.approx(predicted, rel=0.1)


def bigram_rates(text: Text, depths: int) -> list[float]:
    """Return how often a table of bigrams is right in the held-out answers, by depth.

    It drafts a chain: the token that most often followed the last one in the text to train on, and so on.
    """
    counts: dict[int, Counter[int]] = defaultdict(Counter)
    for recording in text.train:
        for token, following in itertools.pairwise(recording.tokens.tolist()):
            counts[token][following] += 1
    best = {token: each.most_common(1)[0][0] for token, each in counts.items()}
    right, tried = [0] * depths, [0] * depths
    for recording in text.held_out:
        tokens = recording.tokens.tolist()
        for place in range(recording.prompt, len(tokens)):
            guess: int | None = tokens[place]
            for depth, truth in enumerate(tokens[place + 1 : place + 1 + depths]):
                guess = best.get(guess) if guess is not None else None
                right[depth] += guess == truth
                tried[depth] += 1
    return [hits / tries for hits, tries in zip(right, tried, strict=True)]


def test_s3d_guesses_in_one_call_are_worse_with_depth_and_better_than_bigrams(
    text: Text, trained: Callable[[str], Trained], runner: Callable[[str], Model]
) -> None:
    head = trained("s3d")
    rates = [depth[0] for depth in measure(head.head, head.course, text.held_out, head.course.steps).rates]
    bigrams = bigram_rates(text, len(rates))
    print(f"right at each depth: S3D {rates}, bigrams {bigrams}")
    assert len(rates) == 4 and rates == sorted(rates, reverse=True)
    assert all(ours > theirs for ours, theirs in zip(rates, bigrams, strict=True))
    for prompt in prompts(text)[:8]:
        stats = runner("s3d").session().generate(prompt, 40, recipe="s3d", guard=False, ignore_eos=True).stats
        assert stats.draft_calls == stats.drafts > 5


def test_hidden_transfers_slots_guess_at_least_as_well_as_medusas_heads(
    text: Text, trained: Callable[[str], Trained], runner: Callable[[str], Model]
) -> None:
    """After the same updates on the same text, in the mean of the depths that both guess; and tokens are plain ones."""
    ours, medusas = trained("hidden-transfer"), trained("medusa")
    assert len(set(ours.head.taps)) == ours.course.steps
    by_name: dict[str, list[float]] = {}
    for name, each in {"Hidden Transfer": ours, "Medusa": medusas}.items():
        rates = measure(each.head, each.course, text.held_out, each.course.steps).rates
        by_name[name] = [depth[0] for depth in rates[: ours.course.steps]]
    print(f"right at each depth: {by_name}")
    for number, prompt in enumerate(prompts(text)[:8]):
        options: dict[str, Any] = {"temperature": 0.8 * (number % 2), "seed": number, "ignore_eos": True}
        plain = runner("hidden-transfer").session().generate(prompt, 40, recipe="plain", **options)
        answer = (
            runner("hidden-transfer").session().generate(prompt, 40, recipe="hidden-transfer", guard=False, **options)
        )
        assert answer.token_ids == plain.token_ids
    assert sum(by_name["Hidden Transfer"]) >= sum(by_name["Medusa"])
