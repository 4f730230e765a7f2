"""The state of a training on disk, in safetensors. It is written whole, and replaces the one before."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from specc.huggingface.tied import first_names
from specc.runtime.errors import HeadError, first_line
from specc.training.device import current_device

PARTIAL = ".partial"


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
    """
    state = head.state_dict()
    tensors = {f"head.{name}": state[name].contiguous() for name in set(first_names(state).values())}
    for name, parameter in head.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer.{name}.{key}"] = value.contiguous()
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
    file: Path, head: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any]
) -> Progress | None:
    """Load what `save_checkpoint` wrote into a head and its optimizer.

    Returns:
        The progress; None if there is no checkpoint, or if it is of a training with other settings.

    Raises:
        HeadError: the file is damaged.
    """
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt", device=str(current_device())) as opened:
            notes = opened.metadata() or {}
            if json.loads(notes["settings"]) != json.loads(json.dumps(settings)):
                return None
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no dictionary
        progress = Progress(**json.loads(notes["progress"]))
        stored = _part(tensors, "head.")
        head.load_state_dict({name: stored[first] for name, first in first_names(head.state_dict()).items()})
        for name, parameter in head.named_parameters():
            optimizer.state[parameter] = _part(tensors, f"optimizer.{name}.")
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as e:
        raise HeadError(f"{file} is damaged ({first_line(e)}); delete it to train from the start") from e
    return progress


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
