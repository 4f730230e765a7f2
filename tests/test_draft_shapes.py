"""Decoding Speculative Decoding on the demo model: the speed of drafts of four shapes, foretold and measured."""

from __future__ import annotations

import inspect
import json
import tarfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import pytest

import specc
from specc.compiler import Options, compile_bundle
from specc.huggingface import load_model, load_tokenizer
from specc.training.acceptance import Acceptance, summary
from specc.training.cut import cut, kept_layers
from specc.training.distil import Distiller, Text, ranks, write
from specc.training.divergences import DIVERGENCES
from specc.training.draft_job import save_draft
from specc.training.gain import expected
from specc.training.prompts import Prompt, read_prompts
from specc.training.trainer import TrainerOptions

pytestmark = [pytest.mark.torch, pytest.mark.model, pytest.mark.slow]
MODEL = str(Path(__file__).parents[1] / "examples" / "pycode-10m")
SHAPES = (1, 3, 6, 11)  # layers of 12
DRAFTED, TOKENS, ROUNDS, QUERIES = 3, 64, 5, 6


def distilled(
    layers: int, model: Any, prompts: Sequence[Prompt], answers: Sequence[Text], held_out: Sequence[Text], output: Path
) -> Acceptance:
    """Cut a draft from the model, distil it for a short time, write it, and return what it reaches."""
    draft = cut(model, kept_layers(12, layers))
    options = TrainerOptions(updates=80, learning_rate=1e-3, tokens=1024)
    checkpoint = output.with_suffix(".safetensors")
    Distiller(draft, model, DIVERGENCES["forward-kl"], 0.0, options, checkpoint, {}).run(answers, prompts, TOKENS, [])
    save_draft(draft, load_tokenizer(MODEL), output, {})
    return summary(ranks(draft, model, held_out, DRAFTED))


def test_the_speed_of_drafts_of_four_shapes_is_in_the_order_that_their_acceptance_and_time_foretell(
    tmp_path: Path, record_property: Any
) -> None:
    """Steps are timed by themselves, acceptance is measured on held-out text, and real decoding must agree."""
    source = tmp_path / "text.txt"
    source.write_text(inspect.getsource(tarfile), encoding="utf-8")
    model = load_model(MODEL)
    prompts = read_prompts([source], load_tokenizer(MODEL), count=300, longest=64, seed=0)
    answers = write(model, prompts[40:], TOKENS, [], 0.0, 0)
    held_out = write(model, prompts[:40], TOKENS, [], 0.0, 0)
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "def wrap(text):"}) + "\n", encoding="utf-8")
    foretold, measured = {}, {}
    with ExitStack() as stack:
        bundles = {}
        for layers in SHAPES:
            draft = tmp_path / f"draft-{layers}"
            foretold[layers] = distilled(layers, model, prompts[40:], answers, held_out, draft)
            compile_bundle(
                Options(
                    model=MODEL,
                    output=tmp_path / f"{layers}.specc",
                    recipes=("draft-model",),
                    assistant_model=str(draft),
                    prompts=tmp_path / "p.jsonl",
                    golden_tokens=8,
                    parameters={"draft-model": {"num_speculative_tokens": DRAFTED}},
                )
            )
            bundles[layers] = stack.enter_context(specc.load(tmp_path / f"{layers}.specc"))
        seconds: dict[int, list[float]] = {layers: [] for layers in SHAPES}
        tokens = {}
        for _ in range(ROUNDS):  # In turns, so that a slow time of the machine is one for all.
            for layers, bundle in bundles.items():
                stats = [
                    bundle.session()
                    .generate(list(prompt.tokens), TOKENS, recipe="draft-model", guard=False, ignore_eos=True)
                    .stats
                    for prompt in prompts[:QUERIES]
                ]
                seconds[layers].append(sum(each.seconds for each in stats))
                tokens[layers] = sum(each.new_tokens for each in stats)
        for layers in SHAPES:
            measured[layers] = tokens[layers] / median(seconds[layers])
        speeds = {layers: _speed(bundles[layers], foretold[layers]) for layers in SHAPES}
    figures = {"foretold": speeds, "measured": measured, "chain": {n: a.chain for n, a in foretold.items()}}
    record_property("figures", figures)
    print(figures)
    assert sorted(SHAPES, key=speeds.__getitem__) == sorted(SHAPES, key=measured.__getitem__)


def _speed(bundle: Any, acceptance: Acceptance) -> float:
    """Return the tokens a second that a draft's acceptance and the times of its steps foretell."""
    session = bundle.session()
    recipe = session.bundle.recipe("draft-model")
    session.generate("def f(", 48, recipe="draft-model", guard=False, ignore_eos=True)
    draft, verify = session.engines[recipe.engines["draft"]], session.engines[recipe.verify[-1]]
    times: dict[str, list[float]] = {"draft": [], "verify": []}
    for _ in range(12):
        for name, engine in (("draft", draft), ("verify", verify)):
            calls, before = engine.calls, engine.seconds
            session.generate("def f(", 12, recipe="draft-model", guard=False, ignore_eos=True)
            times[name].append((engine.seconds - before) / (engine.calls - calls))
    return expected(acceptance, DRAFTED) / (DRAFTED * median(times["draft"]) + median(times["verify"]))
