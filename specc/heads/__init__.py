"""Trained drafters: small torch modules that read a model's states. One architecture a file, one entry in a table."""

from __future__ import annotations

from pathlib import Path

from specc.heads.architectures import ARCHITECTURES, build_head
from specc.heads.checkpoints import Checkpoint, read_checkpoint
from specc.heads.files import digest, is_own, load_head, save_head
from specc.heads.head import Head, HeadConfig, Target

__all__ = [
    "ARCHITECTURES",
    "Checkpoint",
    "Head",
    "HeadConfig",
    "Target",
    "build_head",
    "digest",
    "load_head",
    "open_head",
    "save_head",
]


def open_head(directory: Path) -> Head | Checkpoint:
    """Load a head that 'specc train' wrote, or recognise one in a format of others.

    Raises:
        HeadError: the directory is no head, is damaged, holds a pickle, or its format is unknown.
    """
    return load_head(directory) if is_own(directory) else read_checkpoint(directory)
