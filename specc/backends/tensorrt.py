"""Build blocks as TensorRT engines, by TensorRT's own parser of the portable ONNX graphs.

TensorRT and TensorRT for RTX are one code, with the Python package as a parameter. TensorRT for RTX builds for any GPU
and needs none. Weights are inputs, so that all engines share one copy in the GPU's memory. Caches are updated in place.
Attention must fuse; where it cannot, the engine is built with attention taken apart, and a warning says so.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import onnx_ir as ir
from torch.fx import GraphModule

from specc.backends import DEFAULT, Backend, Built, Options, onnx
from specc.backends.commit_graph import commit, moves
from specc.machine import ask_driver
from specc.runtime.block import Block
from specc.runtime.disk_cache import cache_directory
from specc.runtime.engines.mapped_weights import read_header
from specc.runtime.engines.tensorrt_library import listener, named_capabilities, without_name
from specc.runtime.errors import BackendError, SpeccWarning
from specc.runtime.extras import package

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
class TensorRT(Backend):
    """A backend over one of TensorRT's Python packages.

    Attributes:
        name: The backend's name.
        module: The Python package.
        suffix: The suffix of its engines' files.
        anywhere: Whether it builds for a GPU that this machine does not have.
        types: The types of weights that it builds.
    """

    name: str
    module: str
    suffix: str
    anywhere: bool
    types: tuple[str, ...] = ("fp16", "bf16")

    def requirements(self) -> list[str]:
        """Return what is missing: the package, or the GPU to build on."""
        try:
            importlib.import_module(self.module)
        except (ImportError, OSError) as e:
            if is_missing_package(e):
                return [f"{self.module} is not installed; pip install {package(self.name)}"]
            return [f"{self.module} does not import ({e}); pip install {package(self.name)}"]
        return [] if self.anywhere or gpu_capability() else [no_gpu(self.module)]

    def check_block(self, block: Block, options: Options = DEFAULT) -> None:
        """Refuse a lowering of the user's, and a GPU that the library does not build for. Raises BackendError."""
        self._builder(options)

    def build(
        self, graph: GraphModule, block: Block, weights: Path, prefix: str, file: Path, options: Options = DEFAULT
    ) -> Built:
        """Write the engine, and the one that commits its rows if they may be moved.

        Raises:
            BackendError: TensorRT cannot build the graph, or the user asked for another lowering or another GPU.
        """
        builder = self._builder(options)
        model = onnx.translate(graph, block, "portable", rows=moves(block))
        if not options.weights_inside:
            make_weights_inputs(model, weights, prefix)
        inputs, outputs = onnx.tensors(model)
        is_fused = builder.write(model, file)
        needs = builder.needs if is_fused else builder.needs | {"attention": "unfused"}
        if not moves(block):
            return Built(inputs, outputs, needs)
        commit_file = file.with_suffix(f".commit{file.suffix}")
        builder.write(commit(inputs, block.slots, from_rows=True), commit_file)
        return Built(inputs, outputs, needs, commit_file.name)

    def _builder(self, options: Options) -> EngineBuilder:
        """Return a builder of engines. Raises BackendError as `check_block` does."""
        if options.lowering == "fast":
            raise BackendError(f"backend {self.name} reads standard operators only; take --lowering portable")
        return EngineBuilder(self, options.compute_capability)


TENSORRT = TensorRT(name="tensorrt", module="tensorrt", suffix=".trt", anywhere=False)
RTX = TensorRT(name="tensorrt-rtx", module="tensorrt_rtx", suffix=".trtrtx", anywhere=True)


def no_gpu(module: str) -> str:
    """Return the error of a library that needs the GPU that it builds for."""
    return f"{module} builds only on the GPU that it builds for, and this machine has none; take --backend tensorrt-rtx"


def make_weights_inputs(model: ir.Model, weights: Path, prefix: str) -> None:
    """Turn the initializers that the weights file holds into inputs of the same names."""
    stored, _ = read_header(weights)
    for name, value in list(model.graph.initializers.items()):
        if prefix + name in stored:
            del model.graph.initializers[name]
            value.const_value = None
            model.graph.inputs.append(value)


