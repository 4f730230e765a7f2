"""Other weights of a draft model in a bundle, without a compile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from shell import refused
from shell import specc as cli
from transformers import PreTrainedModel

from specc.compiler import Options, compile_bundle
from specc.huggingface import load_model, load_tokenizer
from specc.runtime.bundle import open_bundle
from specc.runtime.session import open_session
from specc.training.cut import cut
from specc.training.model_folder import save_model

pytestmark = pytest.mark.torch


def saved(draft: PreTrainedModel, model: Path, directory: Path) -> Path:
    save_model(draft, load_tokenizer(str(model)), directory, {})
    return directory


def noisy(model: Path, layers: list[int], vectors: bool = False) -> PreTrainedModel:
    """Return a draft that is cut from a model, with noise on its matrices, or on its vectors."""
    draft = cut(load_model(str(model)), layers)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in draft.parameters():
            if (parameter.ndim == 1) == vectors:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return draft


@pytest.fixture(scope="module")
def source(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a draft model."""
    directory = tmp_path_factory.mktemp("swap")
    draft = saved(cut(load_model(str(model)), [0, 1]), model, directory / "draft")
    (directory / "p.jsonl").write_text(json.dumps({"prompt": "import os, sys"}) + "\n", encoding="utf-8")
    compile_bundle(
        Options(
            model=str(model),
            output=directory / "b.specc",
            recipes=("draft-model",),
            assistant_model=str(draft),
            prompts=directory / "p.jsonl",
            golden_tokens=8,
            draft_dtype="fp32",  # In 4 bits, scales of so small a model stand in the engines.
        )
    )
    return directory / "b.specc"


@pytest.mark.slow
def test_a_swapped_bundle_is_the_one_that_a_compile_makes(source: Path, model: Path, tmp_path: Path) -> None:
    draft = saved(noisy(model, [0, 1]), model, tmp_path / "draft")
    result = cli("swap", source, "--assistant-model", draft, "-o", tmp_path / "new.specc", "--json").json
    assert result["recipes"] == ["draft-model"] and result["tensors"] > 5
    open_bundle(tmp_path / "new.specc").check()
    compile_bundle(
        Options(
            model=str(model),
            output=tmp_path / "compiled.specc",
            recipes=("draft-model",),
            assistant_model=str(draft),
            prompts=source.parent / "p.jsonl",
            golden_tokens=8,
            draft_dtype="fp32",  # In 4 bits, scales of so small a model stand in the engines.
        )
    )
    for file in source.glob("weights*.safetensors"):
        ours, theirs = (load_file(tmp_path / name / file.name) for name in ("new.specc", "compiled.specc"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(
        (source / name).read_bytes() != (tmp_path / "new.specc" / name).read_bytes() for name in _weights(source)
    )
    for engine in source.glob("*.onnx"):
        assert engine.read_bytes() == (tmp_path / "new.specc" / engine.name).read_bytes()
    answers = [
        open_session(open_bundle(tmp_path / name)).generate(list(range(30)), 24, recipe="draft-model", guard=False)
        for name in ("new.specc", "compiled.specc")
    ]
    assert answers[0].token_ids == answers[1].token_ids
    assert answers[0].stats.accepted == answers[1].stats.accepted


@pytest.mark.slow
def test_a_bundle_takes_its_own_place_and_a_draft_that_does_not_fit_leaves_it(
    source: Path, model: Path, tmp_path: Path
) -> None:
    before = (source / "manifest.json").read_bytes()
    for draft, message in (
        (noisy(model, [0]), "has no tensor"),
        (noisy(model, [0, 1], vectors=True), "so small that it stands in the engines; train matrices alone"),
    ):
        directory = saved(draft, model, tmp_path / "draft")
        line = refused("swap", source, "--assistant-model", directory, "-o", source, "--overwrite")
        assert message in line and (source / "manifest.json").read_bytes() == before
    draft = noisy(model, [0, 1])
    directory = saved(draft, model, tmp_path / "draft")
    assert "exists; choose another output" in refused("swap", source, "--assistant-model", directory, "-o", source)
    line = cli("swap", source, "--assistant-model", directory, "-o", source, "--overwrite").out
    assert "tensors replaced, golden outputs replayed by draft-model" in line
    open_bundle(source).check()
    assert (source / "manifest.json").read_bytes() != before


def test_a_bundle_without_a_draft_model_is_refused(bundle: Path, model: Path, tmp_path: Path) -> None:
    line = refused("swap", bundle, "--assistant-model", model, "-o", tmp_path / "b.specc")
    assert line == f"{bundle} has no draft model; compile it with --assistant-model"


def _weights(bundle: Path) -> list[str]:
    return [file.name for file in bundle.glob("weights*.safetensors")]
