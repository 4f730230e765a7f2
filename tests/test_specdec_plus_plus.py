"""SpecDec++ on the demo model and its draft model: a head that foresees acceptance, and drafts that end by it."""

from __future__ import annotations

import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import specc
from specc.compiler import Options as CompileOptions
from specc.compiler import compile_bundle
from specc.training.job import DraftChoice, Options
from specc.training.record import RecordingOptions
from specc.training.specdec_plus_plus_job import train_acceptance
from specc.training.trainer import TrainerOptions

pytestmark = [pytest.mark.torch, pytest.mark.model, pytest.mark.slow]
EXAMPLES = Path(__file__).parents[1] / "examples"
MOST = 10  # tokens of a draft
PROMPTS = (
    "def wrap(text, width=70):\n",
    "class Parser:\n    def __init__(self",
    "import os\n\ndef main(",
    "    def format_help(self):\n",
    "def isfunction(object):\n",
    "for name in names:\n    if ",
)


def test_a_head_foresees_acceptance_and_drafts_that_end_by_it_lose_fewer_tokens_than_those_of_a_fixed_length(
    tmp_path: Path, record_property: Any
) -> None:
    """The paper's claims: the estimates are calibrated, tokens are plain decoding's, and fewer drafts are discarded."""
    source = tmp_path / "text.txt"
    source.write_text(inspect.getsource(textwrap) + inspect.getsource(inspect), encoding="utf-8")
    model, draft = str(EXAMPLES / "pycode-10m"), str(EXAMPLES / "pycode-1m")
    card = train_acceptance(
        Options(
            model=model,
            recipe="specdec-plus-plus",
            output=tmp_path / "head",
            data=(source,),
            work=tmp_path / "work",
            recording=RecordingOptions(taps=(), prompts=160, answer_tokens=64, prompt_tokens=64, held_out=30),
            trainer=TrainerOptions(updates=400),
            draft=DraftChoice(source=draft),
        )
    )
    record_property("card", card.to_json())
    assert card.calibration_error < 0.1

    lengths = [tmp_path / f"fixed-{count}.toml" for count in range(1, MOST + 1)]
    for count, file in enumerate(lengths, 1):
        file.write_text(f'base = "draft-model"\n[parameters]\nnum_speculative_tokens = {count}\n', encoding="utf-8")
    prompts = tmp_path / "p.jsonl"
    prompts.write_text(json.dumps({"prompt": PROMPTS[0]}) + "\n", encoding="utf-8")
    compile_bundle(
        CompileOptions(
            model=model,
            output=tmp_path / "b.specc",
            recipes=("specdec-plus-plus", *map(str, lengths)),
            assistant_model=draft,
            heads=[tmp_path / "head"],
            prompts=prompts,
            golden_tokens=8,
            parameters={"specdec-plus-plus": {"num_speculative_tokens": MOST, "rejection_threshold": 0.5}},
        )
    )
    figures: dict[str, tuple[float, float]] = {}  # accepted and discarded tokens of a draft
    with specc.load(tmp_path / "b.specc") as bundle:
        plain = [bundle.session().generate(p, 64, recipe="plain", ignore_eos=True).token_ids for p in PROMPTS]
        for recipe in ("specdec-plus-plus", *(file.stem for file in lengths)):
            drafts = drafted = accepted = 0
            for prompt, tokens in zip(PROMPTS, plain, strict=True):
                answer = bundle.session().generate(prompt, 64, recipe=recipe, guard=False, ignore_eos=True)
                assert answer.token_ids == tokens
                stats = answer.stats
                drafts, drafted, accepted = drafts + stats.drafts, drafted + stats.drafted, accepted + stats.accepted
            figures[recipe] = accepted / drafts, (drafted - accepted) / drafts
        for seed in range(3):
            choice: dict[str, Any] = {"temperature": 0.8, "seed": seed, "ignore_eos": True}
            sampled = [
                bundle.session().generate(PROMPTS[0], 48, recipe=recipe, **choice).token_ids
                for recipe in ("plain", "specdec-plus-plus")
            ]
            assert sampled[0] == sampled[1]
    record_property("figures", figures)
    print(card, figures)
    accepted_by_head, lost = figures.pop("specdec-plus-plus")
    fixed = sorted(figures.values())
    assert fixed[0][0] < accepted_by_head < fixed[-1][0]
    assert lost < np.interp(accepted_by_head, *np.transpose(fixed))  # What a length between two would lose.
