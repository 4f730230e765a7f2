"""Recursive draft models, compiled: what is stored of them, and that tokens stay the same."""

from __future__ import annotations

import inspect
import json
import tarfile
import textwrap
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from quick_compile import compile_quickly

import specc
from specc.compiler import Options as CompileOptions
from specc.huggingface import load_model, load_tokenizer
from specc.runtime.engines.mapped_weights import read_header
from specc.training.draft_job import train_draft
from specc.training.job import DraftChoice, Options
from specc.training.model_folder import save_model
from specc.training.record import RecordingOptions
from specc.training.recursive import share_layers
from specc.training.trainer import TrainerOptions

pytestmark = [pytest.mark.torch, pytest.mark.model]
MODEL = Path(__file__).parents[1] / "examples" / "pycode-10m"
RECIPE = "relaxed-recursive"
PROMPTS = ("def wrap(text, width=70):\n", "class Parser:\n    def __init__(self", "import os\n\ndef main(")


def compiled(model: Path, draft: Path, directory: Path, loops: int, exits: Sequence[int] = ()) -> Path:
    """Compile a bundle with a recursive draft model that drafts after so many loops, and by exits if there are any."""
    prompts = directory / "p.jsonl"
    prompts.write_text(json.dumps({"prompt": PROMPTS[0]}) + "\n", encoding="utf-8")
    bundle = directory / f"{loops}.specc"
    compile_quickly(
        CompileOptions(
            model=str(model),
            output=bundle,
            recipes=(RECIPE, "s2d") if exits else (RECIPE,),
            parameters={RECIPE: {"draft_loops": loops}, **({"s2d": {"exits": exits}} if exits else {})},
            assistant_model=str(draft),
            prompts=prompts,
            golden_tokens=8,
            dtype="fp32",
            draft_dtype="fp32",
        )
    )
    return bundle


def check_tokens(bundle: Path, recipe: str = RECIPE) -> float:
    """Check that all tokens are plain decoding's, greedy and sampled. Return the mean of tokens a step."""
    lengths = []
    with specc.load(bundle) as model:
        for prompt in PROMPTS:
            for temperature in (0.0, 0.8):
                choice: dict[str, Any] = {"temperature": temperature, "seed": 3, "ignore_eos": True}
                plain = model.session().generate(prompt, 60, recipe="plain", **choice)
                answer = model.session().generate(prompt, 60, recipe=recipe, guard=False, **choice)
                assert answer.token_ids == plain.token_ids
                lengths.append(answer.stats.mean_acceptance_length)
    return sum(lengths) / len(lengths)


def bytes_of_matrices(bundle: Path) -> tuple[int, int]:
    """Return the bytes of the matrices in the draft model's layers: those that layers share, and their own products."""
    shared = own = 0
    header, _ = read_header(bundle / "weights.safetensors")
    for name, entry in header.items():
        if name.startswith("assistant.") and ".layers." in name and len(entry["shape"]) > 1:
            size = entry["data_offsets"][1] - entry["data_offsets"][0]
            if name.endswith((".up", ".down", ".up_panels", ".down_panels")):
                own += size
            else:
                shared += size
    return shared, own


def bytes_of_layers(model: Path) -> int:
    """Return the bytes of all matrices in a model's layers, in fp32."""
    layers = load_model(str(model)).get_submodule("model.layers")
    return sum(4 * prod(parameter.shape) for parameter in layers.parameters() if parameter.ndim > 1)


@pytest.mark.slow  # It compiles twice.
def test_a_recursive_draft_model_is_stored_once_and_drafts_after_any_loop(model: Path, tmp_path: Path) -> None:
    """The tiny model in 3 loops: its shared matrices have a third of its bytes, however many loops an engine runs."""
    draft = tmp_path / "draft"
    save_model(share_layers(load_model(str(model)), 3, 4), load_tokenizer(str(model)), draft, {})
    sizes = {}
    for loops in (1, 3):
        bundle = compiled(model, draft, tmp_path, loops, [1, 2, 3] if loops == 3 else ())
        sizes[loops] = bytes_of_matrices(bundle)
        check_tokens(bundle)
    check_tokens(bundle, "s2d")
    assert sizes[1][0] == sizes[3][0] == bytes_of_layers(model) / 3
    assert 0 < sizes[1][1] < sizes[3][1]


@pytest.mark.slow
@torch.no_grad()
def test_a_relaxed_recursive_draft_drafts_after_its_first_loop(tmp_path: Path, record_property: Any) -> None:
    """On the demo model, in 3 loops: each loop's drafts are better after the training, and tokens are plain ones."""
    source = tmp_path / "text.txt"
    source.write_text(inspect.getsource(textwrap) + inspect.getsource(tarfile), encoding="utf-8")
    with torch.enable_grad():
        card = train_draft(
            Options(
                model=str(MODEL),
                recipe=RECIPE,
                output=tmp_path / "draft",
                data=(source,),
                work=tmp_path / "work",
                recording=RecordingOptions(taps=(), prompts=140, answer_tokens=40, prompt_tokens=32, held_out=20),
                trainer=TrainerOptions(updates=60, learning_rate=2e-3, tokens=700, warm_up=10),
                draft=DraftChoice(loops=3, own_text=0.0),
            )
        )
    bundle = compiled(MODEL, tmp_path / "draft", tmp_path, 1, [4, 8, 12])
    shared, own = bytes_of_matrices(bundle)
    whole = bytes_of_layers(MODEL)
    share = (shared + own) / whole
    figures = {
        "exits": card.to_json()["exits"],
        "bytes": share,
        "tokens a step after loop 1": check_tokens(bundle),
        "by the first loop that is sure": check_tokens(bundle, "s2d"),
    }
    record_property("figures", figures)
    print(figures)
    assert shared == whole / 3 and share < 0.5
    assert all(rate.alpha > rate.alpha_before for rate in card.exits)
    assert figures["tokens a step after loop 1"] > 1
