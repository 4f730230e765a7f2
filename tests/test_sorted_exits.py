"""S2D on the demo model: a draft model that learns at each of its exits, for two targets."""

from __future__ import annotations

import inspect
import json
import tarfile
import textwrap
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest

import specc
from specc.compiler import Options, compile_bundle
from specc.huggingface import load_model, load_tokenizer
from specc.recipes.draft_model import default_exits
from specc.runtime.drafters.nested_exits import NestedExits
from specc.training.cut import cut, kept_layers
from specc.training.distil import Distiller, exit_alphas, write
from specc.training.divergences import forward_kl
from specc.training.model_folder import save_model
from specc.training.prompts import read_prompts
from specc.training.trainer import TrainerOptions

pytestmark = [pytest.mark.torch, pytest.mark.model, pytest.mark.slow]
EXAMPLES = Path(__file__).parents[1] / "examples"
MODEL, OTHER = str(EXAMPLES / "pycode-10m"), str(EXAMPLES / "pycode-1m")  # two targets with one tokenizer
LAYERS, TOKENS, HELD_OUT = 6, 32, 30
EXITS = default_exits(LAYERS)
LEAST_T = 2.7  # A paired test of 30 texts has p < 0.01 on one side from t = 2.46 on.
PROMPTS = ("def wrap(text, width=70):\n", "class Parser:\n    def __init__(self", "import os\n\ndef main(")


def t_value(gains: np.ndarray) -> float:
    """Return how many standard errors the mean of paired differences is above zero."""
    return float(mean(gains) / (stdev(gains) / len(gains) ** 0.5))


def test_a_loss_at_each_exit_makes_each_draft_better_and_the_mean_exit_of_s2d_is_not_the_deepest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    """Control: the same updates by the loss of the last exit alone leave the first one worse."""
    whole, tokenizer = load_model(MODEL), load_tokenizer(MODEL)
    source = tmp_path / "text.txt"
    source.write_text(inspect.getsource(textwrap) + inspect.getsource(tarfile), encoding="utf-8")
    prompts = read_prompts([source], tokenizer, count=126, longest=32, seed=0)
    held_out = write(whole, prompts[:HELD_OUT], TOKENS, [], temperature=1.0, seed=1)
    answers = write(whole, prompts[HELD_OUT:], TOKENS, [], temperature=1.0, seed=2)
    options = TrainerOptions(updates=40, learning_rate=2e-3, tokens=512, warm_up=8)
    rates: dict[str, np.ndarray] = {}
    for name, exits in (("sorted", EXITS), ("last alone", EXITS[-1:])):
        draft = cut(whole, kept_layers(12, LAYERS))
        if "before" not in rates:
            rates["before"] = exit_alphas(draft, whole, held_out, EXITS)
        file = tmp_path / f"{name}.safetensors"
        Distiller(draft, whole, forward_kl, 0.0, options, file, {}, exits=exits).run(answers, [], TOKENS, [])
        rates[name] = exit_alphas(draft, whole, held_out, EXITS)
        if name == "sorted":
            save_model(draft, tokenizer, tmp_path / "draft", {})
    means = {name: [round(float(rate), 3) for rate in each.mean(1)] for name, each in rates.items()}
    record_property("alphas", means)
    print(means)
    for before, after in zip(rates["before"], rates["sorted"], strict=True):
        assert t_value(after - before) > LEAST_T
    assert means["sorted"] == sorted(means["sorted"])  # Deeper exits are accepted more often.
    assert t_value(rates["sorted"][0] - rates["last alone"][0]) > LEAST_T

    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": PROMPTS[0]}) + "\n", encoding="utf-8")
    draftings: list[Any] = []
    begin = NestedExits.open

    def keep(drafter: NestedExits, seq: Any) -> Any:
        draftings.append(begin(drafter, seq))
        return draftings[-1]

    monkeypatch.setattr(NestedExits, "open", keep)
    depths = {}
    for target in (MODEL, OTHER):
        bundle = tmp_path / f"{Path(target).name}.specc"
        compile_bundle(
            Options(
                model=target,
                output=bundle,
                recipes=("s2d",),
                assistant_model=str(tmp_path / "draft"),
                prompts=tmp_path / "p.jsonl",
                golden_tokens=8,
            )
        )
        draftings.clear()
        with specc.load(bundle) as model:
            for prompt in PROMPTS:
                for temperature in (0.0, 0.8):
                    choice: dict[str, Any] = {"temperature": temperature, "seed": 3, "ignore_eos": True}
                    plain = model.session().generate(prompt, 60, recipe="plain", **choice)
                    answer = model.session().generate(prompt, 60, recipe="s2d", guard=False, **choice)
                    assert answer.token_ids == plain.token_ids
        counts = np.sum([drafting.counts for drafting in draftings], axis=0)
        depths[Path(target).name] = float(np.dot(counts, EXITS) / counts.sum())
    record_property("mean exit", depths)
    print(depths)
    assert all(EXITS[0] < depth < EXITS[-1] for depth in depths.values())
