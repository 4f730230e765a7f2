"""The directory of a head: config.json, model.safetensors, card.json and README.md.

A matrix is stored in bf16, or in 8 bits: whole numbers, and one scale for each group of columns of a row.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from specc.bounded_read import read_bounded
from specc.heads.architectures import build_head
from specc.heads.head import Head, HeadConfig
from specc.runtime.errors import BundleError, HeadError, first_line
from specc.runtime.json_codec import from_json, to_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
GROUP = 64  # columns that share a scale
SCALES = ".scales"
LARGEST = 127
PARTIAL = ".partial"


def digest(embedding: Tensor) -> str:
    """Return 16 hexadecimal digits that tell a model by its embedding table."""
    rows = embedding.detach().cpu().float().contiguous()
    return hashlib.sha256(rows.numpy().data.cast("B")).hexdigest()[:16]


def save_head(head: Head, directory: Path, texts: Mapping[str, str], bits: int = 16) -> None:
    """Write a head's directory. It appears whole or not at all, and replaces one that is there.

    Args:
        head: the head.
        directory: where it goes.
        texts: further files by name, such as card.json and README.md.
        bits: 16 stores matrices in bf16, 8 in whole numbers with a scale for every GROUP columns.
    """
    partial = directory.with_name(f".{directory.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        config = json.dumps(to_json(head.config), indent=2) + "\n"
        for name, text in {CONFIG: config, **texts}.items():
            (partial / name).write_text(text, encoding="utf-8")
        save_file(_stored(head.state_dict(), bits), partial / WEIGHTS)
        if directory.exists():
            shutil.rmtree(directory)
        os.replace(partial, directory)
    except SafetensorError as e:  # a full disk, among others
        raise HeadError(f"cannot write {directory}: {first_line(e)}; free some space, or choose another place") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_head(directory: Path) -> Head:
    """Load a head.

    Returns:
        The head in fp32 and evaluation mode. It has no embedding table yet.

    Raises:
        HeadError: the directory is missing or damaged, holds a pickle, or names an unknown architecture.
    """
    if not (directory / CONFIG).is_file() or not (directory / WEIGHTS).is_file():
        raise _not_a_head(directory)
    head = build_head(_read_config(directory / CONFIG))
    try:
        weights = _restored(load_file(directory / WEIGHTS))
        head.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError, KeyError) as e:
        raise HeadError(f"{directory / WEIGHTS} does not fit {CONFIG} ({first_line(e)}); train the head again") from e
    _check_vocabulary(head, directory)
    return head.eval().requires_grad_(False)


def is_own(directory: Path) -> bool:
    """Tell whether a directory's config.json is that of a head which 'specc train' wrote."""
    try:
        with (directory / CONFIG).open("rb") as opened:
            config = json.loads(read_bounded(opened, directory / CONFIG))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and {"architecture", "target"} <= config.keys()


def _not_a_head(directory: Path) -> HeadError:
    """Say why a directory is no head."""
    if not directory.is_dir():
        return HeadError(f"there is no head at {directory}; make one with: specc train MODEL --recipe eagle3 -o DIR")
    pickled = next((file for pattern in PICKLES for file in sorted(directory.glob(pattern))), None)
    if pickled:
        return HeadError(
            f"{directory} holds its weights as a pickle ({pickled.name}), which can run code; load it where you trust "
            "it, and write its tensors with safetensors.torch.save_file"
        )
    return HeadError(f"{directory} has no {CONFIG} and {WEIGHTS}; name a directory that 'specc train' wrote")


def _read_config(file: Path) -> HeadConfig:
    try:
        with file.open("rb") as opened:
            data = json.loads(read_bounded(opened, file))
        return from_json(HeadConfig, data, str(file))
    except (OSError, ValueError, RecursionError, BundleError) as e:
        raise HeadError(f"{file} cannot be read: {first_line(e)}; name a directory that 'specc train' wrote") from e


def _check_vocabulary(head: Head, directory: Path) -> None:
    """Check that the head's tokens are tokens of its model."""
    tokens, limit = head.vocabulary, head.config.target.vocab_size
    if tokens is not None and not 0 <= int(tokens.min()) <= int(tokens.max()) < limit:
        raise HeadError(f"{directory / WEIGHTS} names tokens outside 0..{limit - 1}; train the head again")


def _stored(weights: Mapping[str, Tensor], bits: int) -> dict[str, Tensor]:
    """Return tensors as they are written."""
    stored: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.ndim == 2 and bits == 8:
            stored[name], stored[name + SCALES] = _quantize(weight.float())
        elif weight.is_floating_point():
            stored[name] = weight.bfloat16().contiguous() if weight.ndim == 2 else weight.float().contiguous()
        else:
            stored[name] = weight.contiguous()
    return stored


def _restored(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as a head computes with them."""
    weights: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if tensor.dtype == torch.int8:
            scales = stored[name + SCALES].float().repeat_interleave(GROUP, 1)
            weights[name] = tensor * scales[:, : tensor.shape[1]]
        elif not name.endswith(SCALES):
            weights[name] = tensor.float() if tensor.is_floating_point() else tensor
    return weights


def _quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return whole numbers [rows, columns] int8, and scales [rows, groups] bf16."""
    columns = weight.shape[1]
    padded = torch.nn.functional.pad(weight, (0, -columns % GROUP))
    groups = torch.unflatten(padded, 1, (-1, GROUP))
    scales = (groups.abs().amax(-1) / LARGEST).clamp(min=1e-12).bfloat16()
    numbers = (groups / scales.float()[..., None]).round().clamp(-LARGEST, LARGEST).to(torch.int8)
    return numbers.flatten(1)[:, :columns].contiguous(), scales
