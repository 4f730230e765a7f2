"""The code of the page on serving requests runs, with lanes and without, and does what the page says."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doubles.toy_bundle import LANES, ToyBackend, install, write_bundle
from pages import ROOT, blocks, read, titled

import specc
from specc.runtime.scheduler import SchedulerPolicy

PAGE = read(ROOT / "docs" / "serving.md")
PROMPTS = ("import os\n", "def f(", "class A:")


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyBackend:
    """The backend of a bundle of toys, small.specc, in the working directory."""
    backend = install(monkeypatch)
    write_bundle(tmp_path / "small.specc")
    monkeypatch.chdir(tmp_path)
    return backend


@pytest.fixture(params=[True, False], ids=["lanes", "turns"])
def run(
    request: pytest.FixtureRequest, backend: ToyBackend, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[str, dict[str, Any]]]:
    """A function that runs the block of this title. It returns what the block printed, and its names."""
    backend.together = request.param

    def run(title: str) -> tuple[str, dict[str, Any]]:
        names: dict[str, Any] = {"specc": specc}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", specc.SpeccWarning)
            exec(compile(titled(PAGE, title), "serving.md", "exec"), names)
        return capsys.readouterr().out, names

    return run


def alone(prompt: str, max_new_tokens: int = 64, **options: Any) -> str:
    """Return the text of the answer that a request gets alone."""
    with specc.load("small.specc") as model:
        return model.generate(prompt, max_new_tokens, **options).text


def test_every_block_of_the_page_has_a_test() -> None:
    tested = set(re.findall(r'run\("(\w+)"\)', Path(__file__).read_text(encoding="utf-8")))
    assert {f'title="{title}"' for title in tested} == {block.title for block in blocks(PAGE, "python")}


def test_the_model_of_the_page_answers(run: Callable[[str], tuple[str, dict[str, Any]]]) -> None:
    printed, names = run("load")
    expected = f"{alone(PROMPTS[0])} {names['answer'].finish_reason}\n"
    assert printed == expected + alone(PROMPTS[1], temperature=0.8, seed=1)


def test_the_conversation_of_the_page_goes_on(run: Callable[[str], tuple[str, dict[str, Any]]]) -> None:
    _, names = run("conversation")
    assert names["text"].startswith(PROMPTS[0] + alone(PROMPTS[0], 16) + PROMPTS[1])


def test_the_requests_of_the_page_get_their_answers(run: Callable[[str], tuple[str, dict[str, Any]]]) -> None:
    printed, _ = run("requests")
    expected = alone(PROMPTS[0], temperature=0)
    assert printed.startswith(expected)
    ending = r"\['(eos|length)', '(eos|length|cancelled)', '(eos|length)'\]\n"
    assert re.fullmatch(ending, printed.removeprefix(expected))


def test_the_full_queue_of_the_page_is_a_busy_error(run: Callable[[str], tuple[str, dict[str, Any]]]) -> None:
    printed, names = run("policy")
    assert "4 requests run or wait already" in printed and printed.splitlines()[-1] in ("eos", "length")
    assert 4 <= len(names["handles"]) < 100


def test_the_coroutines_and_the_threads_of_the_page_get_their_answers(
    run: Callable[[str], tuple[str, dict[str, Any]]],
) -> None:
    expected = [alone(prompt) for prompt in PROMPTS]
    assert run("async")[0] == f"{expected[:2]}\n"
    assert run("threads")[0] == "".join(f"{text}\n" for text in expected)


def test_the_defaults_of_the_page_are_those_of_the_policy(backend: ToyBackend) -> None:
    assert SchedulerPolicy().waiting == 256 and "wait, 256 by default" in PAGE
    assert SchedulerPolicy().running is None and LANES < 4
    with specc.load("small.specc") as model:
        assert model._scheduler._room == 4
