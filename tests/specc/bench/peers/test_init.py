"""A peer in a process of its own: what it answers, and how it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from doubles.peers import MakePeer, echo, peer_maker

from specc.bench.peers import Job, Peer, source
from specc.runtime.errors import BackendError, RecipeError

JOB = Job(model="m", assistant=None, dtype="fp32", threads=1, context=64, work=".", ids=[7])


@pytest.fixture
def make_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePeer]:
    yield peer_maker(tmp_path, monkeypatch)


@pytest.mark.process
def test_modes_are_tried_once_and_those_that_fail_are_named(make_peer: MakePeer) -> None:
    make_peer("echo", echo())
    with closing(Peer("echo", JOB)) as peer:
        assert (peer.version, peer.modes) == ("1.0", ("plain", "wrong"))
        assert peer.failed == {"broken": "ValueError: no such mode here"}
        run = peer.run("wrong", [5, 6], 4, 0)
        assert (run.token_ids, run.first, run.drafts, run.accepted) == ([5] * 4, 2, 2, 3)
        assert (peer.memory() or 0) > 1e6


@pytest.mark.process
def test_a_process_that_ends_is_an_error_with_its_last_words(make_peer: MakePeer) -> None:
    make_peer("echo", echo(life=2))
    with closing(Peer("echo", JOB)) as peer, pytest.raises(BackendError, match=r"it ended with status 7; .*noise"):
        peer.run("wrong", [5], 4, 0)


@pytest.mark.process
def test_a_package_that_is_missing_is_named_with_the_remedy(make_peer: MakePeer) -> None:
    make_peer("other", "import no_such_module\n")
    with pytest.raises(BackendError) as refusal:
        Peer("other", JOB)
    assert str(refusal.value) == (
        "no_such_module is not installed; pip install other, or --peer-python other=PYTHON for an interpreter that "
        "has it"
    )


@pytest.mark.process
def test_too_few_tokens_are_an_error(make_peer: MakePeer) -> None:
    make_peer("echo", echo().replace("arrive([ids[0]] * count)", "pass"))
    with closing(Peer("echo", JOB)) as peer:
        assert peer.modes == ()
        assert peer.failed["plain"] == "ValueError: 2 tokens came instead of 8"


@pytest.mark.process
def test_an_interpreter_that_does_not_run_is_named(make_peer: MakePeer) -> None:
    make_peer("echo", echo())
    with pytest.raises(BackendError, match=r"/nowhere/python does not run .*--peer-python echo=PYTHON"):
        Peer("echo", JOB, "/nowhere/python")


@pytest.mark.parametrize(
    ("name", "message"),
    [("lama.cpp", "no peer 'lama.cpp'; did you mean 'llama.cpp'?"), ("vllm", "no peer 'vllm'; there are transformers")],
)
def test_an_unknown_peer_is_refused(name: str, message: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        source(name)
    assert str(refusal.value).startswith(message)
