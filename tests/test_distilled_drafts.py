"""Draft models that are distilled on the tiny model's text: what their papers claim, and that tokens stay the same."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

import specc
from specc.compiler import Options, compile_bundle
from specc.huggingface import load_model, load_tokenizer
from specc.training.cut import cut
from specc.training.distil import Distiller, Text, alphas, write
from specc.training.divergences import DIVERGENCES
from specc.training.model_folder import save_model
from specc.training.prompts import Prompt, read_prompts
from specc.training.trainer import TrainerOptions

pytestmark = [pytest.mark.torch, pytest.mark.model, pytest.mark.slow]
LEAST_T = 2.7  # A paired test of 40 texts has p < 0.01 on one side from t = 2.43 on.


@pytest.fixture(scope="module")
def whole(model: Path) -> Any:
    return load_model(str(model))


@pytest.fixture(scope="module")
def prompts(model: Path) -> list[Prompt]:
    return read_prompts([], load_tokenizer(str(model)), count=1040, longest=64, seed=0)


@pytest.fixture(scope="module")
def held_out(whole: Any, prompts: list[Prompt]) -> list[Text]:
    return write(whole, prompts[:40], 32, [], temperature=1.0, seed=1)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_distillation_makes_drafts_be_accepted_more_often(
    divergence: str, whole: Any, model: Path, prompts: list[Prompt], held_out: list[Text], tmp_path: Path
) -> None:
    """DistillSpec: a paired test over held-out texts, and speculative decoding with the draft gives plain tokens."""
    draft = cut(whole, [0, 2])
    before = alphas(draft, whole, held_out)
    answers = write(whole, prompts[40:], 32, [], temperature=1.0, seed=2)
    assert len(answers) >= 1000
    options = TrainerOptions(updates=120, learning_rate=2e-3, tokens=1024)
    distiller = Distiller(draft, whole, DIVERGENCES[divergence], 0.5, options, tmp_path / "c.safetensors", {})
    distiller.run(answers, prompts[40:], 32, [])
    after = alphas(draft, whole, held_out)
    gains = [b - a for a, b in zip(before, after, strict=True)]
    assert mean(gains) / (stdev(gains) / len(gains) ** 0.5) > LEAST_T

    save_model(draft, load_tokenizer(str(model)), tmp_path / "draft", {})
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "def wrap(text):"}) + "\n", encoding="utf-8")
    compile_bundle(
        Options(
            model=str(model),
            output=tmp_path / "b.specc",
            recipes=("draft-model",),
            assistant_model=str(tmp_path / "draft"),
            prompts=tmp_path / "p.jsonl",
            golden_tokens=8,
        )
    )
    text = list(range(40))
    with specc.load(tmp_path / "b.specc") as bundle:
        for temperature in (0.0, 0.8):
            choice: dict[str, Any] = {"temperature": temperature, "seed": 3, "ignore_eos": True}
            plain = bundle.session().generate(text, 24, recipe="plain", **choice)
            answer = bundle.session().generate(text, 24, recipe="draft-model", guard=False, **choice)
            assert answer.token_ids == plain.token_ids
