"""A double of torch_tensorrt, with the part of its signature that is called. Its engines are a few bytes."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any


class TorchTensorRT(ModuleType):
    """A module that records what it is to build.

    Attributes:
        requests: the program, the inputs and the kind of attention mask of each build.
    """

    __version__ = "2.13.0"

    def __init__(self) -> None:
        super().__init__("torch_tensorrt")
        self.requests: list[dict[str, Any]] = []
        self.dynamo = SimpleNamespace(convert_exported_program_to_serialized_trt_engine=self.convert)

    class Input:
        """An input's shape and type."""

        def __init__(self, shape: Any = None, dtype: Any = None) -> None:
            self.shape, self.dtype = shape, dtype

    def convert(
        self,
        exported_program: Any,
        inputs: Any = None,
        *,
        arg_inputs: Any = None,
        require_full_compilation: bool = False,
        attn_bias_is_causal: bool = True,
    ) -> bytes:
        self.requests.append({"program": exported_program, "inputs": arg_inputs, "causal": attn_bias_is_causal})
        return b"engine"
