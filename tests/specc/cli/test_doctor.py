"""The verb `doctor`: what a machine is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
from doubles.cuda import FakeCuda
from shell import refused
from shell import specc as cli

import specc.backends.tensorrt
from specc.cli import doctor
from specc.runtime.device import PROVIDERS
from specc.runtime.engines import BACKENDS, DEVICES, kernels
from specc.runtime.errors import BackendError
from specc.runtime.extras import package

pytestmark = pytest.mark.torch


def findings() -> dict[str, doctor.Finding]:
    return {f"{f.kind} {f.name}": f for f in doctor.examine()}


def test_every_backend_and_provider_is_examined() -> None:
    names = [*(f"backend {n}" for n in BACKENDS), *(f"provider {n}" for n in PROVIDERS), "library specc-kernels"]
    assert [*findings()] == names
    assert set(DEVICES) >= set(BACKENDS)


def test_backends_whose_engines_are_native_code_are_named() -> None:
    all_findings = findings()
    native = {name for name, finding in all_findings.items() if finding.native_code}
    assert native == {"backend inductor", "backend inductor-cuda", "backend torch-tensorrt"}
    lines = cli("doctor").out
    assert f"inductor, inductor-cuda, torch-tensorrt: {doctor.NATIVE}" in " ".join(lines.split())


def test_what_runs_lacks_nothing_and_what_does_not_says_what() -> None:
    all_findings = findings()
    assert all_findings["provider cpu"].run and all_findings["backend onnx"].run
    for f in all_findings.values():
        assert bool(f.missing) == (not f.run or f.build is False), f


def test_without_a_gpu_the_table_leaves_out_what_else_a_provider_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_gpu", lambda: False)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    others = set(findings()["provider cuda"].missing) - {doctor.GPU}
    lines = " ".join(cli("doctor").out.split())
    assert others and doctor.GPU in lines
    assert not any(line in lines for line in others)


def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    hidden = ("tensorrt", "onnxruntime_ep_")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith(hidden) else find(name))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    all_findings = findings()
    assert any(f"pip install {package('tensorrt-rtx')}" in m for m in all_findings["backend tensorrt-rtx"].missing)
    for name in ("openvino", "nv-tensorrt-rtx"):
        assert any(f"install {package(name)} in" in m for m in all_findings[f"provider {name}"].missing)
        assert not all_findings[f"provider {name}"].run
    assert not all_findings["backend tensorrt-rtx"].run


@pytest.mark.parametrize(("capability", "runs"), [((9, 0), False), ((8, 9), True), ((13, 0), True)])
def test_a_gpu_that_tensorrt_for_rtx_does_not_run_on_is_said(
    capability: tuple[int, int], runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, cuda = importlib.util.find_spec, FakeCuda().cuda
    cuda.cudaDeviceAttr = SimpleNamespace(
        cudaDevAttrComputeCapabilityMajor=capability[0], cudaDevAttrComputeCapabilityMinor=capability[1]
    )
    here = ("tensorrt_rtx", "cuda")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: sys.__spec__ if name in here else find(name))
    names = SimpleNamespace(__members__={"SM75": 0, "SM89": 1, "SM120": 2})
    library = SimpleNamespace(__name__="tensorrt_rtx", __version__="1.7", ComputeCapability=names)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", library)
    monkeypatch.setattr("specc.runtime.engines.cuda.bindings", lambda: cuda)
    monkeypatch.setattr(doctor, "_gpu", lambda: True)
    finding = findings()["backend tensorrt-rtx"]
    assert finding.run == runs
    lines = [line for line in finding.missing if "has no '9.0'; it has 7.5, 8.9, 12.0; take --backend onnx" in line]
    assert len(lines) == (not runs)


def install_kernels(monkeypatch: pytest.MonkeyPatch, active: str) -> None:
    """Install a double of specc-kernels that was built for more than this processor has."""
    here = kernels.Library(
        version="0.3.1",
        path="/x.so",
        operators=("LinearBF16",),
        built=("scalar", "avx2", "avx512"),
        variants=("scalar", "avx2"),
        active=active,
    )
    monkeypatch.setattr(kernels, "check", lambda: None)
    monkeypatch.setattr(kernels, "library", lambda: here)


def test_the_library_of_operators_is_named_with_its_version_and_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    install_kernels(monkeypatch, active="avx2")
    finding = findings()["library specc-kernels"]
    assert finding.run and finding.build and not finding.missing and not finding.warnings
    assert finding.notes == (
        "version 0.3.1, built for scalar, avx2, avx512",
        "this processor runs scalar, avx2; avx2 is in use",
    )


def test_a_processor_that_runs_the_reference_alone_lacks_a_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    install_kernels(monkeypatch, active="scalar")
    finding = findings()["library specc-kernels"]
    (line,) = finding.missing
    assert "only the variant scalar is in use" in line and "unset SPECC_KERNELS_DISABLE" in line
    assert not finding.run and not finding.build


@pytest.mark.parametrize("problem", ["specc-kernels is not installed; pip install specc-kernels", "it does not fit"])
def test_a_library_of_operators_that_does_not_work_is_one_line(problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise BackendError(problem)

    monkeypatch.setattr(kernels, "check", fails)
    finding = findings()["library specc-kernels"]
    assert finding.missing == (problem,) and not finding.run and not finding.build and not finding.notes


def test_without_the_compiler_nothing_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specc, "backends", specc.backends)  # The end of the test puts it back.
    for module in [m for m in sys.modules if m.startswith("specc.backends")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torch", None)
    all_findings = findings()
    assert not any(f.build for f in all_findings.values() if f.kind == "backend")
    assert (
        doctor.missing_part("the compiler") in all_findings["backend onnx"].missing and all_findings["backend onnx"].run
    )


MISSING = "raise ModuleNotFoundError(\"No module named 'onnxruntime'\", name='onnxruntime')"


@pytest.mark.parametrize("left", [MISSING, pytest.param("", marks=pytest.mark.slow)], ids=["none", "a part"])
def test_without_onnx_runtime_one_line_says_how_to_get_it(left: str, bundle: Path, tmp_path: Path) -> None:
    """The same holds for a part of it, which is left after one of two distributions was uninstalled."""
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime/__init__.py").write_text(left)

    def run(*argv: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "specc", *map(str, argv)]
        env = os.environ | {"PYTHONPATH": str(tmp_path)}
        return subprocess.run(command, capture_output=True, text=True, env=env)

    result = run("generate", bundle, "--prompt", "x")
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("specc: error: ONNX Runtime is not installed (") and result.stderr.count("\n") == 1
    assert result.stderr.endswith(
        f"; pip install {package('cpu')}, or {package('gpu')} for an NVIDIA GPU: one of the two\n"
    )
    report = run("doctor")
    assert report.returncode == 0 and re.search(
        r" onnx, [^:]*: ONNX Runtime is not installed", " ".join(report.stdout.split())
    )
    assert run("show", bundle).returncode == 0


@pytest.mark.slow  # It imports torch.
def test_a_compile_without_onnx_runtime_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime/__init__.py").write_text(MISSING)
    command = [sys.executable, "-m", "specc", "compile", "examples/pycode-1m", "-o", str(tmp_path / "x.specc")]
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, env=env)
    assert result.returncode == 2 and result.stderr.endswith(f"; pip install {package('cpu')}\n")
    assert result.stderr.removeprefix("load torch\n").count("\n") == 1


def test_two_distributions_of_onnx_runtime_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    distributions = {"onnxruntime": ["onnxruntime", "onnxruntime-gpu", "onnxruntime"]}
    monkeypatch.setattr(doctor, "packages_distributions", lambda: distributions)
    folders = {"onnxruntime": "/a", "onnxruntime-gpu": "/a"}
    monkeypatch.setattr(doctor, "distribution", lambda name: SimpleNamespace(locate_file=lambda _: folders[name]))
    (warning,) = findings()["backend onnx"].warnings
    assert warning.startswith("onnxruntime and onnxruntime-gpu are installed over each other")
    assert (
        f"pip uninstall onnxruntime onnxruntime-gpu, then pip install {package('cpu')}, or {package('gpu')}" in warning
    )
    assert "warning: onnxruntime and onnxruntime-gpu" in cli("doctor").out
    folders["onnxruntime-gpu"] = "/b"
    (warning,) = findings()["backend onnx"].warnings
    assert warning.startswith(
        f"onnxruntime and onnxruntime-gpu are installed in 2 folders, and {onnxruntime.__file__} is"
    )
    distributions["onnxruntime"].remove("onnxruntime-gpu")
    assert findings()["backend onnx"].warnings == ()


def test_no_extra_brings_a_second_onnx_runtime() -> None:
    """The package without an extra brings none."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]

    def distributions(needs: list[str]) -> set[str]:
        names = {n.partition(">")[0].partition(";")[0].strip() for n in needs}
        inner = [
            e
            for n in names
            if n.startswith("specc-compiler[")
            for e in n.removeprefix("specc-compiler[")[:-1].split(",")
        ]
        direct = {n for n in names if n.startswith("onnxruntime") and "-ep-" not in n}
        return direct.union(*(distributions(project["optional-dependencies"][e]) for e in inner))

    assert distributions(project["dependencies"]) == set()
    by_extra = {extra: distributions(needs) for extra, needs in project["optional-dependencies"].items()}
    assert {extra: names for extra, names in by_extra.items() if names} == {
        "cpu": {"onnxruntime"},
        "openvino": {"onnxruntime"},
        "nv-tensorrt-rtx": {"onnxruntime"},
        "gpu": {"onnxruntime-gpu"},
        "genai": {"onnxruntime", "onnxruntime-genai"},
    }


