"""Trained heads from their directories to tokens: a tiny model with heads that were fitted to its own text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from quick_compile import compile_quickly
from safetensors import safe_open
from shell import copied
from shell import specc as command
from toy_heads import save_fitted, taps_of
from transformers import PreTrainedModel

import specc
from specc.backends import Options as BuildOptions
from specc.compiler import Options
from specc.heads import Head, load_head
from specc.huggingface import load_model
from specc.runtime.bundle import open_bundle
from specc.runtime.call import Call
from specc.runtime.draft import Draft
from specc.runtime.drafters import Drafting, Proposal
from specc.runtime.drafters.eagle import EagleDrafting
from specc.runtime.drafters.eagle_tree import EagleTreeDrafting
from specc.runtime.drafters.medusa import MedusaDrafting
from specc.runtime.model import Model
from specc.runtime.scheduler import SchedulerPolicy
from specc.runtime.sequence import Cache
from specc.runtime.session import Session
from specc.runtime.tree import Tree
from specc.tuning.plan import TunePlan
from specc.tuning.policy import TUNING
from specc.tuning.tune import tune

pytestmark = [pytest.mark.torch, pytest.mark.model]

PROMPTS = ("def wrap(text, width=70):\n    return", "import os, sys\nimport os, sys\nimport", "Ünïcode: ")
RECIPES = ("eagle3", "eagle3-tree", "eagle3-lookup", "eagle3-cascade", "medusa")
ALL_RECIPES = (*RECIPES, "blockwise", "hydra", "hydra-plus-plus", "recurrent-drafter", "clover", "clover-2", "amphista")
LONG = [i % 400 for i in range(150)]  # longer than the engine that reads prompts


@dataclass(frozen=True)
class Compiled:
    """A bundle with heads, and what it was made from."""

    model: PreTrainedModel
    heads: dict[str, Head]
    directories: dict[str, Path]
    bundle: Path


FAST = BuildOptions("fast")  # also where specc-kernels is there


def _compile(model: Path, heads: dict[str, Path], output: Path, build: BuildOptions = FAST, **options: Any) -> Path:
    prompts = output.parent / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": PROMPTS[0]}) + "\n", encoding="utf-8")
    compile_quickly(
        Options(
            model=str(model),
            output=output,
            recipes=ALL_RECIPES,
            heads=list(heads.values()),
            prompts=prompts,
            golden_tokens=8,
            build=build,
            **options,
        )
    )
    return output


@pytest.fixture(scope="module")
def compiled(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The tiny model with its heads, whose drafts are in fp32, so that they can be computed again."""
    directory = tmp_path_factory.mktemp("heads")
    directories = save_fitted(directory, model, PROMPTS)
    target = load_model(str(model))
    heads = {name: load_head(place) for name, place in directories.items()}
    for head in heads.values():
        table: Any = target.get_input_embeddings().weight
        head.attach(table)
    bundle = _compile(model, directories, directory / "heads.specc", lanes=2, draft_dtype="fp32")
    return Compiled(target, heads, directories, bundle)


@pytest.fixture(scope="module")
def runner(compiled: Compiled) -> Iterator[Model]:
    with specc.load(compiled.bundle) as model:
        yield model


@pytest.mark.parametrize("recipe", ALL_RECIPES)
def test_greedy_and_seeded_tokens_are_those_of_plain_decoding(runner: Model, recipe: str) -> None:
    steps, tokens = 0, 0
    prompts: list[str | list[int]] = [*PROMPTS, LONG]
    for number, prompt in enumerate(prompts):
        for temperature in (0.0, 0.8):
            options: dict[str, Any] = {"temperature": temperature, "seed": number, "ignore_eos": True}
            plain = runner.session().generate(prompt, 40, recipe="plain", **options)
            answer = runner.session().generate(prompt, 40, recipe=recipe, guard=False, **options)
            assert answer.token_ids == plain.token_ids
            if not temperature:
                steps, tokens = steps + answer.stats.target_calls, tokens + len(answer.token_ids)
    assert tokens > 1.3 * steps  # drafts are accepted


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_second_turn_gives_the_tokens_of_a_new_session(runner: Model, recipe: str) -> None:
    session = runner.session()
    first = session.generate(LONG, 20, recipe="plain", ignore_eos=True).token_ids
    again = session.generate([*LONG, *first, 5, 6], 20, recipe=recipe, guard=False, ignore_eos=True)
    new = runner.session().generate([*LONG, *first, 5, 6], 20, recipe=recipe, guard=False, ignore_eos=True)
    assert again.token_ids == new.token_ids
    assert again.stats.histogram == new.stats.histogram  # the states of the first turn are there


