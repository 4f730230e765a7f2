"""Blocks for torch-tensorrt: what it gets to build, and its own builder.

The builder runs where `torch_tensorrt` can be imported: without a GPU that takes torch-tensorrt-rtx, and stand-ins for
what it asks CUDA. Elsewhere those tests are skipped with the reason.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import demo
import pytest
import torch
from doubles.torch_tensorrt import TorchTensorRT
from graphs import prepared

from specc import passes
from specc.backends import Options, check, tensorrt, torch_tensorrt
from specc.backends.torch_tensorrt import TORCH_TENSORRT
from specc.compiler import weights
from specc.runtime.block import Block
from specc.runtime.errors import BackendError
from specc.runtime.extras import package
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

CAPACITY = 64
TREE = Tree((-1, 0, 0, 1, 1, 2, 5))


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> TorchTensorRT:
    """Put doubles in the place of torch_tensorrt, its TensorRT and the GPU."""
    module, trt = TorchTensorRT(), ModuleType("tensorrt")
    trt.__version__ = "11.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_tensorrt", module)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(tensorrt, "gpu_capability", lambda: "8.9")
    monkeypatch.setattr(tensorrt.EngineBuilder, "write", lambda self, model, file: bool(file.write_bytes(b"commit")))
    return module


@pytest.mark.parametrize("inside", [False, True])
def test_the_library_gets_the_program_and_the_manifest_names_the_tensors(
    inside: bool, double: TorchTensorRT, tmp_path: Path
) -> None:
    graph, file = prepared("llama"), tmp_path / "w.safetensors"
    tensors = {n: t.half() for n, t in weights.collect(graph).items()}
    weights.write(tensors, file)
    block = Block(TREE, weights="fp16")
    passes.run(passes.pipeline(block, CAPACITY), graph)
    built = TORCH_TENSORRT.build(graph, block, file, "", tmp_path / "v.ttrt", Options(weights_inside=inside))
    (request,) = double.requests
    assert request["causal"] is False
    assert [tuple(i.shape) for i in request["inputs"]] == [t.shape for t in built.inputs]
    kinds = [str(i.dtype).removeprefix("torch.") for i in request["inputs"]]
    assert kinds == [t.dtype for t in built.inputs]
    names = {t.name for t in built.inputs}
    assert {"input_ids", "past_len", "past_key_values.2.value"} <= names
    assert (tensors.keys() <= names) is not inside
    assert [t.name for t in built.outputs][:2] == ["ids", "logits"]
    rows = [t for t in built.outputs if t.name.startswith("rows.")]
    assert {t.shape for t in rows} == {(1, 2, TREE.slots, 16)} and len(rows) == 6
    assert built.commit == "v.commit.ttrt" and (tmp_path / built.commit).read_bytes() == b"commit"
    assert built.needs == {"tensorrt": "11.0", "compute_capability": "8.9"}


def test_what_it_would_compute_wrongly_is_refused(double: TorchTensorRT, tmp_path: Path) -> None:
    """Its `where` makes int32 of bf16; capped scores are masked by one."""
    graph, file = prepared("gemma2"), tmp_path / "w.safetensors"
    weights.write({n: t.bfloat16() for n, t in weights.collect(graph).items()}, file)
    block = Block(TREE, weights="bf16")
    passes.run(passes.pipeline(block, CAPACITY), graph)
    with pytest.raises(BackendError, match=r"torch-tensorrt makes integers of bf16 in aten\.where.*take --dtype fp16"):
        TORCH_TENSORRT.build(graph, block, file, "", tmp_path / "v.ttrt")
    with pytest.raises(BackendError, match="compiles torch's operators; leave out --lowering"):
        TORCH_TENSORRT.build(graph, block, file, "", tmp_path / "v.ttrt", Options("fast"))
    assert not double.requests


def test_what_it_refuses_is_said_in_its_own_words(double: TorchTensorRT, tmp_path: Path) -> None:
    def refuse(*_: Any, **__: Any) -> bytes:
        try:
            raise ValueError("Conversion of function torch_aten.foo not currently supported!\nmore")
        except ValueError as e:
            raise RuntimeError("Conversion of module GraphModule()\n  a thousand lines") from e

    double.dynamo.convert_exported_program_to_serialized_trt_engine = refuse
    graph, file = prepared("llama"), tmp_path / "w.safetensors"
    weights.write({n: t.half() for n, t in weights.collect(graph).items()}, file)
    block = Block(TREE, weights="fp16")
    passes.run(passes.pipeline(block, CAPACITY), graph)
    with pytest.raises(BackendError) as e:
        TORCH_TENSORRT.build(graph, block, file, "", tmp_path / "v.ttrt")
    message = (
        "torch-tensorrt 2.13.0 cannot build v.ttrt: Conversion of function torch_aten.foo not currently supported!"
    )
    assert str(e.value) == f"{message}; take another --backend"


def test_what_is_missing_is_said_with_its_remedy(double: TorchTensorRT, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TORCH_TENSORRT.requirements() == []
    monkeypatch.setattr(tensorrt, "gpu_capability", lambda: None)
    with pytest.raises(
        BackendError, match=r"backend torch-tensorrt cannot build here: .*this machine has none; take --backend"
    ):
        check(["torch-tensorrt"])
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    assert TORCH_TENSORRT.requirements()[0].endswith(f"is not installed; pip install {package('torch-tensorrt')}")
    monkeypatch.setattr(torch_tensorrt, "library", lambda: importlib.import_module("numpy.no_such_part"))
    assert TORCH_TENSORRT.requirements() == [
        "torch_tensorrt does not import (No module named 'numpy.no_such_part'); "
        f"pip install {package('torch-tensorrt')} in an environment of its own"
    ]
    monkeypatch.setattr(torch_tensorrt, "library", lambda: exec("raise AssertionError('no CUDA')"))
    assert TORCH_TENSORRT.requirements()[0].startswith("torch_tensorrt does not import (no CUDA); pip install ")


@pytest.fixture(scope="module")
def real() -> Iterator[Any]:
    """Import torch_tensorrt over TensorRT for RTX, with a GPU of 8.9 as CUDA's answer; or skip."""
    card = SimpleNamespace(major=8, minor=9, name="none", total_memory=8 << 30)
    answers = {
        "get_device_capability": (8, 9),
        "get_device_properties": card,
        "current_device": 0,
        "device_count": 1,
        "mem_get_info": (8 << 30, 8 << 30),
    }
    with pytest.MonkeyPatch.context() as patch:
        if not torch.cuda.is_available():
            for name, answer in answers.items():
                patch.setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
            patch.setattr(torch._C, "_CudaDeviceProperties", type("P", (), {}), raising=False)
            isfile = os.path.isfile  # its C++ runtime links against CUDA; what is built here runs without
            patch.setattr(os.path, "isfile", lambda f: "libtorchtrt" not in str(f) and isfile(f))
        try:
            module = torch_tensorrt.library()
            trt = importlib.import_module("tensorrt")
        except Exception as e:
            pytest.skip(f"torch_tensorrt does not import: {e}")
        if trt.__name__ != "tensorrt_rtx":
            pytest.skip("TensorRT builds on a GPU only; TensorRT for RTX anywhere")
        patch.setattr(tensorrt, "gpu_capability", lambda: "8.9")
        with anywhere(patch, trt):
            yield module


