"""A directory with a head's configuration and tensors, in a format of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from specc.heads.checks import MOST_SIZE, check_numbers
from specc.heads.config_file import CONFIG, check_regular, pickle_error, read_object, shown
from specc.heads.head import Target
from specc.runtime.errors import CODE_ERRORS, HeadError, first_line, printable

EPS = 1e-6
DISTANCES = "d2t"  # This tensor has whole numbers. All others have fractions.


@dataclass(frozen=True)
class Source:
    """A directory of config.json and safetensors files.

    Attributes:
        directory: the directory.
        config: what config.json says.
        names: what the checkpoint calls a head's tensor. It grows as tensors are read.
    """

    directory: Path
    config: Mapping[str, Any]
    names: dict[str, str] = field(default_factory=dict)

    @cached_property
    def files(self) -> Mapping[str, Path]:
        """The file of each tensor, by the tensor's name.

        Raises:
            HeadError: a file is damaged.
        """
        files: dict[str, Path] = {}
        for file in sorted(self.directory.glob("*.safetensors")):
            check_regular(file, "download it again")
            try:
                with safe_open(file, "pt") as opened:
                    files |= dict.fromkeys(opened.keys(), file)
            except (OSError, SafetensorError) as e:
                raise HeadError(f"{file} cannot be read: {first_line(e)}; download it again") from e
        return files

    def read(self, name: str) -> Tensor:
        """Read a tensor. Numbers with a fraction are turned into fp32.

        Raises:
            HeadError: there is no such tensor, or it has numbers of another type, or some that are not finite.
        """
        if name not in self.files:
            raise HeadError(f"{self.directory} has no tensor {name}, which its format needs; download it again")
        file, remedy = self.files[name], "download it again"
        try:
            with safe_open(file, "pt") as opened:
                tensor: Tensor = opened.get_tensor(name)
        except (OSError, SafetensorError, RuntimeError, *CODE_ERRORS) as e:
            raise HeadError(f"{file} has the tensor {name}, which cannot be read: {first_line(e)}; {remedy}") from e
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        check_numbers(tensor, name, file, remedy, whole=name == DISTANCES)
        return tensor

    def table(self) -> Tensor | None:
        """Return the embeddings that the checkpoint has of its model, [V, d]; None if it has none."""
        return next((self.read(name) for name in self.files if name.endswith("embed_tokens.weight")), None)

    def number(self, config: Mapping[str, Any], name: str, most: int = MOST_SIZE) -> int:
        """Return a whole number of the configuration, or of a part of it.

        Raises:
            HeadError: it is not there, is no whole number, or is not from 1 to `most`.
        """
        value = config.get(name)
        if type(value) is not int or not 1 <= value <= most:
            raise HeadError(
                f"{self.directory / CONFIG} says {name} is {shown(value)}; it must be a whole number from 1 to {most}"
            )
        return value

    def positive(self, config: Mapping[str, Any], name: str, default: float | None, most: float) -> float:
        """Return a number greater than 0 of the configuration, or of a part of it.

        Raises:
            HeadError: it is no such number, or is greater than `most`; or it is missing and has no default.
        """
        value = config.get(name, default)
        if type(value) not in (int, float) or not 0 < value <= most:
            raise HeadError(
                f"{self.directory / CONFIG} says {name} is {shown(value)}; it must be a number greater than 0 and at "
                f"most {most:g}"
            )
        return float(value)

    def layers(self, config: Mapping[str, Any], name: str) -> tuple[int, ...]:
        """Return a list of layers of the configuration, or of a part of it.

        Raises:
            HeadError: it is no list of whole numbers, or is empty.
        """
        value = config.get(name)
        if not isinstance(value, list) or not value or not all(type(layer) is int and layer >= 0 for layer in value):
            raise HeadError(
                f"{self.directory / CONFIG} says {name} is {shown(value)}; it must be a list of whole numbers"
            )
        return tuple(value)

    def section(self, config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        """Return an object within the configuration, empty if it is not there. Raises HeadError if it is no object."""
        value = config.get(name)
        if value is not None and not isinstance(value, dict):
            raise HeadError(f"{self.directory / CONFIG} says {name} is {shown(value)}; it must be an object")
        return value or {}

    def model_name(self) -> str:
        """Return the name of the model that the head was trained for, if the configuration has it."""
        verifier = self.section(self.section(self.config, "speculators_config"), "verifier")
        name = verifier.get("name_or_path") or self.config.get("base_model_name_or_path")
        return printable(str(name or "the model of its checkpoint"))

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
        if error := pickle_error(directory):
            raise error
        raise HeadError(
            f"{directory} has no {CONFIG} and no file that ends in .safetensors; name a directory that 'specc train' "
            "wrote, or a head of others. Pickled weights must be written with safetensors.torch.save_file first"
        )
    return Source(directory, read_object(directory / CONFIG, "name a directory of a head"))
