"""The code of the pages on writing a method and a pass runs."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pages import ROOT, read, titled
from toys import World, prompts, propose

import specc.runtime.drafters
from specc.recipes import METHODS
from specc.runtime.sequence import Cache, Sequence

METHOD, PASS = (read(ROOT / "docs" / f"writing-a-{what}.md") for what in ("method", "pass"))


@pytest.fixture
def method(monkeypatch: pytest.MonkeyPatch) -> str:
    """Install the drafter and the entry of the page as if their files were edited. Return the method's name."""
    drafter = ModuleType("specc.runtime.drafters.repetition")
    drafter.__package__ = specc.runtime.drafters.__name__
    exec(compile(titled(METHOD, "drafter"), "writing-a-method.md", "exec"), drafter.__dict__)
    monkeypatch.setitem(sys.modules, drafter.__name__, drafter)
    entry: dict[str, Any] = {}
    exec(compile(titled(METHOD, "entry"), "writing-a-method.md", "exec"), entry)
    monkeypatch.setitem(METHODS, entry["REPETITION"].name, entry["REPETITION"])
    return str(entry["REPETITION"].name)


def test_the_method_of_the_page_gives_the_tokens_of_plain_decoding(method: str) -> None:
    accepted = 0
    world, reference = World(), World()
    decoder, plain = world.method(method), reference.method("plain")
    for prompt in prompts(20):
        tokens, count = decoder.run(prompt, 60)
        assert tokens == plain.run(prompt, 60)[0]
        accepted += count
    assert accepted > 0


def test_the_drafter_of_the_page_guesses_the_last_tokens_within_the_room(method: str) -> None:
    drafter = sys.modules[f"specc.runtime.drafters.{method}"].Repetition(3)
    tokens, cache = [5, 6, 7, 8], Cache(World().cache.store, [5, 6, 7])
    assert propose(drafter.open(Sequence(tokens, {"target": cache}))).tokens == (8, 6, 7, 8)
    assert propose(drafter.open(Sequence(tokens, {"target": cache}, limit=7))).tokens == (8, 6, 7)


@pytest.mark.torch
def test_the_pass_of_the_page_passes_its_own_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "writing_a_pass.py"
    file.write_text(f"{titled(PASS, 'pass')}\n{titled(PASS, 'test')}", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module(file.stem)
    (test,) = (value for name, value in vars(module).items() if name.startswith("test_"))
    test()
