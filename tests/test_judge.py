"""Judge Decoding on the demo model: a head that was trained on corrupted answers, and what stays of drafts with it."""

from __future__ import annotations

import inspect
import json
import random
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from quick_compile import compile_quickly

import specc
from specc.compiler import Options as CompileOptions
from specc.compiler import compile_bundle
from specc.exactness.divergence import compare_texts
from specc.huggingface import load_model, load_tokenizer
from specc.training.job import Options
from specc.training.judge_job import train_judge
from specc.training.record import RecordingOptions
from specc.training.trainer import TrainerOptions

pytestmark = [pytest.mark.torch, pytest.mark.model, pytest.mark.slow]
EXAMPLES = Path(__file__).parents[1] / "examples"
MODEL, DRAFT = str(EXAMPLES / "pycode-10m"), str(EXAMPLES / "pycode-1m")
NAMES = [
    "name", "value", "path", "mode", "data", "size", "key", "item", "text", "line", "start",
    "end", "file", "flags", "level", "index", "count", "parent", "buffer", "offset",
]  # fmt: skip


def test_a_judge_tells_good_tokens_from_wrong_ones_and_more_of_a_draft_stays(
    tmp_path: Path, record_property: Any
) -> None:
    source = tmp_path / "text.txt"
    source.write_text(inspect.getsource(textwrap) + inspect.getsource(inspect), encoding="utf-8")
    card = train_judge(
        Options(
            model=MODEL,
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
            model=MODEL,
            output=tmp_path / "b.specc",
            recipes=("judge-decoding",),
            assistant_model=DRAFT,
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


class Question(NamedTuple):
    """A constructor to be continued, and the line that is right: the argument of the attribute's name."""

    prompt: str
    answer: str


def ask(count: int, seed: int) -> list[Question]:
    rng = random.Random(seed)
    questions = []
    for _ in range(count):
        first, second = rng.sample(NAMES, 2)
        head = f"class Reader:\n    def __init__(self, {first}, {second}):\n        self.{first} = {first}\n"
        questions.append(Question(f"{head}        self.{second} =", f" {second}"))
    return questions


@torch.no_grad()
def first_lines(model: str, questions: Sequence[Question]) -> list[str]:
    """Return the first line of a model's greedy answer to each question."""
    network: Any = load_model(model)
    tokenizer = load_tokenizer(model)
    lines = []
    for question in questions:
        ids = tokenizer(question.prompt, return_tensors="pt")["input_ids"]
        answer = network.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
        lines.append(tokenizer.decode(answer).partition("\n")[0])
    return lines


def mark(questions: Sequence[Question], lines: Sequence[str]) -> list[str]:
    """Return marked answers as lines of JSON: those given, each with the place of its first mistake, and right ones."""
    marked: list[dict[str, Any]] = []
    for question, line in zip(questions, lines, strict=True):
        marked.append({"prompt": question.prompt, "answer": question.answer})
        wrong = next((i for i in range(len(line)) if not question.answer.startswith(line[: i + 1])), None)
        if wrong is not None:
            marked.append({"prompt": question.prompt, "answer": line, "wrong_from": wrong})
    return list(map(json.dumps, marked))


def test_how_often_answers_are_right_is_told_beside_how_many_tokens_stay(tmp_path: Path, record_property: Any) -> None:
    """As in the paper, answers of language models are marked. The task is a toy, so that its answers can be checked."""
    training, questions = ask(120, seed=0), ask(40, seed=1)
    data = tmp_path / "marked.jsonl"
    data.write_text(
        "\n".join(line for model in (MODEL, DRAFT) for line in mark(training, first_lines(model, training))), "utf-8"
    )
    card = train_judge(
        Options(
            model=MODEL,
            recipe="judge-decoding",
            output=tmp_path / "judge",
            data=(data,),
            work=tmp_path / "work",
            recording=RecordingOptions(taps=(), held_out=60),
            trainer=TrainerOptions(),
        )
    )
    compile_quickly(
        CompileOptions(
            model=MODEL,
            output=tmp_path / "b.specc",
            recipes=("judge-decoding",),
            assistant_model=DRAFT,
            heads=[tmp_path / "judge"],
            golden_tokens=8,
            parameters={"judge-decoding": {"num_speculative_tokens": 4}},
        )
    )
    right = {
        "draft alone": sum(map(str.__eq__, first_lines(DRAFT, questions), (one.answer for one in questions)))
        / len(questions)
    }
    lengths = {}
    with specc.load(tmp_path / "b.specc") as bundle:
        for rule in ("match", "judge"):
            answers = [
                bundle.session().generate(
                    one.prompt, 16, recipe="judge-decoding", acceptance=rule, guard=False, ignore_eos=True
                )
                for one in questions
            ]
            lines = [answer.text.partition("\n")[0] for answer in answers]
            right[rule] = sum(line == one.answer for line, one in zip(lines, questions, strict=True)) / len(questions)
            lengths[rule] = sum(answer.stats.mean_acceptance_length for answer in answers) / len(answers)
    record_property("figures", {"auc": card.auc, "right": right, "lengths": lengths})
    print(card.auc, card.good, card.wrong, right, lengths)
    assert card.auc > 0.8
    assert lengths["judge"] > lengths["match"]
    assert right["judge"] > right["draft alone"]  # Not all that the draft says stays.
