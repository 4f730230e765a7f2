"""`--dtype gguf`: the target has the weights of the file, to the rounding of activations."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shell import refused

gguf = pytest.importorskip("gguf")

from gguf_file import INNER, KIND, LAYERS, write  # noqa: E402
from quick_compile import compile_quickly  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from specc.compiler import Options  # noqa: E402
from specc.compiler.gguf_weights import with_gguf_blocks  # noqa: E402
from specc.exactness import golden  # noqa: E402
from specc.huggingface import load_model  # noqa: E402
from specc.huggingface.gguf_blocks import SMALL_BLOCK  # noqa: E402
from specc.runtime.bundle import open_bundle  # noqa: E402
from specc.runtime.errors import BackendError, CaptureError, SpeccWarning  # noqa: E402
from specc.runtime.sequence import Cache  # noqa: E402
from specc.runtime.session import open_session  # noqa: E402

pytestmark = pytest.mark.torch
needs_library = pytest.mark.skipif(
    "not __import__('importlib.util').util.find_spec('specc_kernels')",
    reason="specc-kernels is not built; pip install ./kernels",
)
PROMPT = [5, 9, 40, 7, 33, 21]


def compiled(file: Path, dtype: str) -> Path:
    """Compile a file with one recipe."""
    output, prompts = file.with_suffix(f".{dtype}.specc"), file.with_suffix(".jsonl")
    prompts.write_text('{"prompt": "abcdefg"}\n')
    options = Options(
        model=str(file), output=output, recipes=("prompt-lookup",), prompts=prompts, golden_tokens=8, dtype=dtype
    )
    compile_quickly(options)
    return output


def logits(bundle: Path) -> np.ndarray:
    """Return the logits after a prompt, by the bundle's engine."""
    session = open_session(open_bundle(bundle))
    engine = session.engines.prefill(len(PROMPT))
    row = engine.extend(Cache(session.cache.store), PROMPT)
    assert engine.outputs.logits_NV is not None
    return np.array(engine.outputs.logits_NV[row])


@needs_library
@pytest.mark.parametrize(
    ("kind", "weights"),
    [("Q4_1", "int4"), pytest.param("Q4_0", "int4", marks=pytest.mark.slow), ("Q8_0", "int8")],
)
def test_a_target_keeps_the_blocks_of_the_file(kind: str, weights: str, tmp_path: Path) -> None:
    """All products but those of a second rounding to 4 bits give the file's logits; that rounding is the control."""
    file = write(tmp_path / "m.gguf", KIND[kind])
    bundle = compiled(file, "gguf")
    manifest = open_bundle(bundle).manifest
    assert {engine.block.weights for engine in manifest.engines} == {weights}
    assert all("specc::LinearNBits" in engine.needs for engine in manifest.engines)
    stored = load_file(bundle / "weights.safetensors")
    numbers = [t for name, t in stored.items() if name.endswith("gguf_panels")]
    assert len(numbers) >= 4 * LAYERS and {t.dtype for t in numbers} == {torch.uint8}
    model = load_model(str(file))
    expected = model(torch.tensor([PROMPT])).logits[0, -1].numpy()
    error = np.abs(logits(bundle) - expected).max()
    assert error < 0.02 * np.abs(expected).max()
    if weights == "int4":
        assert 3 * error < np.abs(logits(compiled(file, "int4")) - expected).max()
    cases = golden.read_cases(bundle / golden.FILE)
    results = golden.replay(open_session(open_bundle(bundle)), cases, ["plain", "prompt-lookup"], 0.0)
    assert {r.verdict for r in results} == {"identical"}


@needs_library
def test_blocks_of_many_types_stand_beside_each_other(tmp_path: Path) -> None:
    """The types are those of a file that llama.cpp calls Q4_K_M, where some matrices do not have rows of 256 n."""
    others = {
        "blk.0.attn_v.weight": KIND.Q8_0,
        "blk.1.attn_v.weight": KIND.Q5_1,
        "blk.0.ffn_down.weight": KIND.Q6_K,
        "blk.1.ffn_down.weight": KIND.Q4_K,
    }
    file = write(tmp_path / "m.gguf", KIND.Q5_0, others=others)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpeccWarning)
        bundle = compiled(file, "gguf")
    stored = load_file(bundle / "weights.safetensors")
    panels = stored["model.model.layers.0.mlp.down_proj.weight_gguf_panels"]
    assert panels.shape[1:3] == (INNER // SMALL_BLOCK, SMALL_BLOCK // 4)
    decode = open_bundle(bundle).engine("decode")
    assert decode.needs["specc::GatedMLP"] == "0.4.0"  # which multiplies by those blocks of 16
    expected = load_model(str(file))(torch.tensor([PROMPT])).logits[0, -1].numpy()
    assert np.abs(logits(bundle) - expected).max() < 0.02 * np.abs(expected).max()


@needs_library
def test_products_of_other_types_are_named_and_stay_fp32(tmp_path: Path) -> None:
    """The file has F16 in one matrix."""
    file = write(tmp_path / "m.gguf", KIND.Q4_0, others={"blk.0.ffn_down.weight": KIND.F16})
    with pytest.warns(SpeccWarning, match=r"1 of \d+ products have rows in blocks of other types than Q4_0, Q4_1"):
        bundle = compiled(file, "gguf")
    names = load_file(bundle / "weights.safetensors")
    assert "model.model.layers.0.mlp.down_proj.weight_panels" in names


def options(model: object, **changes: Any) -> Options:
    return replace(Options(model=str(model), output="out", dtype="gguf"), **changes)


def test_a_model_that_is_not_a_gguf_file_is_refused(model: Path) -> None:
    line = refused("compile", model, "-o", model.parent / "x.specc", "--dtype", "gguf")
    assert f"--dtype gguf keeps the blocks of a GGUF file, and {model} is none; give --dtype int4" in line


def test_a_file_without_blocks_that_can_be_kept_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specc.runtime.engines.kernels.usable", lambda: None)
    file = write(tmp_path / "m.gguf", KIND.F16)
    line = r"m\.gguf has tensors of type F16, F32, and --dtype gguf keeps blocks of Q4_0, Q4_1, Q5_0, .*; quantise"
    with pytest.raises(CaptureError, match=line):
        with_gguf_blocks(options(file))


def test_other_backends_adapters_and_a_missing_library_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "m.gguf", KIND.Q4_0)
    with pytest.raises(BackendError, match="--dtype gguf is for --backend onnx"):
        with_gguf_blocks(options(file, backends=("inductor",)))
    with pytest.raises(CaptureError, match="an adapter changes the weights"):
        with_gguf_blocks(options(file, adapter="lora"))
    monkeypatch.setitem(sys.modules, "specc_kernels", None)
    with pytest.raises(BackendError, match="specc-kernels is not installed"):
        with_gguf_blocks(options(file))


def test_other_types_of_weights_need_no_file(model: Path) -> None:
    requests = options(model, dtype="int4")
    assert with_gguf_blocks(requests) == (requests, ())