@contextlib.contextmanager
def anywhere(patch: pytest.MonkeyPatch, trt: Any) -> Iterator[None]:
    """Build for 8.9 instead of for the GPU that is here, and do not load what was built."""
    create = trt.Builder.create_builder_config

    def config(builder: Any) -> Any:
        builder_config = create(builder)
        builder_config.num_compute_capabilities = 1
        builder_config.set_compute_capability(trt.ComputeCapability.SM89, 0)
        return builder_config

    class Runtime:
        def __init__(self, logger: Any) -> None: ...

        def deserialize_cuda_engine(self, data: Any) -> Any:
            ignored = SimpleNamespace(set_flag=lambda _: None, clear_flag=lambda _: None)
            return SimpleNamespace(
                create_serialization_config=lambda: ignored,
                serialize_with_config=lambda _: bytes(data),
                serialize=lambda: bytes(data),
            )

    patch.setattr(trt.Builder, "create_builder_config", config)
    patch.setattr(trt, "Runtime", Runtime)
    yield


def test_the_double_has_the_signature_of_the_library(real: Any) -> None:
    signature = inspect.signature(real.dynamo.convert_exported_program_to_serialized_trt_engine).parameters
    double = inspect.signature(TorchTensorRT().convert).parameters
    assert {n: p.kind for n, p in double.items()}.items() <= {n: p.kind for n, p in signature.items()}.items()
    assert signature["attn_bias_is_causal"].default is True


@pytest.mark.model
@pytest.mark.parametrize("dtype", TORCH_TENSORRT.types)
@pytest.mark.parametrize("name", demo.BLOCKS)
def test_the_library_builds_every_block_of_the_demo_model(name: str, dtype: str, real: Any, tmp_path: Path) -> None:
    block = replace(demo.BLOCKS[name], weights=dtype)
    graph = passes.fork(demo.demo())
    weights_file = tmp_path / weights.file_name(dtype)
    weights.write_type(weights.collect(graph), weights_file, dtype)
    passes.run(passes.pipeline(block, demo.CAPACITY), graph)
    file = tmp_path / f"{name}.ttrt"
    built = TORCH_TENSORRT.build(graph, block, weights_file, "", file)
    assert 1 << 16 < file.stat().st_size < weights_file.stat().st_size  # the weights are not in there
    assert (tmp_path / built.commit).stat().st_size and built.needs["compute_capability"] == "8.9"
