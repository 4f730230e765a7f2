"""The card of a head."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from specc.machine import Machine
from specc.training.acceptance import Acceptance
from specc.training.card import Card
from specc.training.gain import Gain

pytestmark = pytest.mark.torch
MACHINE = Machine(cpu="Toy 9", cores=2, threads=1, memory_bytes=1, system="Linux", python="3.11", onnxruntime="1.32")
ACCEPTANCE = Acceptance(tokens=600, by_depth=(0.4, 0.5), by_rank=(0.4, 0.1), chain=1.66, tree=1.92, unknown=0.08)
CARD = Card(
    recipe="eagle3", architecture="eagle3", model="./toy", command="specc train ./toy", data=("a.jsonl",),
    recorded_tokens=12345, held_out_tokens=678, coverage=0.912, parameters=2_500_000, bits=8, minutes=10.2, updates=99,
    trained_tokens=50000, epochs=4.05, losses=(2.5, 3.25), progress={"0": 1.3, "99": 1.6},
    progress_by_source={"given": {"0": 1.3, "99": 1.6}}, acceptance=ACCEPTANCE, by_source={"given": ACCEPTANCE},
    gain=None, machine=MACHINE, seed=0, torch="2.13",
)  # fmt: skip


def test_the_page_says_data_time_machine_losses_and_acceptance() -> None:
    texts = CARD.texts("eagle3-toy")
    page = texts["README.md"]
    for words in (
        "# eagle3-toy\n", "12,345 tokens", "Prompts: a.jsonl", "99 updates, 50,000 tokens (4.0 epochs)", "10 minutes",
        "1 thread of Toy 9", "2.50, 3.25 nats", "91.2% of the text", "specc train ./toy",
        "| 1 | 40.0% |\n| 2 | 50.0% |",
        "1.66 tokens a step", "12 slots gives 1.92", "8.0% of the tokens", "Predicted gain: unknown",
        "stored in 8 bits",
    ):  # fmt: skip
        assert words in page
    assert json.loads(texts["card.json"])["acceptance"]["by_depth"] == [0.4, 0.5]


def test_a_time_under_ten_minutes_has_a_decimal() -> None:
    assert "Time: 0.2 minutes" in replace(CARD, minutes=0.2).readme("eagle3-toy")
    assert "Time: 10 minutes" in CARD.readme("eagle3-toy")


def test_a_gain_below_the_least_is_called_not_useful() -> None:
    good = Gain(speedup=1.31, drafted=3, step=0.02, useful=True)
    page = replace(CARD, gain=good).texts("h")["README.md"]
    assert "1.31 x plain decoding with 3 drafted tokens a step." in page and "not useful" not in page
    poor = replace(good, speedup=1.01, useful=False)
    assert "the head is not useful on this machine" in replace(CARD, gain=poor).texts("h")["README.md"]


def test_after_a_head_that_promises_too_little_the_next_step_is_more_training() -> None:
    good, few = Gain(speedup=1.31, drafted=3, step=0.02, useful=True), replace(ACCEPTANCE, chain=1.02, tree=1.04)
    for useful in (CARD, replace(CARD, gain=good), replace(CARD, acceptance=replace(few, tree=1.06))):
        assert useful.next_step("h") == useful.next_command("h") == "specc compile ./toy --head h -o model.specc"
    poor = replace(good, speedup=1.01, useful=False)
    for useless in (replace(CARD, gain=poor), replace(CARD, acceptance=few)):
        step = "this head promises less than 1.05 x; train longer (--minutes), or on more text (--prompts, --data)"
        assert useless.next_step("h") == step and "specc compile" in useless.next_command("h")


def test_without_files_the_prompts_are_those_that_ship() -> None:
    assert "Prompts: those that ship with specc (Apache-2.0)" in replace(CARD, data=()).texts("h")["README.md"]


def test_several_sources_of_prompts_have_a_line_each() -> None:
    other = replace(ACCEPTANCE, chain=1.4, tree=1.75, tokens=1500)
    page = replace(CARD, by_source={"given": ACCEPTANCE, "self": other}).texts("h")["README.md"]
    assert (
        "- Prompts `given`, 600 tokens: chain 1.66, tree 1.92.\n- Prompts `self`, 1,500 tokens: chain 1.40, tree 1.75."
        in page
    )
    assert "Prompts `given`" not in CARD.texts("h")["README.md"]
