"""Kangaroo on the demo model: an adapter that was trained behind an early exit drafts better than the exit alone."""

from __future__ import annotations

import inspect
import json
import tarfile
import textwrap
from pathlib import Path
from typing import Any

import pytest

import specc
from specc.compiler import Options as CompileOptions
from specc.compiler import compile_bundle
from specc.training.job import Options, train
from specc.training.record import RecordingOptions
from specc.training.trainer import TrainerOptions

pytestmark = [pytest.mark.torch, pytest.mark.model, pytest.mark.slow]
MODEL = str(Path(__file__).parents[1] / "examples" / "pycode-10m")
PROMPTS = (
    "def wrap(text, width=70):\n",
    "class Parser:\n    def __init__(self",
    "import os\n\ndef main(",
    "    def format_help(self):\n",
    "for name in names:\n    if ",
)


def test_a_trained_adapter_drafts_better_than_the_exit_alone(tmp_path: Path, record_property: Any) -> None:
    """The paper's claim. Tokens are plain decoding's, greedy and sampled."""
    source = tmp_path / "text.txt"
    source.write_text(inspect.getsource(textwrap) + inspect.getsource(tarfile), encoding="utf-8")
    card = train(
        Options(
            model=MODEL,
            recipe="kangaroo",
            output=tmp_path / "adapter",
            data=(source,),
            work=tmp_path / "work",
            recording=RecordingOptions(taps=(), prompts=160, answer_tokens=64, prompt_tokens=64, held_out=20),
            trainer=TrainerOptions(updates=120, learning_rate=2e-3),
            draft_vocab_size=4096,
        )
    )
    record_property("card", card.to_json())
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": PROMPTS[0]}) + "\n", encoding="utf-8")
    figures = {}
    for name, heads in (("exit", []), ("adapter", [tmp_path / "adapter"])):
        compile_bundle(
            CompileOptions(
                model=MODEL,
                output=tmp_path / f"{name}.specc",
                recipes=("kangaroo",),
                heads=heads,
                prompts=tmp_path / "p.jsonl",
                golden_tokens=8,
            )
        )
        with specc.load(tmp_path / f"{name}.specc") as bundle:
            lengths = []
            for prompt in PROMPTS:
                for temperature in (0.0, 0.8):
                    choice: dict[str, Any] = {"temperature": temperature, "seed": 3, "ignore_eos": True}
                    plain = bundle.session().generate(prompt, 80, recipe="plain", **choice)
                    answer = bundle.session().generate(prompt, 80, recipe="kangaroo", guard=False, **choice)
                    assert answer.token_ids == plain.token_ids
                    if not temperature:
                        lengths.append(answer.stats.mean_acceptance_length)
            conversation = bundle.session()  # A second turn drops rows and goes on from others.
            for prompt in PROMPTS[:2]:
                answer = conversation.generate(prompt, 30, recipe="kangaroo", guard=False, ignore_eos=True)
                plain = bundle.session().generate(prompt, 30, recipe="plain", ignore_eos=True)
                assert answer.token_ids == plain.token_ids
        figures[name] = sum(lengths) / len(lengths)
    record_property("figures", figures)
    print(card.acceptance, figures)
    assert figures["adapter"] > figures["exit"]
