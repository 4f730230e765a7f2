"""TensorRT whose engines are Python functions of the memory of a FakeCuda."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from .cuda import STREAM, FakeCuda
from .recorder import Recorder, installed

# By the name of a tensor: the input that it aliases, or "".
Aliases = dict[str, str]
# What an engine does to its tensors, by name.
Function = Callable[[dict[str, np.ndarray]], None]
OUTPUT = re.compile(r"ids|rows|present|output")  # begins an output's name, except the rows that a commit engine reads


class ILogger:
    """A double of trt.ILogger."""

    Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    def log(self, severity: int, message: str) -> None:
        """Take a message."""


class FakeTensorRT:
    """A double of the module tensorrt_rtx.

    Attributes:
        engines: by a file's content, the engine that it holds.
        scratch: bytes of scratch memory that an engine asks for.
        capturable: whether launches can be captured.
        refusal: what it logs when it cannot load a file.
    """

    __name__, __version__ = "tensorrt_rtx", "1.7"

    def __init__(self, gpu: FakeCuda, engines: dict[bytes, tuple[Aliases, Function]], scratch: int = 64) -> None:
        nothing = SimpleNamespace(Runtime=None, ICudaEngine=None, IExecutionContext=None)
        real = installed("tensorrt_rtx") or nothing
        self.real, self.gpu, self.engines, self.scratch = real, gpu, engines, scratch
        self.capturable, self.refusal = True, "Error Code 1: Serialization (the magic tag does not match)"
        self.ILogger = ILogger
        self.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED=2)
        self.TensorIOMode = SimpleNamespace(INPUT=SimpleNamespace(name="INPUT"), OUTPUT=SimpleNamespace(name="OUTPUT"))
        if real.Runtime is not None:
            assert all(hasattr(real.ILogger.Severity, name) for name in vars(ILogger.Severity))
            assert hasattr(real.ICudaEngine, "device_memory_size_v2")
            assert all(hasattr(real.TensorIOMode, name) for name in vars(self.TensorIOMode))

    def Runtime(self, logger: ILogger) -> Any:
        self.logger = logger
        return Recorder(self.gpu.calls, self.real.Runtime, {"deserialize_cuda_engine": self._engine})

    def _engine(self, data: bytes) -> Any:
        if data not in self.engines:
            self.logger.log(ILogger.Severity.ERROR, self.refusal)
            self.logger.log(ILogger.Severity.WARNING, "a warning")
            return None
        aliases, function = self.engines[data]
        mode = self.TensorIOMode
        engine: Any = Recorder(
            self.gpu.calls,
            self.real.ICudaEngine,
            {
                "create_execution_context": lambda strategy: self._context(function),
                "get_tensor_name": lambda i: [*aliases][i],
                "get_aliased_input_tensor": lambda name: aliases[name],
                "get_tensor_mode": lambda name: mode.OUTPUT if OUTPUT.match(name) else mode.INPUT,
            },
        )
        engine.num_io_tensors, engine.device_memory_size_v2 = len(aliases), self.scratch
        return engine

    def _context(self, function: Function) -> Recorder:
        addresses: dict[str, int] = {}
        scratch: list[int] = []

        def set_address(name: str, address: int) -> bool:
            addresses[name] = address
            return True

        def launch() -> None:
            function({name: self.gpu.memory[address] for name, address in addresses.items()})

        def execute(stream: int) -> bool:
            assert stream == STREAM and scratch and scratch[-1] in self.gpu.memory, "scratch memory was freed"
            if self.gpu.captured is None:
                launch()
            elif not self.capturable:
                return False
            else:
                self.gpu.captured.append(launch)
            return True

        return Recorder(
            self.gpu.calls,
            self.real.IExecutionContext,
            {
                "set_input_shape": lambda name, shape: True,
                "set_tensor_address": set_address,
                "infer_shapes": list,
                "set_device_memory": lambda address, size: scratch.append(address),
                "execute_async_v3": execute,
            },
        )
