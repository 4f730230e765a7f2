"""The state of a training on disk, in safetensors. It is written whole, and replaces the one before."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from specc.huggingface.tied import first_names
from specc.runtime.errors import HeadError, SpeccWarning, first_line
from specc.training import processes
from specc.training.device import current_device
from specc.training.finite import are_finite

PARTIAL = ".partial"
MOST = 1 << 40  # of what a training counts; a larger number would not fit a seed
MOMENTS = {"step", "exp_avg", "exp_avg_sq"}  # that AdamW keeps of a parameter


@dataclass(kw_only=True)
class Progress:
    """How far a training has come.

    Attributes:
        updates: updates of the weights.
        tokens: tokens of text that were trained on, each once an epoch.
        seconds: time that the updates took.
        epoch: the number of the epoch.
        batch: batches of this epoch that are done.
        best: the best tokens a step on held-out text so far.
        best_update: the update after which that was.
        losses: mean losses at each depth, by the update that they end with.
        acceptances: tokens a step of the chain on held-out text, by update.
        by_source: those on the held-out text of each source, by source and update.
    """

    updates: int = 0
    tokens: int = 0
    seconds: float = 0.0
    epoch: int = 0
    batch: int = 0
    best: float = 0.0
    best_update: int = 0
    losses: dict[str, list[float]] = field(default_factory=dict)
    acceptances: dict[str, float] = field(default_factory=dict)
    by_source: dict[str, dict[str, float]] = field(default_factory=dict)


def save_checkpoint(
    file: Path, head: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, settings: dict[str, Any]
) -> None:
    """Write the head, the optimizer's moments and the progress. A tensor of several names is written once.

    Args:
        file: the checkpoint.
        head: the head, or the layers of a draft model.
        optimizer: AdamW, with one group a parameter, in the order of `head.named_parameters()`.
        progress: how far the training has come.
        settings: what a training that resumes must have in common with this one.

    Raises:
        HeadError: a number is not finite, or the file cannot be written. The file before stays.
    """
    state = head.state_dict()
    tensors = {f"head.{name}": state[name].contiguous() for name in set(first_names(state).values())}
    for name, parameter in head.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer.{name}.{key}"] = value.contiguous()
    if not are_finite(tensors.values()):
        raise HeadError(
            f"weights after update {progress.updates} are not finite numbers and are not saved; train again with a "
            "lower --learning-rate"
        )
    _check_place(file)
    partial = file.with_name(file.name + PARTIAL)
    notes = {"progress": json.dumps(asdict(progress)), "settings": json.dumps(settings, sort_keys=True)}
    try:
        save_file(tensors, partial, metadata=notes)
        os.replace(partial, file)
    except SafetensorError as e:  # a full disk, among others
        raise HeadError(f"cannot write {file}: {first_line(e)}; free some space, or choose another place") from e
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(
    file: Path,
    head: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: dict[str, Any],
    remedy: str = "delete it to train from the start",
) -> Progress | None:
    """Load what `save_checkpoint` wrote into a head and its optimizer.

    Args:
        file: the checkpoint.
        head: as in `save_checkpoint`.
        optimizer: as in `save_checkpoint`.
        settings: as in `save_checkpoint`.
        remedy: what the user can do about a damaged file.

    Returns:
        The progress; None if there is no checkpoint, or if it is of a training with other settings.

    Raises:
        HeadError: the file is damaged.
    """
    _check_place(file)
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt", device=str(current_device())) as opened:
            notes = opened.metadata() or {}
            if json.loads(notes["settings"]) != json.loads(json.dumps(settings)):
                _warn_of_other_settings(file)
                return None
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no dictionary
        progress = _progress_of(json.loads(notes["progress"]))
        if not are_finite(tensors.values()):
            raise ValueError("it has weights that are not finite numbers")
        stored = _part(tensors, "head.")
        head.load_state_dict({name: stored[first] for name, first in first_names(head.state_dict()).items()})
        for name, parameter in head.named_parameters():
            optimizer.state[parameter] = _moments_of(_part(tensors, f"optimizer.{name}."), parameter)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, RecursionError) as e:
        raise HeadError(f"{file} is damaged ({first_line(e)}); {remedy}") from e
    return progress


def _warn_of_other_settings(file: Path) -> None:
    """Warn that a checkpoint will be replaced. One process of several does it."""
    if processes.is_first():
        warnings.warn(
            f"{file} is of a training with other options or texts; this one begins anew and replaces it. To keep it, "
            "stop now, and give another --work",
            SpeccWarning,
            stacklevel=3,
        )


def failure(what: str, progress: Progress, file: Path, saved_update: int | None) -> HeadError:
    """Return the error of a training that has failed.

    Args:
        what: is not finite.
        progress: how far the training has come.
        file: the checkpoint.
        saved_update: of the state in the checkpoint; None if there is none of this training.
    """
    if progress.updates == 0:
        return HeadError(
            f"{what}, before any weight has changed, so a lower --learning-rate does not help; give a model, and a "
            f"--head, whose weights are finite numbers, or delete {file.parent} to record anew"
        )
    state = "no state was saved before"
    if saved_update is not None:
        state = f"the last state with finite weights, of update {saved_update}, is in {file}"
    return HeadError(f"{what}; {state}; train again with a lower --learning-rate")


def _check_place(file: Path) -> None:
    """Refuse a folder, or another thing that is no file, in the place of a file."""
    if file.exists() and not file.is_file():
        raise HeadError(f"{file} is no file; delete it, and train again")


def _progress_of(data: dict[str, Any]) -> Progress:
    """Read a progress. Raises ValueError or TypeError if a field has another type, or a number that cannot be."""
    progress = Progress(**data)
    for name, default in asdict(Progress()).items():
        value = getattr(progress, name)
        if isinstance(default, dict):
            _check_updates(value)
        elif not _is_count(value, (int,) if isinstance(default, int) else (int, float)):
            raise ValueError(f"its {name} is {value!r}")
    return progress


def _check_updates(figures: Any) -> None:
    """Check figures by update, or those of each source. Raises ValueError."""
    if not isinstance(figures, dict):
        raise ValueError(f"it has {figures!r} in the place of figures by update")
    for update, value in figures.items():
        if isinstance(value, dict):
            _check_updates(value)
        elif not (update.isascii() and update.isdecimal() and _is_count(int(update), (int,))):
            raise ValueError(f"it has figures of the update {update!r}")
        elif not all(_is_count(one, (int, float)) for one in (value if isinstance(value, list) else [value])):
            raise ValueError(f"its figures of update {update} are {value!r}")


def _is_count(value: object, kinds: tuple[type, ...]) -> bool:
    return type(value) in kinds and 0 <= value < MOST  # type: ignore[operator]


def _moments_of(moments: dict[str, Tensor], parameter: Tensor) -> dict[str, Tensor]:
    """Return AdamW's moments of a parameter, or none before its first update. Raises ValueError if they do not fit."""
    if moments and moments.keys() != MOMENTS:
        raise ValueError(f"it has the moments {sorted(moments)}")
    if any(value.shape not in (parameter.shape, ()) for value in moments.values()):
        raise ValueError("it has moments of another shape")
    return moments


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
