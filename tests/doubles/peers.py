"""Peers that a test writes itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from specc.bench import peers

MakePeer = Callable[[str, str], None]
QUICK = ("--rounds", 1, "--max-new-tokens", 6, "--limit", 1)  # The shortest benchmark.
ECHO = """
class Peer:
    version, modes = "1.0", ("plain", "wrong", "broken")
    def __init__(self, job):
        self.job, self.runs = job, 0
    def generate(self, mode, ids, count, arrive):
        print("noise on standard output")
        self.runs += 1
        if mode == "broken":
            raise ValueError("no such mode here")
        if mode == "wrong" and self.runs > LIFE:
            raise SystemExit(7)
        arrive([ids[0]] * 2)
        arrive([ids[0]] * count)
        return {"drafts": 2, "accepted": 3} if mode == "wrong" else None
"""


def echo(life: int = 99) -> str:
    """Write the source of a peer that repeats the first token of the prompt, and ends after so many runs."""
    return ECHO.replace("LIFE", str(life))


def peer_maker(directory: Path, monkeypatch: pytest.MonkeyPatch) -> MakePeer:
    """Return a function that adds a peer by its name and its source."""

    def make(name: str, source: str) -> None:
        file = directory / f"{name}.py"
        file.write_text(source)
        monkeypatch.setitem(peers.PEERS, name, peers.PeerSource(str(file), f"pip install {name}"))

    return make


def questions(directory: Path) -> Path:
    """Write prompts of two categories, one of them too long for the tiny model's 256 rows."""
    file, long = directory / "questions.jsonl", "import os " * 300
    prompts = [("a", "def f"), ("b", "import"), ("b", long)]
    lines = [{"category": category, "turns": [text, "again"]} for category, text in prompts]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file
