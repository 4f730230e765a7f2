"""Judge Decoding on the demo model: a head that was trained on corrupted answers, and what stays of drafts with it."""

from __future__ import annotations

import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

import specc
from specc.compiler import Options as CompileOptions
from specc.compiler import compile_bundle
from specc.exactness.divergence import compare_texts
from specc.training.job import Options
from specc.training.judge_job import train_judge
from specc.training.record import RecordingOptions
from specc.training.trainer import TrainerOptions

pytestmark = [pytest.mark.torch, pytest.mark.model, pytest.mark.slow]
EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_judge_tells_good_tokens_from_wrong_ones_and_more_of_a_draft_stays(
    tmp_path: Path, record_property: Any
) -> None:
    source = tmp_path / "text.txt"
    source.write_text(inspect.getsource(textwrap) + inspect.getsource(inspect), encoding="utf-8")
    card = train_judge(
        Options(
            model=str(EXAMPLES / "pycode-10m"),
            recipe="judge-decoding",
            output=tmp_path / "judge",
            data=(source,),
            work=tmp_path / "work",
            recording=RecordingOptions(taps=(), prompts=160, answer_tokens=64, prompt_tokens=64, held_out=24),
            trainer=TrainerOptions(),
        )
    )
    assert card.auc > 0.8

    prompts = tmp_path / "p.jsonl"
    prompts.write_text(json.dumps({"prompt": "def wrap(text, width=70):\n"}) + "\n", encoding="utf-8")
    compile_bundle(
        CompileOptions(
            model=str(EXAMPLES / "pycode-10m"),
            output=tmp_path / "b.specc",
            recipes=("judge-decoding",),
            assistant_model=str(EXAMPLES / "pycode-1m"),
            heads=[tmp_path / "judge"],
            prompts=prompts,
            golden_tokens=8,
            parameters={"judge-decoding": {"num_speculative_tokens": 6}},
        )
    )
    figures: dict[str, list[float]] = {"match": [], "judge": [], "changed": []}
    with specc.load(tmp_path / "b.specc") as bundle:
        for prompt in ("def wrap(text, width=70):\n", "class Parser:\n    def __init__(self", "import os\n\ndef main("):
            answers = {
                rule: bundle.session().generate(prompt, 64, recipe="judge-decoding", acceptance=rule, ignore_eos=True)
                for rule in ("match", "judge")
            }
            plain = bundle.session().generate(prompt, 64, recipe="plain", ignore_eos=True)
            assert answers["match"].token_ids == plain.token_ids
            for rule, answer in answers.items():
                figures[rule].append(answer.stats.mean_acceptance_length)
            figures["changed"].append(compare_texts(answers["judge"].token_ids, plain.token_ids).changed)
    means = {name: sum(values) / len(values) for name, values in figures.items()}
    record_property("figures", means)  # Mean lengths by rule, and the share of changed tokens.
    print(means, card.auc)
    assert means["judge"] > means["match"]
