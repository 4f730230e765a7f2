"""Widen checkpoints whose weights were stored in few bits, where a kept library does so on a CPU.

transformers reads the `quantization_config` of a checkpoint and calls the library of its method. specc asks it to
return ordinary weights. Methods whose libraries need a GPU or a build of their own are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from transformers import PreTrainedModel

from specc.runtime.errors import CaptureError


@dataclass(frozen=True, kw_only=True)
class Widening:
    """A way to turn the weights of one quantisation method into ordinary ones.

    Args:
        package: the module that must be installed, "" for transformers alone.
        install: the name of that package on the index.
        arguments: keyword arguments for `from_pretrained`, from the checkpoint's own `quantization_config`.
        after: whether the loaded model still has to be widened by `PreTrainedModel.dequantize`.
    """

    package: str = ""
    install: str = ""
    arguments: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda config: {}
    after: bool = False


def _with_dequantize(config: Mapping[str, Any]) -> dict[str, Any]:
    """Ask transformers' configuration class of this method for ordinary weights."""
    from transformers.quantizers.auto import AutoQuantizationConfig

    choice = AutoQuantizationConfig.from_dict(dict(config))
    choice.dequantize = True
    return {"quantization_config": choice}


WIDENINGS: Mapping[str, Widening] = {
    "compressed-tensors": Widening(
        package="compressed_tensors", install="compressed-tensors", arguments=_with_dequantize
    ),
    "fp8": Widening(arguments=_with_dequantize),
    "mxfp4": Widening(arguments=_with_dequantize),
    "bitsandbytes": Widening(package="bitsandbytes", install="bitsandbytes", after=True),
}


def widening(source: str, config: Mapping[str, Any]) -> Widening:
    """Choose how to widen a checkpoint, before any weight is read.

    Args:
        source: the model's name, for the message.
        config: the checkpoint's `quantization_config`.

    Raises:
        CaptureError: no kept library widens the method on a CPU, or the library is not installed.
    """
    method = str(config.get("quant_method") or ("bitsandbytes" if config.get("load_in_4bit") else "an unknown method"))
    choice = WIDENINGS.get(method)
    if choice is None:
        raise CaptureError(
            f"{source} is quantised by {method}, and no kept library widens that on a CPU "
            f"(specc widens {', '.join(sorted(WIDENINGS))} and GGUF); compile the original checkpoint, "
            "with --dtype int4 for weights of 4 bits"
        )
    if choice.package and find_spec(choice.package) is None:
        raise CaptureError(
            f"{source} is quantised by {method}; {choice.install} widens it and is not installed: "
            f"pip install {choice.install}"
        )
    return choice


def describe_rounding(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the manifest says of a quantised checkpoint: its method and number of bits, where it states them."""
    bits = config.get("bits") or (4 if config.get("load_in_4bit") else 8 if config.get("load_in_8bit") else None)
    return {"method": config.get("quant_method", "unknown"), **({"bits": bits} if bits else {})}


def widen_loaded(model: PreTrainedModel, choice: Widening) -> PreTrainedModel:
    """Widen a model that its library keeps in few bits until asked."""
    if not choice.after:
        return model
    untyped: Any = model
    widened: PreTrainedModel = untyped.dequantize()
    return widened
