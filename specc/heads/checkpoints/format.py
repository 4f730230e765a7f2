"""What a format of heads is, and what a checkpoint becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from specc.heads.checkpoints.source import Source
from specc.heads.head import HeadConfig, Target


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A head in specc's words.

    Attributes:
        config: its configuration.
        weights: its tensors, by the names that the architecture has.
        frequencies: of its rotary embedding, [head_size / 2], where `rope_theta` alone does not give them.
    """

    config: HeadConfig
    weights: Mapping[str, Tensor]
    frequencies: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of others.

    Attributes:
        name: for messages.
        architecture: what its heads become, a key of `specc.heads.ARCHITECTURES`.
        recognises: tells whether a checkpoint is in this format.
        convert: makes the head for a model.
    """

    name: str
    architecture: str
    recognises: Callable[[Source], bool]
    convert: Callable[[Source, Target], Parts]
