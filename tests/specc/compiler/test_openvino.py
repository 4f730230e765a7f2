"""A bundle in the form of OpenVINO, which decodes the golden outputs."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from shell import copied, edit_golden, edit_manifest, refused
from shell import specc as cli

from specc.compiler import openvino
from specc.exactness import openvino_replay
from specc.exactness.golden import read_cases

pytestmark = [pytest.mark.torch, pytest.mark.process]
FROZEN = Path(__file__).parents[2] / "bundles" / "schema-3"
CASES = read_cases(FROZEN / "golden.jsonl")
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


@needs_openvino
def test_openvino_gives_the_golden_outputs(tmp_path: Path) -> None:
    directory = tmp_path / "openvino"
    result = cli("export", "--to", "openvino", FROZEN, "-o", directory, "--json").json
    assert result == {"directory": str(directory), "draft": None, "replayed": len(CASES)}
    files = {"openvino_model.xml", "openvino_model.bin", "generation_config.json", "tokenizer.json"}
    assert files | {"tokenizer_config.json", "chat_template.jinja"} == {file.name for file in directory.iterdir()}
    assert json.loads((directory / "generation_config.json").read_text()) == {"eos_token_id": [0]}
    assert list(openvino_replay.decode(directory, CASES[:1])) == [CASES[0].token_ids]


def test_golden_outputs_that_change_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's part is left out: it answers with the outputs as they were before the change."""

    def change(cases: list[dict[str, Any]]) -> None:
        cases[1]["token_ids"][5] ^= 1
        cases[1]["gaps"][5] = 9.0

    monkeypatch.setattr(openvino, "find_spec", lambda name: name)
    monkeypatch.setattr(openvino, "_write_engine", lambda bundle, engine, directory: None)
    monkeypatch.setattr(openvino_replay, "decode", lambda directory, cases: [case.token_ids for case in CASES])
    bundle = edit_golden(copied(FROZEN, tmp_path), change)
    line = refused("export", "--to", "openvino", bundle, "-o", tmp_path / "openvino")
    assert "where golden output 1 has token" in line and "at 5, so nothing is written" in line
    assert not (tmp_path / "openvino").exists()


def test_its_absence_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "find_spec", lambda name: None)
    assert "is not installed; pip install openvino" in refused(
        "export", "--to", "openvino", FROZEN, "-o", tmp_path / "x"
    )


def test_drafts_are_refused(tmp_path: Path) -> None:
    line = refused("export", "--to", "openvino", "--draft", "layer-skip", FROZEN, "-o", tmp_path / "x")
    assert "--draft layer-skip does not go with --to openvino" in line


def test_engines_of_the_kernels_are_sent_to_the_standard_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def need(manifest: dict[str, Any]) -> None:
        for engine in manifest["engines"]:
            engine["needs"] = {"specc::LinearF32": "0.2"}

    monkeypatch.setattr(openvino, "find_spec", lambda name: name)
    bundle = edit_manifest(copied(FROZEN, tmp_path), need)
    line = refused("export", "--to", "openvino", bundle, "-o", tmp_path / "x")
    assert f"first run specc export --standard {bundle}" in line
