"""Online Speculative Decoding on the demo model: a draft model learns from what is served, and is swapped in."""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from quick_compile import compile_quickly

import specc
from specc.compiler import Options
from specc.compiler.swap import swap_draft
from specc.huggingface import load_model, load_tokenizer
from specc.training.distil import Distiller, Text
from specc.training.divergences import DIVERGENCES
from specc.training.model_folder import save_model
from specc.training.trainer import TrainerOptions

pytestmark = [pytest.mark.torch, pytest.mark.model, pytest.mark.slow]
EXAMPLES = Path(__file__).parents[1] / "examples"
MODEL, DRAFT = str(EXAMPLES / "pycode-10m"), str(EXAMPLES / "pycode-1m")
LENGTH, TOKENS = 48, 48  # tokens of a prompt, and of an answer
UPDATES = 200
STDLIB = Path(sysconfig.get_path("stdlib"))
TABLES, CHARACTERS = ("cp037", "cp1006", "cp1026", "cp1140", "koi8_r", "mac_roman"), 60_000
RISE = 0.05  # of the share of drafted tokens that are accepted


def pieces(text: str, count: int) -> list[list[int]]:
    """Return the beginnings of a text's parts, as tokens."""
    tokens = load_tokenizer(MODEL)(text, add_special_tokens=False)["input_ids"]
    step = len(tokens) // count
    return [tokens[start : start + LENGTH] for start in range(0, count * step, step)]


def serve(bundle: Path, prompts: Sequence[Sequence[int]]) -> tuple[list[Text], float]:
    """Answer prompts. Return the texts, and the share of drafted tokens that were accepted.

    All tokens are plain decoding's.
    """
    texts, drafted, accepted = [], 0, 0
    with specc.load(bundle) as model:
        for prompt in prompts:
            answer = model.session().generate(list(prompt), TOKENS, recipe="draft-model", guard=False, ignore_eos=True)
            plain = model.session().generate(list(prompt), TOKENS, recipe="plain", ignore_eos=True)
            assert answer.token_ids == plain.token_ids
            texts.append(Text(tokens=torch.tensor([*prompt, *answer.token_ids]), prompt=len(prompt)))
            drafted, accepted = drafted + answer.stats.drafted, accepted + answer.stats.accepted
    return texts, accepted / drafted


def learn(draft: str, texts: Sequence[Text], directory: Path) -> str:
    """Let a draft model learn from served texts, and return the directory of the new one."""
    model, student = load_model(MODEL), load_model(draft)
    options = TrainerOptions(updates=UPDATES, learning_rate=1e-3, tokens=300)
    file = directory.with_suffix(".safetensors")
    Distiller(student, model, DIVERGENCES["forward-kl"], 0.0, options, file, {}, online=True).run(texts, [], TOKENS, [])
    save_model(student, load_tokenizer(MODEL), directory, {})
    return str(directory)


def test_online_training_raises_the_acceptance_of_a_stream_that_is_new_to_the_draft_model(
    tmp_path: Path, record_property: Any
) -> None:
    """The paper's claim, on a stream of prose that gives way to tables. The engines are compiled once.

    The draft model was trained on code of the standard library, but neither on prose nor on these tables. On such code
    it has little left to learn: there, updates raise nothing.
    """
    prose = (STDLIB / "pydoc_data" / "topics.py").read_text(encoding="utf-8")
    tables = "".join((STDLIB / "encodings" / f"{name}.py").read_text(encoding="utf-8") for name in TABLES)
    streams = {"prose": pieces(prose[: 2 * CHARACTERS], 96), "tables": pieces(tables[:CHARACTERS], 48)}
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "def wrap(text):"}) + "\n", encoding="utf-8")
    bundle = tmp_path / "b.specc"
    compile_quickly(
        Options(
            model=MODEL,
            output=bundle,
            recipes=("draft-model",),
            assistant_model=DRAFT,
            prompts=tmp_path / "p.jsonl",
            golden_tokens=8,
        )
    )
    engines = {file.name: file.read_bytes() for file in bundle.glob("*.onnx")}
    draft, figures = DRAFT, {}
    for name, prompts in streams.items():
        served, queries = prompts[::2], prompts[1::2]  # The queries stay the same, and are not learned from.
        _, before = serve(bundle, queries)
        texts, _ = serve(bundle, served)
        draft = learn(draft, texts, tmp_path / f"draft-{name}")
        swap_draft(bundle, draft, bundle, overwrite=True)
        _, after = serve(bundle, queries)
        figures[name] = before, after
    assert engines == {file.name: file.read_bytes() for file in bundle.glob("*.onnx")}
    record_property("figures", figures)
    print(figures)
    for before, after in figures.values():
        assert after > before + RISE
    assert figures["tables"][0] < figures["prose"][1]  # The shift costs acceptance, which then recovers.
