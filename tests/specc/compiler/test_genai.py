"""A bundle in the form of onnxruntime-genai: genai decodes the golden outputs, plainly and with a draft model."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from shell import copied, edit_golden, edit_manifest, refused
from shell import specc as cli

from specc.compiler import genai
from specc.compiler.genai import export_genai
from specc.exactness import genai_replay
from specc.exactness.golden import read_cases

pytestmark = [pytest.mark.torch, pytest.mark.process]
FROZEN = Path(__file__).parents[2] / "bundles" / "schema-3"
CASES = read_cases(FROZEN / "golden.jsonl")
needs_genai = pytest.mark.skipif(find_spec("onnxruntime_genai") is None, reason="onnxruntime-genai is not installed")


def config(directory: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((directory / "genai_config.json").read_text())
    return settings


def words(text: str) -> str:
    """Join lines, which break where the terminal ends."""
    return " ".join(text.split())


@pytest.fixture
def unreplayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genai, "find_spec", lambda name: None)


@needs_genai
def test_genai_gives_the_golden_outputs_plainly_and_with_each_draft(tmp_path: Path) -> None:
    for recipe, engine in (("", "draft-layer-skip"), ("draft-model", "assistant-draft")):
        exported = export_genai(FROZEN, tmp_path / "genai", overwrite=True, draft=recipe)
        assert (exported.draft, exported.cases) == (engine, len(CASES))
    # The export has compared them, too. This is without its own comparison, and with another length of drafts.
    module, golden = genai_replay.__name__, FROZEN / "golden.jsonl"
    command = [sys.executable, "-m", module, str(tmp_path / "genai"), str(golden), "0", "2"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [json.loads(line) for line in lines] == 2 * [case.token_ids for case in CASES]


@needs_genai
def test_golden_outputs_that_change_leave_nothing(tmp_path: Path) -> None:
    def change(cases: list[dict[str, Any]]) -> None:
        cases[1]["token_ids"][5] ^= 1
        cases[1]["gaps"][5] = 9.0

    bundle = edit_golden(copied(FROZEN, tmp_path), change)
    line = refused("export", "--to", "onnxruntime-genai", bundle, "-o", tmp_path / "genai")
    assert "where golden output 1 has token" in line and "at 5, so nothing is written" in line
    assert not (tmp_path / "genai").exists()


@pytest.mark.usefixtures("unreplayed")
def test_the_configuration_says_what_the_manifest_says(tmp_path: Path) -> None:
    def sample(manifest: dict[str, Any]) -> None:
        manifest["model"]["generation_config"] = {"do_sample": True, "temperature": 0.7, "bad_words_ids": [[3]]}

    bundle = edit_manifest(copied(FROZEN, tmp_path), sample)
    result = cli("export", "--to", "onnxruntime-genai", bundle, "-o", tmp_path / "genai", "--json").json
    assert result == {"directory": str(tmp_path / "genai"), "draft": "draft-layer-skip", "replayed": 0}
    settings = config(tmp_path / "genai")
    model, search = settings["model"], settings["search"]
    assert (model["context_length"], model["vocab_size"], model["eos_token_id"]) == (256, 512, [0])
    assert (model["decoder"]["num_hidden_layers"], model["draft"]["num_hidden_layers"]) == (3, 2)
    assert (model["decoder"]["num_attention_heads"], model["decoder"]["num_key_value_heads"]) == (4, 2)
    assert (search["do_sample"], search["temperature"], search["top_k"], search["max_length"]) == (True, 0.7, 0, 256)
    assert "bad_words_ids" not in search


@pytest.mark.usefixtures("unreplayed")
def test_the_draft_is_that_of_the_fastest_recipe_or_none(tmp_path: Path) -> None:
    def measure(manifest: dict[str, Any]) -> None:
        speeds = {"layer-skip": 3.0, "draft-model": 5.0, "early-exit": 9.0}
        manifest["measured"] = [{"recipe": name, "tokens_per_second": speed} for name, speed in speeds.items()]

    bundle = edit_manifest(copied(FROZEN, tmp_path), measure)
    assert export_genai(bundle, tmp_path / "genai").draft == "assistant-draft"
    without = cli("export", "--to", "onnxruntime-genai", bundle, "-o", tmp_path / "none", "--draft", "none")
    assert "it has no draft model" in words(without.out) and "no golden output was replayed" in words(without.out)
    assert "draft" not in config(tmp_path / "none")["model"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --standard, or --to onnxruntime-genai or openvino"),
        (["--standard", "--to", "onnxruntime-genai"], "export writes one form at a time"),
        (["--standard", "--draft", "none"], "--draft none goes with --to"),
        (["--to", "genai"], "--to 'genai' is not a runtime that specc writes for; give onnxruntime-genai or openvino"),
        (
            ["--to", "onnxruntime-genai", "--draft", "early-exit"],
            "the recipe 'early-exit' has no draft that onnxruntime-genai can run",
        ),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    assert message in refused("export", *arguments, FROZEN, "-o", tmp_path / "x")


def test_only_a_directory_that_it_wrote_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    line = refused("export", "--to", "onnxruntime-genai", FROZEN, "-o", tmp_path / "mine", "--overwrite")
    assert "exists and has no genai_config.json; choose another output" in line


def test_engines_of_the_kernels_are_sent_to_the_standard_export(tmp_path: Path) -> None:
    def need(manifest: dict[str, Any]) -> None:
        for engine in manifest["engines"]:
            engine["needs"] = {"specc::LinearF32": "0.2"}

    bundle = edit_manifest(copied(FROZEN, tmp_path), need)
    line = refused("export", "--to", "onnxruntime-genai", bundle, "-o", tmp_path / "x")
    assert f"first run specc export --standard {bundle}" in line
