"""A bundle of specc-kernels rewritten with standard operators: the same golden outputs, without the library."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from quick_compile import compile_quickly
from safetensors.torch import load_file, save_file
from shell import refused
from shell import specc as cli

from specc.backends import Options as BuildOptions
from specc.compiler import Options
from specc.exactness import golden
from specc.runtime.bundle import open_bundle
from specc.runtime.bundle_writer import write_manifest
from specc.runtime.session import open_session

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def source(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in bf16 with a tree, a draft of 4 bits, and engines with lanes."""
    pytest.importorskip("specc_kernels", reason="specc-kernels is not built; pip install ./kernels")
    directory = tmp_path_factory.mktemp("kernels")
    shutil.copytree(model, directory / "model")
    file = directory / "model/model.safetensors"
    save_file({n: t.to(torch.bfloat16).to(t.dtype) for n, t in load_file(file).items()}, file, {"format": "pt"})
    prompts = directory / "prompts.jsonl"
    prompts.write_text('{"prompt": "import os, sys\\nimport os,"}\n')
    output = directory / "kernels.specc"
    compile_quickly(
        Options(
            model=str(directory / "model"),
            output=output,
            recipes=("token-recycling", "quantized-self-draft"),
            prompts=prompts,
            dtype="bf16",
            lanes=2,
            build=BuildOptions("kernels"),
        )
    )
    return output


def test_an_exported_bundle_has_the_golden_outputs_without_the_library(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "standard.specc"
    result = cli("export", "--standard", source, "-o", output, "--json").json
    lanes = {e.name for e in open_bundle(source).manifest.engines if e.block.lanes > 1}
    assert set(result["left_out"]) == lanes and lanes and result["operators"] > 0
    monkeypatch.setitem(sys.modules, "specc_kernels", None)  # what Python takes for a module that is not there
    bundle = open_bundle(output)
    manifest = bundle.manifest
    assert not any(name.startswith("specc::") for engine in manifest.engines for name in engine.needs)
    assert {engine.block.weights for engine in manifest.engines} == {"fp32", "int4"}
    assert not any("panels" in name for name in load_file(output / "weights.safetensors"))
    assert (output / golden.FILE).read_bytes() == (source / golden.FILE).read_bytes()
    recipes = [recipe.name for recipe in manifest.recipes]
    results = golden.replay(open_session(bundle), golden.read_cases(output / golden.FILE), recipes, 1e-3)
    assert len(results) == 3 and {r.verdict for r in results} <= {"identical", "near-tie"}


def test_golden_outputs_that_would_change_leave_no_bundle(source: Path, tmp_path: Path) -> None:
    altered, output = tmp_path / "altered.specc", tmp_path / "standard.specc"
    shutil.copytree(source, altered)
    (case,) = golden.read_cases(altered / golden.FILE)
    golden.write_cases(
        [replace(case, token_ids=[*case.token_ids[:-1], 1], gaps=[9.0] * len(case.gaps))], altered / golden.FILE
    )
    manifest = open_bundle(source).manifest
    write_manifest(altered, replace(manifest, files={n: f for n, f in manifest.files.items() if n != golden.FILE}))
    line = refused("export", "--standard", altered, "-o", output)
    assert "by standard operators the golden output 0 is another one" in line and "--lowering fast" in line
    assert not output.exists()


def test_a_bundle_that_is_standard_already_is_refused(bundle: Path, tmp_path: Path) -> None:
    line = refused("export", "--standard", bundle, "-o", tmp_path / "x.specc")
    assert "has no operators of specc-kernels, so it is standard already; copy it" in line
