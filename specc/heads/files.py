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

from specc.heads.checks import check_config, check_numbers, fit_weights
from specc.heads.config_file import CONFIG, check_regular, pickle_error, read_object
from specc.heads.head import Head, HeadConfig
from specc.runtime.errors import CODE_ERRORS, BundleError, HeadError, first_line
from specc.runtime.json_codec import BUNDLE_REMEDY, check_plain, from_json, to_json

WEIGHTS = "model.safetensors"
REMEDY = "train the head again"
GROUP = 64  # columns that share a scale
SCALES = ".scales"
LARGEST = 127
PARTIAL, OLD = ".partial", ".old"  # endings of directories that come and go


def digest(embedding: Tensor) -> str:
    """Return 16 hexadecimal digits that tell a model by its embedding table."""
    rows = embedding.detach().cpu().float().contiguous()
    return hashlib.sha256(rows.numpy().data.cast("B")).hexdigest()[:16]


def replace_directory(partial: Path, directory: Path) -> None:
    """Rename a directory to the name of another, which stays until then. If that fails, the other one is there again.

    Args:
        partial: the directory that is complete.
        directory: the name that it gets.
    """
    old = directory.with_name(f".{directory.name}{OLD}")
    rights = partial.stat().st_mode & 0o666  # safetensors lets nobody but the owner read what it writes
    for file in partial.rglob("*"):
        if file.is_file():
            file.chmod(rights)
    try:
        if directory.exists():
            shutil.rmtree(old, ignore_errors=True)
            directory.rename(old)
        os.replace(partial, directory)
    except BaseException:  # a signal, too
        if old.exists() and not directory.exists():
            old.rename(directory)
        raise
    shutil.rmtree(old, ignore_errors=True)


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
        replace_directory(partial, directory)
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
    config_file, weights_file = directory / CONFIG, directory / WEIGHTS
    if not config_file.exists() or not weights_file.exists():
        raise _not_a_head(directory)
    check_regular(weights_file, REMEDY)
    config = _read_config(config_file)
    check_config(config, config_file, REMEDY)
    try:
        stored = load_file(weights_file)
    except (OSError, *CODE_ERRORS, SafetensorError, RuntimeError) as e:
        raise HeadError(f"{weights_file} cannot be read: {first_line(e)}; {REMEDY}") from e
    head = fit_weights(config, _restored(stored, weights_file), weights_file, REMEDY)
    return head.eval().requires_grad_(False)


def is_own(directory: Path) -> bool:
    """Tell whether a directory's config.json is that of a head which 'specc train' wrote."""
    try:
        return {"architecture", "target"} <= read_object(directory / CONFIG, REMEDY).keys()
    except HeadError:
        return False


def _not_a_head(directory: Path) -> HeadError:
    """Say why a directory is no head."""
    if not directory.is_dir():
        return HeadError(f"there is no head at {directory}; make one with: specc train MODEL --recipe eagle3 -o DIR")
    return pickle_error(directory) or HeadError(
        f"{directory} has no {CONFIG} and {WEIGHTS}; name a directory that 'specc train' wrote"
    )


def _read_config(file: Path) -> HeadConfig:
    remedy = "name a directory that 'specc train' wrote"
    data = read_object(file, remedy)
    try:
        check_plain(data, str(file))
        return from_json(HeadConfig, data, str(file))
    except BundleError as e:
        reason = str(e).removesuffix(BUNDLE_REMEDY)  # A head is no bundle.
        raise HeadError(f"{reason}; {remedy}") from e


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


def _restored(stored: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Return tensors as a head computes with them.

    Raises:
        HeadError: a matrix in 8 bits has no scales that fit it.
    """
    weights: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if tensor.dtype == torch.int8:
            scales = _scales(stored, name, file).float().repeat_interleave(GROUP, 1)
            weights[name] = tensor * scales[:, : tensor.shape[1]]
        elif not (name.endswith(SCALES) and name.removesuffix(SCALES) in stored):
            weights[name] = tensor.float() if tensor.is_floating_point() else tensor
    return weights


def _scales(stored: Mapping[str, Tensor], name: str, file: Path) -> Tensor:
    """Return the scales of a matrix in 8 bits, [rows, groups]. Raises HeadError if it is none, or they do not fit."""
    matrix = stored[name]
    if matrix.ndim != 2:
        raise HeadError(f"{file} has {name} in 8 bits and of shape {list(matrix.shape)}; only matrices are; {REMEDY}")
    shape, scales = [matrix.shape[0], -(-matrix.shape[1] // GROUP)], stored.get(name + SCALES)
    if scales is None or list(scales.shape) != shape:
        state = "no scales" if scales is None else f"scales of shape {list(scales.shape)}"
        raise HeadError(
            f"{file} has {name} in 8 bits with {state}; it needs {name + SCALES} of shape {shape}; {REMEDY}"
        )
    check_numbers(scales, name + SCALES, file, REMEDY, whole=False)
    return scales


def _quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return whole numbers [rows, columns] int8, and scales [rows, groups] bf16."""
    columns = weight.shape[1]
    padded = torch.nn.functional.pad(weight, (0, -columns % GROUP))
    groups = torch.unflatten(padded, 1, (-1, GROUP))
    scales = (groups.abs().amax(-1) / LARGEST).clamp(min=1e-12).bfloat16()
    numbers = (groups / scales.float()[..., None]).round().clamp(-LARGEST, LARGEST).to(torch.int8)
    return numbers.flatten(1)[:, :columns].contiguous(), scales
