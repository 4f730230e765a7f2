"""What a backend cannot do is one line with a remedy and exit status 2; what it does in another way is one warning.

The command line runs on tiny models. A bundle that was there before stays as it was.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from shell import copied, edit_manifest, refused
from shell import specc as cli
from tiny import save_model

from specc.backends import inductor, onnx
from specc.runtime.bundle import open_bundle
from specc.runtime.engines import cuda, ort, ort_device
from specc.runtime.errors import BackendError

pytestmark = [pytest.mark.torch, pytest.mark.model]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a file of one prompt."""
    file = tmp_path_factory.mktemp("prompts") / "p.jsonl"
    file.write_text('{"prompt": "def wrap(text, width=70):"}\n', encoding="utf-8")
    return file


def few(prompts: Path) -> tuple[Any, ...]:
    """Return options for a compile of few engines and tokens."""
    short = ("--set", "prompt-lookup.prompt_lookup_num_tokens=3", "--golden-tokens", 8)
    return "--recipe", "prompt-lookup", "--prompts", prompts, *short


def contents(bundle: Path) -> dict[str, str]:
    """Return a digest of each file."""
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in bundle.iterdir()}


def test_a_bundle_never_loses_the_engines_that_it_had(
    model: Path, bundle: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second backend that fails half way, and one that is not asked to replace what is there."""
    output = copied(bundle, tmp_path)
    before, builds = contents(output), []

    def fail(self: Any, graph: Any, block: Any, weights: Path, prefix: str, file: Path, options: Any) -> None:
        file.write_bytes(b"half of an engine")
        builds.append(file.name)
        raise BackendError("inductor cannot compile it: no such operator; take --backend onnx")

    monkeypatch.setattr(inductor.Inductor, "requirements", lambda self: [])
    monkeypatch.setattr(inductor.Inductor, "build", fail)
    message = refused(
        "compile", model, "-o", output, *few(prompts), "--backend", "onnx", "--backend", "inductor", "--overwrite"
    )
    assert message.endswith("take --backend onnx") and builds == ["prefill.pt2"]
    assert contents(output) == before
    assert "exists; choose another output, or replace it with --overwrite" in refused(
        "compile", model, "-o", output, *few(prompts)
    )
    assert contents(output) == before and cli("test", output).status == 0


def test_a_type_that_the_processor_cannot_run(model: Path, prompts: Path, tmp_path: Path) -> None:
    """bf16 builds anywhere, and nothing is measured; fp16 runs, its drafts in fp16 too, over rows of one type."""
    output = tmp_path / "bf16.specc"
    assert cli("compile", model, "-o", output, *few(prompts), "--dtype", "bf16", "--lowering", "portable").status == 0
    reason = (
        "has engines by onnx (bf16), none of which runs so on cpu; give --device cuda, or compile with --backend onnx"
    )
    for verb in (("test", output), ("generate", output, "--prompt", "x")):
        assert refused(*verb).endswith(f"{reason} --dtype fp32, or install specc-kernels and compile again")


@pytest.mark.slow
def test_half_precision_with_drafts_of_few_bits(model: Path, prompts: Path, tmp_path: Path) -> None:
    output = tmp_path / "fp16.specc"
    argv = ("--recipe", "early-exit", "--recipe", "quantized-self-draft", "--dtype", "fp16")
    assert cli("compile", model, "-o", output, *few(prompts), *argv).status == 0
    message = cli("test", output, "--json", "--tolerance", "0.05")
    assert message.status == 0 and message.json["replays"] == 4
    assert {e.block.weights for e in open_bundle(output).manifest.engines} == {"fp16"}


def test_an_engine_of_another_library_or_gpu(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = pytest.importorskip(
        "tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install specc-compiler[tensorrt-rtx]"
    )
    here = {"tensorrt_rtx": trt.__version__, "compute_capability": "8.9"}

    class Gpu:
        """As far as loading gets."""

        capability = staticmethod(lambda: "8.9")
        allocate = staticmethod(lambda size: 1)
        free = staticmethod(lambda addresses: None)

    monkeypatch.setattr("specc.runtime.engines.tensorrt.process_gpu", Gpu)
    for what, version in here.items():
        output = copied(bundle, tmp_path / what)

        def edit(manifest: dict[str, Any], what: str = what) -> None:
            for engine in manifest["engines"]:
                engine |= {"backend": "tensorrt-rtx", "needs": here | {what: "1.0"}}

        edit_manifest(output, edit)
        message = refused("generate", output, "--prompt", "x", "--device", "cuda")
        assert f"was built for {what} 1.0 and here is {version}; compile again with --backend tensorrt-rtx" in message


def test_a_gpu_without_room(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ONNX Runtime, whose own error says nothing of what is free."""

    class Full:
        cudaMemGetInfo = staticmethod(lambda: (0, 3 << 20, 8 << 30))

    def refuse(*_: Any) -> None:
        raise RuntimeError("Failed to allocate memory for requested buffer\nat bfc_arena.cc")

    monkeypatch.setattr(ort, "require", lambda device: None)
    monkeypatch.setattr(ort_device, "zeros", refuse)
    monkeypatch.setattr(ort_device, "bindings", lambda: Full)
    message = refused("generate", bundle, "--prompt", "x", "--device", "cuda")
    assert message.startswith(
        "cuda has no room for a cache of 0 MiB, 3 of 8192 MiB being free (Failed to allocate memory"
    )
    assert message.endswith("free some, or compile with a smaller --max-seq-len")
    monkeypatch.setattr(ort_device, "bindings", cuda.bindings)
    assert "no room for a cache of" in refused("generate", bundle, "--prompt", "x", "--device", "cuda")


@pytest.fixture
def rtx() -> None:
    pytest.importorskip(
        "tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install specc-compiler[tensorrt-rtx]"
    )


RTX = ("--backend", "onnx", "--backend", "tensorrt-rtx", "--dtype", "bf16", "--compute-capability", "8.9")


@pytest.mark.slow  # The parser refuses an operator in a test below, in one line too.
@pytest.mark.usefixtures("rtx")
def test_attention_that_does_not_fuse_is_one_line_for_each_engine(
    prompts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Heads of 8, which no kernel is for. The library writes nothing of its own to the terminal."""
    tiny, out = save_model(tmp_path / "model", head_dim=8), tmp_path / "out.specc"
    result = cli("compile", tiny, "-o", out, *few(prompts), *RTX)
    assert result.status == 0
    lines = [line for line in result.err.splitlines() if "warning" in line.lower()]
    assert len(lines) == len(set(lines)) >= 2
    for line in lines:
        assert line.startswith("specc: warning: ") and ".trtrtx: attention does not fuse and is taken apart" in line
    assert "MyelinCheck" not in capfd.readouterr().err
    assert "unfused" in {e.needs.get("attention") for e in open_bundle(out).manifest.engines}


@pytest.mark.usefixtures("rtx")
def test_an_operator_that_the_parser_refuses(
    model: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name, its module's path and the parser's own words."""
    translate, out = onnx.translate, tmp_path / "out.specc"

    def capped(*arguments: Any, **more: Any) -> Any:
        import onnx_ir as ir

        model = translate(*arguments, **more)
        node = next((n for n in model.graph if n.op_type == "Attention"), None)
        if node:
            node.attributes.add(ir.AttrFloat32("softcap", 2.0))
        return model

    monkeypatch.setattr(onnx, "translate", capped)
    message = refused("compile", model, "-o", out, *few(prompts), *RTX[2:])
    assert message.startswith("tensorrt-rtx cannot read the graph: Attention at model.model.layers.0.self_attn/")
    assert "softcap" in message and message.endswith("; take another --backend for this model") and not out.exists()