class EngineBuilder:
    """A builder of engines for one GPU.

    Attributes:
        needs: What must be there to load its engines: the library's version, and the GPU's compute capability.
    """

    def __init__(self, backend: TensorRT, compute_capability: str | None) -> None:
        """Find the GPU to build for.

        Raises:
            BackendError: There is no GPU to build for, or the library cannot build for the one that was asked for.
        """
        self.name = backend.name
        self.trt: Library = importlib.import_module(backend.module)
        capability = compute_capability or gpu_capability()
        if capability is None:
            raise BackendError("this machine has no GPU to build for; name one, such as --compute-capability 8.9")
        if not backend.anywhere and capability != gpu_capability():
            raise BackendError(
                f"{self.name} builds for the GPU of this machine ({gpu_capability()}), not for compute capability "
                f"{capability}; take --backend tensorrt-rtx, or build on a machine with that GPU"
            )
        self.target = self._target(capability) if backend.anywhere else None
        self.needs = {backend.module: str(self.trt.__version__), "compute_capability": capability}

    def _target(self, capability: str) -> ComputeCapability:
        """Return the library's own name for a compute capability such as "8.9".

        The GPU of this machine may be newer than all names; it is then called the current one.

        Raises:
            BackendError: The library has no name for it.
        """
        by_capability = named_capabilities(self.trt)
        if capability in by_capability:
            return by_capability[capability]
        here = capability == gpu_capability()
        if here and not without_name(self.trt, capability):
            return self.trt.ComputeCapability.__members__["CURRENT"]
        choices = ", ".join(by_capability)
        remedy = "take another --backend for this GPU, such as onnx" if here else "name one of them"
        raise BackendError(f"{self.name} {self.trt.__version__} has no {capability!r}; it has {choices}; {remedy}")

    def write(self, model: ir.Model, file: Path) -> bool:
        """Build a model and write its engine.

        Returns:
            Whether its attention is fused, or it has none.

        Raises:
            BackendError: The library cannot read or build the model.
        """
        data = ir.to_proto(model).SerializeToString()
        engine, error = self.build(data, decomposable=False)
        is_fused = engine is not None
        if not is_fused and any(node.op_type == "Attention" for node in model.graph):
            engine, _ = self.build(data, decomposable=True)
            reason = error.partition(" (See")[0].strip()
            message = f"{file.name}: attention does not fuse and is taken apart, which is slow: {reason}"
            warnings.warn(message, SpeccWarning, stacklevel=2)
        if engine is None:
            raise BackendError(f"{self.name} cannot build {file.name}: {error}; take another --backend for this model")
        file.write_bytes(engine)
        return is_fused

    def network(self, data: bytes, log: Any) -> tuple[Builder, INetworkDefinition]:
        """Parse a serialised ONNX model.

        Returns:
            The builder and the network. The network lives as long as its builder.

        Raises:
            BackendError: The parser refuses the model; the message is in the parser's words.
        """
        builder = self.trt.Builder(log)
        network = builder.create_network(0)
        parser = self.trt.OnnxParser(network, log)
        if not parser.parse(data):
            errors = [parser.get_error(i) for i in range(parser.num_errors)]
            reasons = "; ".join(f"{e.node_operator()} at {e.node_name()}: {e.desc()}" for e in errors) or log.last
            reasons = reasons.replace("\n", " ")
            raise BackendError(f"{self.name} cannot read the graph: {reasons}; take another --backend for this model")
        return builder, network

    def build(self, data: bytes, decomposable: bool) -> tuple[bytes | None, str]:
        """Build a serialised ONNX model.

        Args:
            data: The model.
            decomposable: Whether attention may be taken apart where it does not fuse.

        Returns:
            The engine and an empty string; or None and the library's last error.
        """
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
        """Load this machine's measurements of kernels into a config.

        Returns:
            The file to write them to after a build; None if they cannot be kept, or for RTX, which measures nothing.
        """
        if self.trt.__name__ == "tensorrt_rtx":
            return None
        try:
            directory = cache_directory("timing", f"{self.name}-{self.trt.__version__}-{gpu_capability()}")
        except OSError:
            return None
        file = directory / "timing.cache"
        measurements = file.read_bytes() if file.exists() else b""
        config.set_timing_cache(config.create_timing_cache(measurements), False)
        return file


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Discard what the library writes to standard error itself. Its logger still gets every message."""
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def attentions(trt: Library, network: INetworkDefinition) -> list[IAttention]:
    """Return the network's attention layers."""
    layers = []
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = trt.IAttentionInputLayer  # the bindings return every layer as an ILayer
            layers.append(cast("IAttentionInputLayer", layer).attention)
    return layers


def is_missing_package(error: BaseException) -> TypeGuard[ModuleNotFoundError]:
    """Tell whether an import failed since a package is not installed, and not since one lacks a part of it."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return False
    try:
        return importlib.util.find_spec(error.name.partition(".")[0]) is None
    except ValueError:  # It is imported already, and does not say from where.
        return False


def gpu_capability() -> str | None:
    """Return the compute capability of this machine's first GPU, such as "8.9", by its driver; None without one."""
    return next(iter(ask_driver("compute_cap")), None)
