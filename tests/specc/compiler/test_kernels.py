"""When a compile takes the operators of specc-kernels, and what a bundle of theirs holds."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from graphs import model
from safetensors.torch import load_file, save_file
from tiny import save_model

from specc.backends import Options as BuildOptions
from specc.compiler import compile_bundle
from specc.compiler import kernels as chosen
from specc.compiler.kernels import rounded_matrices, with_checkpoint_dtype, with_lowering
from specc.compiler.options import Options
from specc.exactness import golden
from specc.runtime.bundle import open_bundle
from specc.runtime.engines import kernels
from specc.runtime.errors import BackendError, SpeccWarning
from specc.runtime.session import open_session

pytestmark = pytest.mark.torch

needs_library = pytest.mark.skipif(
    "not __import__('importlib.util').util.find_spec('specc_kernels')",
    reason="specc-kernels is not built; pip install ./kernels",
)


def options(lowering: str | None = None, **changes: Any) -> Options:
    return Options(model="model", output="out", build=BuildOptions(lowering), **changes)


def missing() -> None:
    """Stand for a library that is not installed."""
    raise BackendError("specc-kernels is not installed; pip install specc-kernels")


@pytest.fixture(params=[True, False], ids=["installed", "missing"])
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Install the library, or take it away; there is no GPU."""
    look: Callable[[], None] = (lambda: None) if request.param else missing
    monkeypatch.setattr(kernels, "usable", look)
    monkeypatch.setattr(chosen, "_has_gpu", lambda: False)
    return bool(request.param)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8", "int4"])
def test_types_that_gain_by_the_library_take_it_where_it_is(dtype: str, installed: bool) -> None:
    assert with_lowering(options(dtype=dtype)).build.lowering == ("kernels" if installed else None)


@pytest.mark.parametrize(
    "changes", [{}, {"dtype": "fp16"}, {"dtype": "fp32", "lowering": "fast"}, {"dtype": "int4", "lowering": "fast"}]
)
def test_other_types_and_a_users_choice_stay(changes: dict[str, Any], installed: bool) -> None:
    requests = options(**changes)
    assert with_lowering(requests) is requests


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_types_of_a_gpu_stay_where_there_is_one(dtype: str, installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "_has_gpu", lambda: True)
    assert with_lowering(options(dtype=dtype)).build.lowering is None


def in_bf16() -> Any:
    """Return a model whose matrices bf16 holds."""
    target = deepcopy(model("llama"))
    for weight in target.parameters():
        weight.data = weight.data.to(torch.bfloat16).to(torch.float32)
    return target


def test_a_checkpoint_in_bf16_keeps_its_type_where_the_library_is(installed: bool) -> None:
    settled = with_checkpoint_dtype(options(), in_bf16())
    assert (settled.dtype, settled.build.lowering) == (("bf16", "kernels") if installed else (None, None))


@pytest.mark.parametrize(
    "changes", [{"dtype": "fp32"}, {"dtype": "int4"}, {"lowering": "fast"}, {"backends": ("inductor",)}]
)
def test_what_the_user_chose_stays_for_a_checkpoint_in_bf16(changes: dict[str, Any], installed: bool) -> None:
    requests = options(**changes)
    assert with_checkpoint_dtype(requests, in_bf16()) is requests


def test_a_checkpoint_that_bf16_would_round_keeps_its_numbers(installed: bool) -> None:
    settled = with_checkpoint_dtype(options(), model("llama"))
    assert (settled.dtype, settled.build.lowering) == (None, "kernels" if installed else None)


def test_a_gpu_keeps_the_choice_for_a_checkpoint_in_bf16(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "_has_gpu", lambda: True)
    requests = options()
    assert with_checkpoint_dtype(requests, in_bf16()) is requests


def test_beside_other_backends_the_backend_chooses(installed: bool) -> None:
    both = options(dtype="int4", backends=("onnx", "inductor"))
    assert with_lowering(both) is both
    with pytest.raises(BackendError, match="--lowering kernels is for --backend onnx alone, not for onnx, inductor"):
        with_lowering(replace(both, build=BuildOptions("kernels")))


def test_a_user_who_asks_for_a_library_that_is_missing_is_told_at_once(installed: bool) -> None:
    if installed:
        assert with_lowering(options("kernels")).build.lowering == "kernels"
    else:
        with pytest.raises(BackendError, match="specc-kernels is not installed"):
            with_lowering(options("kernels"))


