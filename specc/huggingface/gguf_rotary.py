"""Apply what a GGUF file says of rotary frequencies and transformers' reader leaves out.

llama.cpp writes the scaling of Llama 3.1 as a tensor of divisors, `rope_freqs.weight`, and other scalings as the keys
`rope.scaling.*` (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). A model without them decodes other tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from specc.runtime.errors import CaptureError

DIVISORS = "rope_freqs.weight"
LONG_FACTORS = "rope_factors_long.weight"
LINEAR = "linear"
ROTARY_SIZE = ".rope.dimension_count"
# What layers that see all rows turn by. Gemma 3 scales these alone, and has other frequencies for sliding windows.
FREQUENCIES = ("inv_freq", "original_inv_freq", "full_attention_inv_freq", "full_attention_original_inv_freq")


@dataclass(frozen=True, kw_only=True)
class RotaryScaling:
    """A scaling of rotary frequencies.

    Attributes:
        kind: the word of `rope.scaling.type`, such as "linear"; "" if the file holds divisors alone.
        divisors: numbers that divide the frequencies, [numbers that turn / 2] or [1]; None if the kind needs more.
    """

    kind: str
    divisors: np.ndarray | None


def read_scaling(readers: Iterable[Any]) -> RotaryScaling | None:
    """Read the scaling of a GGUF checkpoint.

    Args:
        readers: a reader of the package gguf for each file.

    Returns:
        None if the frequencies follow from the base frequency alone.
    """
    keys: dict[str, Any] = {}
    tensors: dict[str, Any] = {}
    for reader in readers:
        keys |= {name.partition(".")[2]: field for name, field in reader.fields.items() if ".rope.scal" in name}
        tensors |= {tensor.name: tensor for tensor in reader.tensors if tensor.name in (DIVISORS, LONG_FACTORS)}
    if LONG_FACTORS in tensors:
        return RotaryScaling(kind="longrope", divisors=None)
    if DIVISORS in tensors:
        return RotaryScaling(kind="", divisors=np.array(tensors[DIVISORS].data, np.float32))
    names = ("rope.scaling.factor", "rope.scale_linear")
    factor = next((float(keys[name].contents()) for name in names if name in keys), 1.0)
    kind = str(keys["rope.scaling.type"].contents()) if "rope.scaling.type" in keys else LINEAR
    if kind == "none" or factor in (0.0, 1.0):
        return None
    return RotaryScaling(kind=kind, divisors=np.array([factor], np.float32) if kind == LINEAR else None)


def read_rotary_size(readers: Iterable[Any]) -> int | None:
    """Read how many numbers of a head turn by their position; None if the checkpoint does not say."""
    fields = [field for reader in readers for name, field in reader.fields.items() if name.endswith(ROTARY_SIZE)]
    return int(fields[0].contents()) if fields else None


def apply_scaling(model: PreTrainedModel, scaling: RotaryScaling | None, source: str) -> None:
    """Divide a model's rotary frequencies, unless transformers has scaled them.

    Raises:
        CaptureError: the scaling is of a kind that the file does not describe in full.
    """
    if scaling is None or scaling.kind in _kinds(model):
        return
    if scaling.divisors is None:
        raise CaptureError(
            f"{source} scales its rotary frequencies by {scaling.kind}, which transformers does not read from GGUF, "
            "and its tokens would be others; compile the original checkpoint, with --dtype int4 for weights of 4 bits"
        )
    divisors = torch.from_numpy(scaling.divisors)
    for frequencies in _frequencies(model):
        frequencies.div_(divisors)


def check_rotary_size(model: PreTrainedModel, count: int | None, source: str) -> None:
    """Check that as many numbers of a head turn as a file says.

    Args:
        model: the loaded model.
        count: the file's `rope.dimension_count`; None if it has none.
        source: the file, for the message.

    Raises:
        CaptureError: other numbers turn, as where transformers takes a default for a key that it does not read.
    """
    counts = {2 * frequencies.shape[-1] for frequencies in _frequencies(model)}
    if count and counts and count not in counts:
        raise CaptureError(
            f"{source} turns {count} numbers of each head by their position, and the model that transformers made of "
            f"it turns {max(counts)}; compile the original checkpoint, with --dtype int4 for weights of 4 bits"
        )


def _frequencies(model: PreTrainedModel) -> list[torch.Tensor]:
    """Return the frequencies of layers that see all rows."""
    return [
        buffer
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name in FREQUENCIES
    ]


def _kinds(model: PreTrainedModel) -> set[str]:
    """Return the kinds of scaling that a model's configuration names."""
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    return {str(r.get("rope_type")) for r in (rope, *rope.values()) if isinstance(r, dict)}
