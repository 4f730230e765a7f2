"""The base of the cards that trainings write: it gives the JSON of programs, and the files beside the weights."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from specc.runtime.json_codec import to_json
from specc.training.places import CARD


class TrainingCard(ABC):
    """The facts of a training, a frozen dataclass of which all fields go to card.json.

    Attributes:
        kind: the name that JSON output gives to the path of what was trained.
        command: the command line.
        data: the files of prompts; empty for the prompts that ship with specc.
    """

    kind: ClassVar[str]
    command: str
    data: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the card as plain data."""
        data: dict[str, Any] = to_json(self)
        return data

    def texts(self, name: str) -> dict[str, str]:
        """Return the files card.json and README.md of a head or a draft model with this name."""
        return {CARD: json.dumps(self.to_json(), indent=2) + "\n", "README.md": self.readme(name)}

    def prompts(self) -> str:
        """Say where the prompts came from."""
        return ", ".join(self.data) or "those that ship with specc (Apache-2.0)"

    def lines(self, output: str) -> str:
        """Return the summary as a list in Markdown."""
        return "\n".join(f"- {title}: {value}" for title, value in self.summary(output).items())

    def page(self, name: str, about: str, *more: str) -> str:
        """Return a short page: what it is about, the summary, more lines of that list, and the command.

        Args:
            name: the title.
            about: a sentence or two.
            more: further items of the list, without their hyphens.
        """
        items = "\n".join([self.lines(name), *(f"- {item}" for item in more)])
        return f"# {name}\n\n{about}\n\n{items}\n\n```sh\n{self.command}\n```\n"

    @abstractmethod
    def summary(self, output: str) -> dict[str, str]:
        """Return what a user reads after the training, by title."""

    @abstractmethod
    def next_command(self, output: str) -> str:
        """Return the command that compiles what was trained."""

    def next_step(self, output: str) -> str:
        """Return what a user does next: the command, if what was trained is worth it."""
        return self.next_command(output)

    @abstractmethod
    def readme(self, name: str) -> str:
        """Return the page of a head or a draft model with this name."""
