"""Blocks as TensorRT engines, by TensorRT's own parser of the portable ONNX graphs.

TensorRT and TensorRT for RTX are one code: the module is an argument. The latter builds for any GPU, without one.
Weights are inputs, so that all engines share one copy in the GPU's memory; caches are updated in place. Attention must
fuse; where it cannot, the engine is built with attention taken apart, and a warning says so.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import onnx_ir as ir
from torch.fx import GraphModule

from specc.backends import DEFAULT, Built, Options, onnx
from specc.backends.commit_graph import commit, moves
from specc.backends.export import read_header
from specc.runtime.block import Block
from specc.runtime.environment import cache_directory
from specc.runtime.errors import BackendError, SpeccWarning

if TYPE_CHECKING:
    from tensorrt_rtx import (
        Builder,
        ComputeCapability,
        IAttention,
        IAttentionInputLayer,
        IBuilderConfig,
        INetworkDefinition,
        Library,
    )


@dataclass(frozen=True)
class TensorRT:
    """module: the Python package. anywhere: whether it builds for a GPU that is not here."""

    name: str
    module: str
    suffix: str
    anywhere: bool
    types: tuple[str, ...] = ("fp16", "bf16")

    def requirements(self) -> list[str]:
        """What is missing here."""
        try:
            importlib.import_module(self.module)
        except ModuleNotFoundError:
            return [f"{self.module} is not installed; pip install specc[{self.name}]"]
        except (ImportError, OSError) as e:
            return [f"{self.module} does not import ({e}); pip install specc[{self.name}]"]
        if self.anywhere or here():
            return []
        return [f"{self.module} builds on the GPU that it builds for, and here is none; take --backend tensorrt-rtx"]

    def build(
        self, graph: GraphModule, block: Block, weights: Path, prefix: str, file: Path, options: Options = DEFAULT
    ) -> Built:
        """Write the engine, and the one that keeps its rows if they may lie in any slots. Raises BackendError."""
        if options.lowering == "fast":
            raise BackendError(f"backend {self.name} reads standard operators only; take --lowering portable")
        model = onnx.translate(graph, block, "portable", rows=moves(block))
        if not options.weights_inside:
            take_in(model, weights, prefix)
        inputs, outputs = onnx.tensors(model)
        kit = Kit(self, options.compute_capability)
        fused = kit.write(model, file)
        needs = kit.needs if fused else kit.needs | {"attention": "unfused"}
        if not moves(block):
            return Built(inputs, outputs, needs)
        commit_file = file.with_suffix(f".commit{file.suffix}")
        kit.write(commit(inputs, block.slots, from_rows=True), commit_file)
        return Built(inputs, outputs, needs, commit_file.name)


TENSORRT = TensorRT("tensorrt", "tensorrt", ".trt", anywhere=False)
RTX = TensorRT("tensorrt-rtx", "tensorrt_rtx", ".trtrtx", anywhere=True)


def take_in(model: ir.Model, weights: Path, prefix: str) -> None:
    """Make inputs of the initializers that the weights file holds, of the same names."""
    held, _ = read_header(weights)
    for name, value in list(model.graph.initializers.items()):
        if prefix + name in held:
            del model.graph.initializers[name]
            value.const_value = None
            model.graph.inputs.append(value)


class Kit:
    """TensorRT's builder for one GPU. `needs`: what must be here to load what it makes."""

    def __init__(self, backend: TensorRT, compute_capability: str | None) -> None:
        self.name = backend.name
        self.trt: Library = importlib.import_module(backend.module)
        wanted = compute_capability or here()
        if wanted is None:
            raise BackendError("here is no GPU to build for; name one, such as --compute-capability 8.9")
        if not backend.anywhere and wanted != here():
            raise BackendError(
                f"{self.name} builds for the GPU that is here ({here()}), not for compute capability {wanted}; "
                "take --backend tensorrt-rtx, or build there"
            )
        self.target = self._capability(wanted) if backend.anywhere else None
        self.needs = {backend.module: str(self.trt.__version__), "compute_capability": wanted}

    def _capability(self, wanted: str) -> ComputeCapability:
        known = {
            f"{int(n[2:]) // 10}.{int(n[2:]) % 10}": value
            for n, value in self.trt.ComputeCapability.__members__.items()
            if re.fullmatch(r"SM\d+", n)
        }
        if wanted not in known:
            raise BackendError(f"{self.name} {self.trt.__version__} has no {wanted!r}; it has {', '.join(known)}")
        return known[wanted]

    def write(self, model: ir.Model, file: Path) -> bool:
        """Build `file`; return whether its attention is fused (or has none). Raises BackendError."""
        data = ir.to_proto(model).SerializeToString()
        made, said = self.build(data, decomposable=False)
        fused = made is not None
        if not fused and any(node.op_type == "Attention" for node in model.graph):
            made, _ = self.build(data, decomposable=True)
            why = said.partition(" (See")[0]
            told = f"{file.name}: attention does not fuse and is taken apart, which is slow: {why.strip()}"
            warnings.warn(told, SpeccWarning, stacklevel=2)
        if made is None:
            raise BackendError(f"{self.name} cannot build {file.name}: {said}; take another --backend for this model")
        file.write_bytes(made)
        return fused

    def network(self, data: bytes, log: Any) -> tuple[Builder, INetworkDefinition]:
        """The builder and the network that the parser makes of a graph. Raises BackendError in the parser's words."""
        builder = self.trt.Builder(log)
        network = builder.create_network(0)
        parser = self.trt.OnnxParser(network, log)
        if not parser.parse(data):
            errors = [parser.get_error(i) for i in range(parser.num_errors)]
            told = "; ".join(f"{e.node_operator()} at {e.node_name()}: {e.desc()}" for e in errors) or log.last
            told = told.replace("\n", " ")
            raise BackendError(f"{self.name} cannot read the graph: {told}; take another --backend for this model")
        return builder, network

    def build(self, data: bytes, decomposable: bool) -> tuple[bytes | None, str]:
        """The engine, or None and the last error."""
        log = listener(self.trt)
        builder, network = self.network(data, log)
        for attention in attentions(self.trt, network):
            attention.decomposable = decomposable
        config = builder.create_builder_config()
        timing = self._timing(config)
        if self.target is not None:
            config.num_compute_capabilities = 1
            config.set_compute_capability(self.target, 0)
        with silent():
            engine = builder.build_serialized_network(network, config)
        if engine is None:
            return None, log.last
        if timing:
            timing.write_bytes(bytes(config.get_timing_cache().serialize()))
        return bytes(engine), ""

    def _timing(self, config: IBuilderConfig) -> Path | None:
        """Measurements of kernels, kept on this machine. RTX measures none."""
        if self.trt.__name__ == "tensorrt_rtx":
            return None
        try:
            file = cache_directory("timing", f"{self.name}-{self.trt.__version__}-{here()}") / "timing.cache"
        except OSError:
            return None
        held = file.read_bytes() if file.exists() else b""
        config.set_timing_cache(config.create_timing_cache(held), False)
        return file


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without what the library writes to standard error itself, beside what it tells its logger."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def attentions(trt: Library, network: INetworkDefinition) -> list[IAttention]:
    """The network's attention layers."""
    found = []
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = trt.IAttentionInputLayer  # the bindings return every layer as an ILayer
            found.append(cast("IAttentionInputLayer", layer).attention)
    return found


def listener(trt: Library) -> Any:
    """A logger that keeps the last error and prints nothing."""
    logger: Any = trt.ILogger

    class Listener(logger):  # type: ignore[misc]
        last = "the library gave no reason"

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last = message.replace("\n", " ")

    return Listener()


def here() -> str | None:
    """The compute capability of the GPU that is here, as the driver says."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None
