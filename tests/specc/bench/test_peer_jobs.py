"""What a peer gets: the model's directory, and a directory for its own files."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from doubles.peers import MakePeer, echo, peer_maker

from specc.bench.peer_jobs import PeerOptions, start_peer
from specc.runtime.bundle import open_bundle

pytestmark = pytest.mark.model


@pytest.fixture
def make_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePeer:
    return peer_maker(tmp_path, monkeypatch)


def version_source(job_key: str) -> str:
    """Write a peer that reports one value of its job as its version."""
    return echo().replace("self.job, self.runs = job, 0", f"self.runs, self.version = 0, job[{job_key!r}]")


def value(job_key: str, bundle: Path, options: PeerOptions) -> str:
    with ExitStack() as stack:
        outcome, peer = start_peer("echo", options, open_bundle(bundle), [1], stack)
        assert peer, outcome.problem
        return str(outcome.version)


def test_the_model_is_the_one_that_the_bundle_was_compiled_from(bundle: Path, model: Path, make_peer: MakePeer) -> None:
    make_peer("echo", version_source("model"))
    assert value("model", bundle, PeerOptions()) == str(model.resolve())


def test_a_peer_may_get_the_model_in_its_own_form(bundle: Path, make_peer: MakePeer) -> None:
    make_peer("echo", version_source("model"))
    assert value("model", bundle, PeerOptions(models={"echo": "m.gguf", "other": "n"})) == "m.gguf"


def test_the_files_of_a_peer_are_kept_until_the_model_changes(
    bundle: Path, tmp_path: Path, make_peer: MakePeer
) -> None:
    make_peer("echo", version_source("work"))
    weights = tmp_path / "model" / "weights"
    weights.parent.mkdir()
    weights.write_text("a")
    options = PeerOptions(model=str(weights.parent))
    first = value("work", bundle, options)
    assert value("work", bundle, options) == first and Path(first).is_dir()
    weights.write_text("ab")
    assert value("work", bundle, options) != first


def test_without_a_cache_the_files_last_as_long_as_the_benchmark(
    bundle: Path, model: Path, make_peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECC_CACHE", "off")
    make_peer("echo", version_source("work"))
    assert not os.path.exists(value("work", bundle, PeerOptions(model=str(model))))


def test_a_model_that_is_nowhere_is_a_problem_with_a_remedy(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with ExitStack() as stack:
        outcome, peer = start_peer("llama.cpp", PeerOptions(model="no/such"), open_bundle(bundle), [1], stack)
    assert peer is None
    assert outcome.problem == "the model no/such is not on this machine; name its directory with --model DIR"


def test_the_process_ends_with_the_benchmark(bundle: Path, model: Path, make_peer: MakePeer) -> None:
    make_peer("echo", echo())
    with ExitStack() as stack:
        _, peer = start_peer("echo", PeerOptions(model=str(model)), open_bundle(bundle), [1], stack)
        assert peer and peer.process.poll() is None
    assert peer.process.poll() is not None