def test_matrices_that_bf16_would_round_are_named_and_norms_are_none_of_them() -> None:
    names = rounded_matrices(model("llama"), options("kernels", dtype="bf16"))
    assert "model.layers.0.mlp.up_proj.weight" in names and not any("norm" in name for name in names)
    assert rounded_matrices(model("llama"), options("kernels", dtype="int4")) == []
    assert rounded_matrices(model("llama"), options("portable", dtype="bf16")) == []


@pytest.fixture(scope="module")
def exact_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with weights that bf16 holds, stored in fp32."""
    directory = tmp_path_factory.mktemp("exact") / "model"
    shutil.copytree(model, directory)
    file = directory / "model.safetensors"
    save_file({n: t.to(torch.bfloat16).to(t.dtype) for n, t in load_file(file).items()}, file, {"format": "pt"})
    return directory


def compiled(source: Path, output: Path, dtype: str | None, lowering: str | None = "kernels", *more: str) -> Path:
    prompts = output.with_suffix(".jsonl")
    prompts.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in ("import os, sys\nimport os,", "def wrap")))
    recipes = ("plain", "prompt-lookup", "quantized-self-draft", "token-recycling", *more)
    compile_bundle(
        Options(
            model=str(source),
            output=output,
            recipes=recipes,
            prompts=prompts,
            dtype=dtype,
            build=BuildOptions(lowering),
        )
    )
    return output


@needs_library
def test_a_bf16_bundle_of_a_bf16_checkpoint_has_the_tokens_and_golden_outputs_of_fp32(
    exact_model: Path, tmp_path: Path
) -> None:
    fp32 = compiled(exact_model, tmp_path / "fp32.specc", "fp32", "fast")
    bf16 = compiled(exact_model, tmp_path / "bf16.specc", None, None)  # the default for such a checkpoint
    assert (fp32 / golden.FILE).read_bytes() == (bf16 / golden.FILE).read_bytes()
    bundle = open_bundle(bf16)
    assert bundle.manifest.near_tie_tolerance == open_bundle(fp32).manifest.near_tie_tolerance
    for engine in bundle.manifest.engines:
        assert "specc::ProjectedAttention" in engine.needs and "specc::GatherBF16" in engine.needs
    assert {e.weights for e in bundle.manifest.engines} == {"weights.safetensors"}
    stored = load_file(bf16 / "weights.safetensors")
    assert {t.dtype for n, t in stored.items() if t.ndim > 2 and "int4" not in n} == {torch.bfloat16}
    one, other = open_session(open_bundle(fp32)), open_session(bundle)
    for case in golden.read_cases(fp32 / golden.FILE):
        for recipe in bundle.manifest.recipes:
            expected = one.generate(case.prompt_ids, 24, recipe=recipe.name).token_ids
            assert other.generate(case.prompt_ids, 24, recipe=recipe.name).token_ids == expected


@needs_library
def test_a_checkpoint_that_bf16_rounds_is_said_so_and_becomes_its_own_reference(model: Path, tmp_path: Path) -> None:
    with pytest.warns(
        SpeccWarning, match=r"values that bf16 does not hold, in \d+ matrices such as model\.embed_tokens"
    ):
        path = compiled(model, tmp_path / "rounded.specc", "bf16")
    manifest = open_bundle(path).manifest
    assert "original" in manifest.extra and all(row["diverged"] == 0 for row in manifest.measured)
    assert (path / "original.jsonl").is_file()


@needs_library
@pytest.mark.parametrize(("head_size", "word"), [(40, "near"), (16, "yes")])
def test_recipes_in_int4_are_near_where_attention_stays_with_onnx_runtime(
    head_size: int, word: str, tmp_path: Path
) -> None:
    sizes = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 51}
    save_model(tmp_path / "model", hidden_size=2 * head_size, head_dim=head_size, **sizes)
    bundle = open_bundle(compiled(tmp_path / "model", tmp_path / "int4.specc", "int4", "kernels", "dynamic-tree"))
    rows = {row["recipe"]: row["exactness"] for row in bundle.manifest.measured}
    assert rows.pop("plain") == "yes" and set(rows.values()) == {word}, "what tables say"
    session = open_session(bundle)
    assert session.generate([1, 2, 3], 4, recipe="prompt-lookup").stats.lossless is (word == "yes")


@needs_library
def test_a_runtime_without_the_library_says_so_before_it_loads(
    exact_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = compiled(exact_model, tmp_path / "int4.specc", "int4")
    monkeypatch.setitem(sys.modules, "specc_kernels", None)
    session = open_session(open_bundle(path))
    with pytest.raises(
        BackendError, match=r"operators of specc-kernels \(.*LinearNBits.*\): specc-kernels is not"
    ) as e:
        session.generate([1, 2, 3], 4)
    assert "\n" not in str(e.value)