def test_requests_in_lanes_get_the_answers_that_each_gets_alone(compiled: Compiled) -> None:
    prompts = [[*LONG, 7], [*LONG, 8, 9], [3, 4, 5] * 9, [*LONG, 7, 7], [6, 7] * 9, [*LONG, 9]]
    options: list[dict[str, Any]] = [
        {"recipe": recipe, "temperature": 0.8 * (number % 2), "seed": number, "ignore_eos": True}
        for number, recipe in enumerate((*RECIPES, "plain"))
    ]
    with specc.load(compiled.bundle, policy=SchedulerPolicy(running=2)) as model:
        alone = [
            model.session().generate(prompt, 24, guard=False, **option).token_ids
            for prompt, option in zip(prompts, options, strict=True)
        ]
        handles = [model.submit(prompt, 24, **option) for prompt, option in zip(prompts, options, strict=True)]
        assert [handle.result(120).token_ids for handle in handles] == alone


def test_chains_are_those_of_the_torch_module_on_all_of_the_text(
    compiled: Compiled, runner: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts = _drafts(runner, "eagle3", EagleDrafting, monkeypatch)
    assert len(drafts) > 5
    for text, draft in drafts:
        path: tuple[int, ...] = ()
        for token in draft.tokens[1:]:
            tokens, _ = _guesses(compiled, text, path)
            assert token == tokens[0]
            path += (token,)


def test_a_tree_holds_the_likeliest_paths_of_the_torch_module(
    compiled: Compiled, runner: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text, draft in _drafts(runner, "eagle3-tree", EagleTreeDrafting, monkeypatch)[:2]:
        values: dict[tuple[int, ...], float] = {}
        level: dict[tuple[int, ...], float] = {(): 0.0}
        for _ in range(5):
            below: dict[tuple[int, ...], float] = {}
            for path, value in level.items():
                tokens, logprobs = _guesses(compiled, text, path)
                below |= {(*path, t): value + p for t, p in zip(tokens, logprobs, strict=True)}
            values |= below
            level = dict(sorted(below.items(), key=lambda item: -item[1])[:4])
        slots = draft.tree.slots
        likeliest = sorted(values, key=lambda path: -values[path])[: slots - 1]
        paths = {tuple(draft.tokens[s] for s in _path(draft.tree, slot)) for slot in range(1, slots)}
        assert slots > 1 and paths == set(likeliest)


def _path(tree: Tree, slot: int) -> list[int]:
    """Return the slots from below the root to a slot."""
    return [] if slot == 0 else [*_path(tree, tree.parents[slot]), slot]


@torch.no_grad()
def _guesses(compiled: Compiled, text: list[int], path: tuple[int, ...]) -> tuple[list[int], list[float]]:
    """Run EAGLE-3's head on a text and drafted tokens; return the likeliest tokens next, and log-probabilities."""
    head = compiled.heads["eagle3"]
    assert head.vocabulary is not None
    tokens, state = list(text[1:]), head.fuse(taps_of(compiled.model, torch.tensor([text]), head.taps))[:, :-1]
    outputs = head(torch.tensor([tokens]), torch.arange(len(tokens))[None], state)
    for token in path:
        tokens.append(token)
        state = torch.cat([state, outputs["state"][:, -1:]], 1)
        outputs = head(torch.tensor([tokens]), torch.arange(len(tokens))[None], state)
    top = outputs["logits"][0, -1].log_softmax(-1).topk(8)
    return head.vocabulary[top.indices].tolist(), top.values.tolist()


def _drafts(
    runner: Model, recipe: str, drafting: type[Drafting[Any]], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[list[int], Draft]]:
    """Return the drafts of a few answers, each with the text that it follows."""
    drafts: list[tuple[list[int], Draft]] = []
    original = drafting.propose

    def spy(self: Drafting[Any], room: int) -> Proposal:
        text = list(self.seq.tokens)
        draft = yield from original(self, room)
        drafts.append((text, draft))
        return draft

    monkeypatch.setattr(drafting, "propose", spy)
    for prompt in PROMPTS:
        runner.session().generate(prompt, 20, recipe=recipe, guard=False, ignore_eos=True)
    return [(text, draft) for text, draft in drafts if draft.tree.slots > 1]


def test_logits_are_the_heads_and_minus_infinity_for_tokens_that_it_does_not_know(
    compiled: Compiled, runner: Model
) -> None:
    head, session = compiled.heads["eagle3"], runner.session()
    assert head.vocabulary is not None
    session.generate(LONG, 2, recipe="eagle3", guard=False, ignore_eos=True)
    states, tokens = session.cache.states["eagle3"][:9].copy(), LONG[1:10]
    cache = Cache(session.engines["eagle3-prefill"].store)
    call = Call(session.engines["eagle3-prefill"], cache, 0, tokens, Tree.chain(9), {"state": states})
    logits_NV = call.run().logits_NV
    assert logits_NV is not None
    with torch.no_grad():
        logits = head(torch.tensor([tokens]), torch.arange(9)[None], torch.from_numpy(states)[None])["logits"][0, -1]
    expected = np.full(logits_NV.shape[1], -np.inf, np.float32)
    expected[head.vocabulary.numpy()] = logits.numpy()
    np.testing.assert_allclose(logits_NV[0], expected, atol=1e-3)


def test_a_request_can_sample_its_drafts(runner: Model) -> None:
    options: dict[str, Any] = {"temperature": 0.7, "ignore_eos": True, "guard": False}
    answers = [
        runner.session().generate(PROMPTS[0], 24, recipe="eagle3", acceptance="speculative", seed=seed, **options)
        for seed in (1, 1, 2)
    ]
    assert answers[0].token_ids == answers[1].token_ids != answers[2].token_ids
    assert sum(answer.stats.accepted for answer in answers) > 0 and all(answer.stats.lossless for answer in answers)


def test_medusas_tree_is_filled_from_the_last_state(
    compiled: Compiled, runner: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = compiled.heads["medusa"]
    for text, draft in _drafts(runner, "medusa", MedusaDrafting, monkeypatch):
        with torch.no_grad():
            state = head.fuse(taps_of(compiled.model, torch.tensor([text]), head.taps))[:, -2:-1]
            ranked = head(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long), state)["logits"]
        likeliest = ranked[0, 0].topk(8).indices.tolist()
        for slot in range(1, draft.tree.slots):
            assert draft.tokens[slot] == likeliest[int(draft.tree.depth[slot]) - 1][draft.tree.rank[slot]]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_states_of_all_committed_rows_are_those_of_the_torch_module(
    compiled: Compiled, runner: Model, recipe: str
) -> None:
    session = runner.session()
    session.generate(LONG, 30, recipe=recipe, guard=False, ignore_eos=True)
    _same_states(compiled, session.cache)


def test_lanes_keep_states_too(compiled: Compiled) -> None:
    with specc.load(compiled.bundle, policy=SchedulerPolicy(running=2)) as model:
        handles = [model.submit([*LONG, n], 64, recipe="eagle3", ignore_eos=True) for n in (7, 8)]
        sequences = [handle.submission.decoder.decoding.seq for handle in handles]
        assert [len(handle.result(120).token_ids) for handle in handles] == [64, 64]
        together = model.engines.lanes_for(model.engines["prefill"])
        assert together is not None and together.calls > 0
        for seq in sequences:
            _same_states(compiled, seq.cache)


@pytest.mark.parametrize(("recipe", "drafting"), [("eagle3", EagleDrafting), ("eagle3-tree", EagleTreeDrafting)])
def test_a_request_copies_the_heads_rows_of_one_that_begins_alike(
    compiled: Compiled, recipe: str, drafting: type[Drafting[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tokens and its drafts are those of a request that is alone, and the head does not read its prompt."""
    ours, other = [*LONG, 7], [*LONG, 8]
    drafts: list[tuple[int, ...]] = []
    original = drafting.propose

    def spy(self: Drafting[Any], room: int) -> Proposal:
        draft = yield from original(self, room)
        drafts.append(draft.tokens)
        return draft

    monkeypatch.setattr(drafting, "propose", spy)
    answers, calls = [], []
    for texts in ([ours], [other, ours]):
        with specc.load(compiled.bundle) as model:
            for text in texts:
                drafts.clear()
                before = model.engines["eagle3-prefill"].calls
                answer = model.session().generate(text, 24, recipe=recipe, guard=False, ignore_eos=True)
            calls.append(model.engines["eagle3-prefill"].calls - before)
            answers.append((answer.token_ids, answer.stats.mean_acceptance_length, list(drafts)))
    assert calls == [3, 0] and answers[0] == answers[1] and any(len(tokens) > 1 for tokens in drafts)


def test_tuning_chooses_the_size_of_a_heads_drafts(compiled: Compiled, tmp_path: Path) -> None:
    copy = copied(compiled.bundle, tmp_path)
    plan = tune(copy, tokens=10, limit=1)
    tuned = {recipe.name: recipe.parameters for recipe in open_bundle(copy).manifest.recipes}
    assert TunePlan.of(open_bundle(copy).manifest) == plan
    assert plan.predicted.keys() == plan.acceptance.keys() >= set(RECIPES)
    assert len(plan.acceptance["eagle3"].by_depth) == 4 and len(plan.acceptance["eagle3-tree"].by_rank) > 1
    assert tuned["eagle3"]["assistant_confidence_threshold"] in TUNING.thresholds
    for name in ("eagle3-tree", "eagle3-lookup"):
        widths = [slots for slots, _ in tuned[name]["step_costs"]]
        assert widths == [1, 4, 6, 8, 12] and tuned[name]["step_costs"][0][1] == 1.0
    assert 1 <= tuned["eagle3-tree"]["max_depth"] <= 5 and tuned["eagle3-lookup"]["max_depth"] == 3
    assert all(max(map(len, proposal.tree)) <= 3 for name, proposal in plan.trees.items() if name == "medusa")
    assert command("test", copy).status == 0


def _same_states(compiled: Compiled, cache: Cache) -> None:
    assert len(cache) > len(LONG) and set(cache.states) == set(compiled.heads)
    with torch.no_grad():
        for name, head in compiled.heads.items():
            expected = head.fuse(taps_of(compiled.model, torch.tensor([cache.tokens]), head.taps))[0].numpy()
            np.testing.assert_allclose(cache.states[name][: len(cache)], expected, atol=1e-3)


def test_a_graft_leaves_the_bits_of_the_targets_logits(runner: Model, bundle: Path) -> None:
    with specc.load(bundle) as plain:
        for name in ("prefill", "decode", "verify-chain-4"):
            assert np.array_equal(_logits(runner.session(), name), _logits(plain.session(), name))


def _logits(session: Session, name: str) -> np.ndarray:
    """Run an engine on some tokens after a prompt; return its logits."""
    engine, cache = session.engines[name], Cache(session.cache.store)
    session.engines["prefill"].extend(cache, LONG)
    tokens = [9] if engine.slots == 1 else [9, 8, 7, 6]
    outputs = Call(engine, cache, 0, tokens, Tree.chain(len(tokens))).run()
    assert outputs.logits_NV is not None
    return outputs.logits_NV.copy()


def test_the_embeddings_are_stored_once_and_nothing_is_stored_in_vain(compiled: Compiled) -> None:
    with safe_open(compiled.bundle / "weights.safetensors", "np") as weights:
        names, metadata = set(weights.keys()), weights.metadata()
    table = metadata["eagle3.head.embedding"]  # the target's, whose first name is that of its tied head
    assert table == "model.lm_head.weight" and table in names and "eagle3.head.embedding" not in names
    files = [(compiled.bundle / engine.file).read_bytes() for engine in open_bundle(compiled.bundle).manifest.engines]
    for name in names:
        head, _, rest = name.partition(".")
        short = (rest if head in compiled.heads else name).encode()
        assert any(short in file for file in files), name


@pytest.mark.slow
def test_the_portable_lowering_drafts_the_same(compiled: Compiled, runner: Model, model: Path, tmp_path: Path) -> None:
    bundle = _compile(model, compiled.directories, tmp_path / "p.specc", build=BuildOptions(lowering="portable"))
    with specc.load(bundle) as portable:
        for recipe in RECIPES:
            ours, theirs = (
                m.session().generate(PROMPTS[0], 30, recipe=recipe, guard=False, ignore_eos=True)
                for m in (portable, runner)
            )
            assert ours.token_ids == theirs.token_ids
            assert ours.stats.histogram == theirs.stats.histogram
