"""A directory with a head's configuration and tensors, in a format of others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from specc.bounded_read import read_bounded
from specc.heads.head import Target
from specc.runtime.errors import HeadError, first_line

CONFIG = "config.json"
EPS = 1e-6
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Source:
    """A directory of config.json and safetensors files.

    Attributes:
        directory: the directory.
        config: what config.json says.
    """

    directory: Path
    config: Mapping[str, Any]

    @cached_property
    def files(self) -> Mapping[str, Path]:
        """The file of each tensor, by the tensor's name.

        Raises:
            HeadError: a file is damaged.
        """
        files: dict[str, Path] = {}
        for file in sorted(self.directory.glob("*.safetensors")):
            try:
                with safe_open(file, "pt") as opened:
                    files |= dict.fromkeys(opened.keys(), file)
            except (OSError, SafetensorError) as e:
                raise HeadError(f"{file} cannot be read: {first_line(e)}; download it again") from e
        return files

    def read(self, name: str) -> Tensor:
        """Read a tensor. Numbers with a fraction are turned into fp32.

        Raises:
            HeadError: there is no such tensor.
        """
        if name not in self.files:
            raise HeadError(f"{self.directory} has no tensor {name}, which its format needs; download it again")
        with safe_open(self.files[name], "pt") as opened:
            tensor: Tensor = opened.get_tensor(name)
        return tensor.float() if tensor.is_floating_point() else tensor

    def table(self) -> Tensor | None:
        """Return the embeddings that the checkpoint has of its model, [V, d]; None if it has none."""
        return next((self.read(name) for name in self.files if name.endswith("embed_tokens.weight")), None)

    def number(self, config: Mapping[str, Any], name: str) -> int:
        """Return a whole number of the configuration, or of a part of it.

        Raises:
            HeadError: it is not there, or is no whole number.
        """
        value = config.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise HeadError(f"{self.directory / CONFIG} says {name} is {value!r}; it must be a whole number")
        return value

    def model_name(self) -> str:
        """Return the name of the model that the head was trained for, if the configuration has it."""
        verifier = dict(self.config.get("speculators_config") or {}).get("verifier") or {}
        name = verifier.get("name_or_path") or self.config.get("base_model_name_or_path")
        return str(name or "the model of its checkpoint")

    def target(self, config: Mapping[str, Any], model: Target) -> Target:
        """Return the facts of the model that the head was trained for, as far as the checkpoint has them.

        Args:
            config: the part of the configuration that has `hidden_size` and `vocab_size`.
            model: the model at hand. What the checkpoint does not say is taken from it.
        """
        return Target(
            name=self.model_name(),
            digest=model.digest,
            hidden_size=self.number(config, "hidden_size"),
            vocab_size=self.number(config, "vocab_size"),
            layers=model.layers,
        )


def open_source(directory: Path) -> Source:
    """Open a directory.

    Raises:
        HeadError: there is no such directory, it holds a pickle alone, or its config.json cannot be read.
    """
    if not directory.is_dir():
        raise HeadError(f"there is no head at {directory}; make one with: specc train MODEL --recipe eagle3 -o DIR")
    if not any(directory.glob("*.safetensors")):
        pickled = next((file for file in sorted(directory.iterdir()) if file.suffix in PICKLES), None)
        if pickled:
            raise HeadError(
                f"{directory} holds its weights as a pickle ({pickled.name}), which can run code; load it where you "
                "trust it, and write its tensors with safetensors.torch.save_file"
            )
        raise HeadError(
            f"{directory} has no {CONFIG} and no file that ends in .safetensors; name a directory that 'specc train' "
            "wrote, or a head of others. Pickled weights must be written with safetensors.torch.save_file first"
        )
    try:
        with (directory / CONFIG).open("rb") as opened:
            config = json.loads(read_bounded(opened, directory / CONFIG))
    except (OSError, ValueError, RecursionError) as e:
        raise HeadError(f"{directory / CONFIG} cannot be read: {first_line(e)}; name a directory of a head") from e
    if not isinstance(config, dict):
        raise HeadError(f"{directory / CONFIG} is no JSON object; name a directory of a head")
    return Source(directory, config)