def test_the_verb() -> None:
    assert {row["name"] for row in cli("doctor", "--json").json} == {*BACKENDS, *PROVIDERS, "specc-kernels"}
    assert "onnx on CPUExecutionProvider" in cli("doctor").out


@pytest.mark.torch
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backend", "abacus"), "no backend 'abacus'; there are onnx"),
        (("--lowering", "slow"), "unknown lowering 'slow'; there are fast, portable"),
        (("--backend", "inductor", "--dtype", "int4"), "backend inductor has no int4; it has fp32, fp16, bf16"),
        (
            ("--backend", "nowhere"),
            "backend nowhere cannot build here: specc_nowhere is not installed; pip install ",
        ),
    ],
)
def test_what_no_backend_can_build_is_refused_at_once(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = specc.backends.tensorrt.TensorRT("nowhere", "specc_nowhere", ".x", anywhere=True)
    monkeypatch.setattr(specc.backends.tensorrt, "NOWHERE", missing, raising=False)
    monkeypatch.setitem(specc.backends.BACKENDS, "nowhere", "tensorrt:NOWHERE")
    out = tmp_path / "out.specc"
    assert message in refused("compile", "examples/pycode-1m", "-o", out, *arguments)
    assert not out.exists()


@pytest.mark.torch
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "tpu"), "unknown device 'tpu'; choose cpu or cuda"),
        (("--execution-provider", "cuda"), "execution provider 'cuda' runs on a GPU; add --device cuda"),
        (("--backend", "inductor"), "has no engines by inductor, only by onnx; compile with --backend inductor"),
    ],
)
def test_a_place_that_a_bundle_cannot_run_at_is_refused(
    arguments: tuple[str, ...], message: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message in refused("generate", bundle, "--prompt", "x", *arguments)
    assert message in refused("test", bundle, *arguments)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for provider, extra in (("cuda", "gpu"), ("tensorrt", "gpu"), ("nv-tensorrt-rtx", "nv-tensorrt-rtx")):
        line = refused("generate", bundle, "--prompt", "x", "--device", "cuda", "--execution-provider", provider)
        assert "this ONNX Runtime has no" in line
        assert line.endswith(f"pip install {package(extra)} in an environment of its own")
    line = refused("generate", bundle, "--prompt", "x", "--execution-provider", "openvino")
    assert "this ONNX Runtime has no OpenVINOExecutionProvider" in line and package("openvino") in line


def test_it_begins_with_what_works() -> None:
    first, second, *_ = cli("doctor").out.splitlines()
    assert re.fullmatch(r"This machine can compile bundles with onnx\b.*\.", first.strip())
    assert second.startswith("It can run them with onnx on CPUExecutionProvider")


def test_a_machine_where_nothing_works_is_said_to_have_nothing() -> None:
    nothing = [doctor.Finding(kind="backend", name="onnx", devices=("cpu",), build=False, run=False, missing=("x",))]
    assert doctor.what_works(nothing) == ["This machine cannot compile bundles yet.", "It cannot run them yet."]


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx", "torch-tensorrt"])
def test_a_hint_names_the_extra_of_its_own_backend(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    hints = [line for line in doctor._missing_to_run(name) if "pip install" in line]
    assert len(hints) == 2
    assert all(hint.endswith(f"pip install {package(name)}") for hint in hints)
