"""Heads in the formats of others: of EAGLE's, Medusa's and DFlash's authors, of speculators, and modules of models."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from specc.heads.checkpoints import dflash, eagle, medusa, mtp, speculators
from specc.heads.checkpoints.format import Format
from specc.heads.checkpoints.source import Source, open_source
from specc.heads.checks import check_config, fit_weights
from specc.heads.config_file import CONFIG
from specc.heads.head import Head, Target
from specc.heads.layer_head import LayerHead
from specc.runtime.errors import HeadError, SpeccWarning

FORMATS = (
    speculators.EAGLE,
    speculators.EAGLE3,
    speculators.PEAGLE,
    speculators.DFLASH,
    dflash.DFLASH,  # before EAGLE, whose tensors it has, too
    eagle.EAGLE,
    eagle.EAGLE3,
    medusa.MEDUSA,
    mtp.MTP,
)
CLOSE = 1e-2  # of the largest embedding: what rounding to 16 bits may change


@dataclass(frozen=True)
class Checkpoint:
    """A head in a format of others. It becomes a head once it is known for which model it is compiled.

    Attributes:
        source: its configuration and tensors.
        format: the format.
        reads: the model whose states the head reads, as `Head.reads`.
    """

    reads: ClassVar[str] = "target"

    source: Source
    format: Format

    @property
    def architecture(self) -> str:
        """The architecture of the head, a key of `specc.heads.ARCHITECTURES`."""
        return self.format.architecture

    def head(self, model: Target, embedding: torch.Tensor) -> Head:
        """Make the head for a model.

        Args:
            model: the facts of the model.
            embedding: [V, d]: its embeddings. A checkpoint that brings others is taken with a warning.

        Returns:
            The head in fp32 and evaluation mode. Nothing is attached to it yet.

        Raises:
            HeadError: a tensor is missing or has another shape, or the head computes something that specc does not.
        """
        parts = self.format.convert(self.source, model)
        remedy = f"name a head in the format {self.format.name} whose config.json fits its tensors"
        check_config(parts.config, self.source.directory / CONFIG, remedy)
        head = fit_weights(parts.config, parts.weights, self.source.directory, remedy, self.source.names)
        if parts.frequencies is not None and isinstance(head, LayerHead):
            for layer in head.decoder_layers():
                layer.inverse_frequencies = parts.frequencies
        self._compare(embedding)
        return head.eval().requires_grad_(False)

    def _compare(self, embedding: torch.Tensor) -> None:
        """Warn if the checkpoint brings embeddings that are not the model's."""
        table = self.source.table()
        if table is None or table.shape != embedding.shape:  # Another shape is an error, which others raise.
            return
        if float((table - embedding.float()).abs().max()) > CLOSE * float(embedding.abs().max()):
            warnings.warn(
                f"{self.source.directory} brings embeddings that are not the model's, and the model's are used: it may "
                "accept few of the head's tokens; name a head that was trained for this model",
                SpeccWarning,
                stacklevel=2,
            )


def read_checkpoint(directory: Path) -> Checkpoint:
    """Recognise a head in a format of others.

    Raises:
        HeadError: the directory is no head, holds a pickle, or its format is unknown. The message names the known ones.
    """
    source = open_source(directory)
    for known_format in FORMATS:
        if known_format.recognises(source):
            return Checkpoint(source, known_format)
    names = ", ".join(known_format.name for known_format in FORMATS)
    raise HeadError(f"{directory} holds a head in an unknown format; specc reads its own and {names}")
