"""Continuous depth-wise batching on a compiled model: requests at different loops share a run of the draft model."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from quick_compile import compile_quickly

import specc
from specc.compiler import Options as CompileOptions
from specc.compiler.swap import swap_draft
from specc.huggingface import load_model, load_tokenizer
from specc.huggingface.recursive import find_layers
from specc.runtime.block import LOOP
from specc.runtime.call import Call
from specc.runtime.engine import Engine
from specc.runtime.engines import Engines
from specc.runtime.lane_calls import LanesEngine
from specc.runtime.model import Model
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree
from specc.training.model_folder import save_model
from specc.training.recursive import share_layers

pytestmark = [
    pytest.mark.torch,
    pytest.mark.model,
    pytest.mark.slow,  # The compile takes a quarter of a minute.
    pytest.mark.filterwarnings("ignore:the bundle does not have the times of steps"),
]
RECIPE, LOOPS, LANES, COUNT = "recursive-depths", 3, 4, 40
PROMPTS = (
    "def wrap(text, width=70):\n",
    "class Parser:\n    def __init__(self",
    "import os\n\ndef main(",
    "# A list\n",
)


class Compiled(NamedTuple):
    """A bundle with lanes, and the recursive draft model that it drafts by."""

    bundle: Path
    draft: Any


@pytest.fixture(scope="module")
def compiled(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    directory = tmp_path_factory.mktemp("depths")
    draft = share_layers(load_model(str(model)), LOOPS, 4)
    save_model(draft, load_tokenizer(str(model)), directory / "draft", {})
    prompts = directory / "p.jsonl"
    prompts.write_text(json.dumps({"prompt": PROMPTS[0]}) + "\n", encoding="utf-8")
    options = CompileOptions(
        model=str(model),
        output=directory / "b.specc",
        recipes=(RECIPE,),
        assistant_model=str(directory / "draft"),
        prompts=prompts,
        golden_tokens=8,
        dtype="fp32",
        draft_dtype="fp32",
        lanes=LANES,
    )
    compile_quickly(options)
    return Compiled(directory / "b.specc", draft)


@pytest.fixture
def runner(compiled: Compiled) -> Iterator[Model]:
    with specc.load(compiled.bundle) as model:
        yield model


def drafter_of(model: Model) -> Any:
    """Return the drafter that all requests of the recipe share."""
    stream: Any = model.session().stream(PROMPTS[0], 1, recipe=RECIPE, guard=False)
    return stream.decoder.decoding.drafting.drafter


def lanes_of(model: Model) -> LanesEngine:
    """Return the engine that runs the draft model for several requests."""
    together = model.engines.lanes_for(drafter_of(model).engine)
    assert together is not None
    return together


@torch.no_grad()
def truth(draft: Any, loops: int, ids: list[int]) -> np.ndarray:
    """Return the logits that PyTorch computes by the first loops of the draft model, [tokens, V]."""
    first = copy.deepcopy(draft)
    layers = find_layers(first)
    assert layers is not None
    del layers[loops * len(layers) // LOOPS :]
    first.config.num_hidden_layers = len(layers)
    logits: np.ndarray = first(input_ids=torch.tensor([ids])).logits[0].numpy()
    return logits


def call_of(engine: Engine, cache: Cache, loop: int, ids: list[int], state: np.ndarray | None = None) -> Call:
    """Return the call of one loop for a whole text."""
    loop_NK = np.eye(LOOPS, dtype=np.float32)[[loop] * len(ids)]
    inputs = {LOOP: loop_NK} if state is None else {LOOP: loop_NK, "state": state}
    return Call(engine, cache, 0, ids, Tree.chain(len(ids)), inputs)


def test_an_exit_has_pytorch_s_values_alone_and_where_two_requests_share_a_run(
    compiled: Compiled, runner: Model
) -> None:
    drafter, together = drafter_of(runner), lanes_of(runner)
    fill, names = drafter.engines[1], drafter.caches
    stores = [runner.engines.store(name, lane) for lane, name in ((0, names[0]), (0, names[1]), (1, names[0]))]
    first, second = [5, 9, 30, 2], [8, 1, 4]
    caches = [Cache(store) for store in stores]
    outputs = fill.run_one(call_of(fill, caches[0], 0, first)).copy()
    assert outputs.logits_NV is not None
    np.testing.assert_allclose(outputs.logits_NV[:4], truth(compiled.draft, 1, first), atol=1e-4, rtol=1e-4)
    calls = [
        call_of(fill, caches[1], 1, first, outputs.states["assistant"][:4]),
        call_of(fill, caches[2], 0, second),
    ]
    before = together.calls
    for (loops, ids), outputs in zip(((2, first), (1, second)), together.run(calls), strict=True):
        assert outputs.logits_NV is not None
        np.testing.assert_allclose(outputs.logits_NV, truth(compiled.draft, loops, ids), atol=1e-4, rtol=1e-4)
    assert together.calls == before + 1


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_tokens_are_those_of_plain_decoding_alone_and_in_lanes(runner: Model, temperature: float) -> None:
    options: dict[str, Any] = {"temperature": temperature, "seed": 3, "ignore_eos": True}
    plain = [runner.session().generate(p, COUNT, recipe="plain", **options).token_ids for p in PROMPTS]
    drafter, together = drafter_of(runner), lanes_of(runner)
    for threshold in (0, 0.05, 2):
        drafter.threshold = threshold
        for prompt, right in zip(PROMPTS, plain, strict=True):
            assert runner.session().generate(prompt, COUNT, recipe=RECIPE, guard=False, **options).token_ids == right
        before = together.calls
        handles = [runner.submit(prompt, COUNT, recipe=RECIPE, guard=False, **options) for prompt in PROMPTS]
        assert [handle.result(60).token_ids for handle in handles] == plain
        assert together.calls > before


def drafting_runs(model: Model, threshold: float) -> tuple[int, list[int]]:
    """Decode for four requests at once. Return the runs of the draft model, and how many tokens left each loop."""
    drafter, together = drafter_of(model), model.engines.lanes_for(drafter_of(model).engine)
    drafter.threshold = threshold
    engines = [*drafter.engines, *([together] if together else [])]
    before = sum(engine.calls for engine in engines)
    handles = [model.submit(prompt, COUNT, recipe=RECIPE, guard=False, ignore_eos=True) for prompt in PROMPTS]
    draftings: list[Any] = [handle.submission.decoder.decoding.drafting for handle in handles]
    for handle in handles:
        handle.result(60)
    counts = np.sum([drafting.counts for drafting in draftings], 0)
    return sum(engine.calls for engine in engines) - before, counts.tolist()


def test_requests_at_different_loops_take_fewer_runs_than_each_by_itself(
    compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops: list[set[int]] = []
    run, lanes_for = LanesEngine.run, Engines.lanes_for

    def spy(self: LanesEngine, calls: Any) -> Any:
        loops.append({int(number) for call in calls if LOOP in call.inputs for number in call.inputs[LOOP].argmax(-1)})
        return run(self, calls)

    monkeypatch.setattr(LanesEngine, "run", spy)
    with specc.load(compiled.bundle) as model:
        first, counts = drafting_runs(model, 0)
        assert counts[1:] == [0, 0] and not any(len(each) > 1 for each in loops), "a control: all exit after a loop"
        every, counts = drafting_runs(model, 2)
        assert counts[:2] == [0, 0] and every > first
        loops.clear()
        merged, counts = drafting_runs(model, 0.05)
        assert min(counts[0], counts[2]) > 0
        assert any(len(each) > 1 for each in loops)
    monkeypatch.setattr(
        Engines, "lanes_for", lambda self, engine: None if LOOP in engine.block.inputs else lanes_for(self, engine)
    )
    with specc.load(compiled.bundle) as model:
        alone, counts_alone = drafting_runs(model, 0.05)
    assert counts_alone == counts
    assert merged < 0.6 * alone


def test_a_request_copies_the_rows_of_all_loops_of_one_that_begins_alike(compiled: Compiled) -> None:
    """Then the draft model does not read its prompt, and as many of its drafted tokens are accepted."""
    text = [5 + n % 60 for n in range(90)]
    calls, answers = [], []
    for texts in ([[*text, 7]], [[*text, 8], [*text, 7]]):
        with specc.load(compiled.bundle) as model:
            drafter = drafter_of(model)
            drafter.threshold = 2
            for prompt in texts:
                before = drafter.engines[-1].calls
                answer = model.session().generate(prompt, 24, recipe=RECIPE, guard=False, ignore_eos=True)
            calls.append(drafter.engines[-1].calls - before)
            answers.append((answer.token_ids, answer.stats.mean_acceptance_length))
    assert calls == [2 * LOOPS, 0] and answers[0] == answers[1]


def test_other_weights_of_the_draft_model_go_into_the_bundle(compiled: Compiled, model: Path, tmp_path: Path) -> None:
    other = copy.deepcopy(compiled.draft)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if name.endswith(".up"):
                parameter.mul_(2)
    save_model(other, load_tokenizer(str(model)), tmp_path / "draft", {})
    swapped = swap_draft(compiled.bundle, str(tmp_path / "draft"), tmp_path / "s.specc")
    assert swapped.recipes == (RECIPE,)
    with specc.load(tmp_path / "s.specc") as runner:
        fill, ids = drafter_of(runner).engines[1], [5, 9, 30, 2]
        outputs = fill.run_one(call_of(fill, Cache(fill.store), 0, ids))
    assert outputs.logits_NV is not None
    np.testing.assert_allclose(outputs.logits_NV[:4], truth(other, 1, ids), atol=1e-4, rtol=1e-4)
