"""Read the project's Markdown pages: their code blocks, links and names in backticks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(?P<language>[\w-]*)[ \t]*(?P<title>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class CodeBlock:
    """A fenced block of a page. `title` is what follows the language in the opening line."""

    language: str
    title: str
    text: str


def all_pages() -> list[Path]:
    """Return every Markdown page that the project keeps for its readers."""
    folders = ("docs", "examples")
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(p for f in folders for p in (ROOT / f).rglob("*.md"))]


def read(page: Path) -> str:
    """Return the text of a page."""
    return page.read_text(encoding="utf-8")


def blocks(text: str, language: str | None = None) -> list[CodeBlock]:
    """Return the fenced blocks of a page, those of one language or all."""
    every = [CodeBlock(m["language"], m["title"].strip(), m["text"]) for m in FENCE.finditer(text)]
    return [b for b in every if language in (None, b.language)]


def titled(text: str, title: str) -> str:
    """Return the code of the Python block with this title."""
    (block,) = (b for b in blocks(text, "python") if b.title == f'title="{title}"')
    return block.text


def inline(text: str) -> list[str]:
    """Return what stands in backticks outside of fenced blocks."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def links(text: str) -> list[str]:
    """Return the targets of the links outside of fenced blocks."""
    return re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text))


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each shell command: of `sh` blocks line by line, and of commands in backticks.

    A comment and an environment variable in front of a command are left out.
    """
    shell = "\n".join(b.text for b in blocks(text, "sh")).replace("\\\n", " ")
    for line in (*shell.splitlines(), *inline(text)):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a piece of code in backticks, not a command
            continue
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if len(words) > 1:
            yield words
