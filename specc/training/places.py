"""Where a training writes: its output, and its folder of recordings and checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from specc.runtime.errors import HeadError
from specc.training.whole_file import write_whole

CARD = "card.json"  # each training writes one into its output
NOTES = "training.json"  # says in the work folder whose it is


@dataclass(frozen=True, kw_only=True)
class Places:
    """The places of a training.

    Attributes:
        output: the directory that is written.
        work: where recordings and checkpoints go.
        sources: what the training reads, by the option that names it.
        overwrite: whether an output that a training wrote is replaced.
    """

    output: Path
    work: Path
    sources: Sequence[tuple[str, Path]] = ()
    overwrite: bool = False

    @classmethod
    def of(cls, output: Path, work: Path, overwrite: bool, sources: Mapping[str, Path | str | None]) -> Places:
        """Return the places of a training.

        Args:
            output: see the class.
            work: see the class.
            overwrite: see the class.
            sources: what the training may read, by the option that names it: files, directories, ids of a hub, or none.
        """
        there = [(option, Path(place)) for option, place in sources.items() if place and Path(place).exists()]
        return cls(output=output, work=work, sources=there, overwrite=overwrite)

    def check(self) -> None:
        """Refuse places at which the training could not write, or where it would destroy something.

        Raises:
            HeadError: the output has no name, exists and is not to be replaced, was not written by a training, holds
                what the training reads or the work folder, or cannot be made.
        """
        if not self.output.name or self.output.name == "..":
            raise HeadError(f"{str(self.output)!r} names no new directory; give --output a name, such as head")
        self._check_overwriting()
        for option, place in (("--work", self.work), *self.sources):
            if _holds(self.output, place):
                raise HeadError(
                    f"the output {self.output} is or holds {option} {place}, which would be deleted; choose another"
                )
        for option, place in (("--output", self.output), ("--work", self.work)):
            _check_can_be_made(option, place)

    def check_again(self) -> None:
        """Refuse to replace what has come to the output's place during the training. Raises HeadError."""
        try:
            self._check_overwriting()
        except HeadError as e:
            raise HeadError(f"{e}; nothing is lost: with --work {self.work} the same command goes on at the end") from e

    def take(self, owner: Mapping[str, str]) -> None:
        """Make the work folder, if it is not there, and note whose it is.

        Args:
            owner: what tells this training from others, by name. It is added to what was noted before.

        Raises:
            HeadError: the folder belongs to another training, or the notes cannot be written.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        file = self.work / NOTES
        notes = _read(file)
        other = {name: notes[name] for name, value in owner.items() if notes.get(name, value) != value}
        if other:
            others = ", ".join(f"{name} {value}" for name, value in other.items())
            raise HeadError(f"{self.work} is of another training ({others}); choose another --work, or delete it")
        write_whole(file, json.dumps({**notes, **owner}, indent=1) + "\n")

    def _check_overwriting(self) -> None:
        """Refuse an output that is there, unless a training wrote it and the user lets it be replaced."""
        if self.output.is_symlink():
            raise HeadError(f"{self.output} is a symbolic link; name the directory itself, or another output")
        if not self.output.exists():
            return
        if not (self.output / CARD).is_file():
            raise HeadError(f"{self.output} exists and 'specc train' did not write it; choose another output")
        if not self.overwrite:
            raise HeadError(f"{self.output} exists; choose another output, or --overwrite")


def _holds(directory: Path, place: Path) -> bool:
    """Tell whether a place is a directory or lies in it."""
    inner, outer = place.resolve(), directory.resolve()
    return inner == outer or outer in inner.parents


def _check_can_be_made(option: str, place: Path) -> None:
    """Refuse a directory above which something is no directory, or may not be written."""
    there = next(parent for parent in (place.absolute(), *place.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise HeadError(f"{option} {place} cannot be made: {there} is no directory; choose another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise HeadError(f"{option} {place} cannot be made: {there} may not be written; choose another place")


def _read(file: Path) -> dict[str, str]:
    """Return the notes of a work folder. Without notes, or with damaged ones, it is nobody's."""
    try:
        notes = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in notes.items()} if isinstance(notes, dict) else {}
