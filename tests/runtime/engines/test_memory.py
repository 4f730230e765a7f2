"""Engines that do not fit in memory are refused before one is loaded, with what they need and what is free."""

from __future__ import annotations

import ctypes
import errno
import sys
from pathlib import Path
from typing import Any

import pytest
from resident import resident
from shell import refused, specc

import specc as package
from specc.runtime.bundle import open_bundle
from specc.runtime.engines import memory, ort
from specc.runtime.engines.ort_cpu import HostKV
from specc.runtime.errors import BackendError


def test_this_machine_has_free_memory() -> None:
    assert 2**24 < (memory.free_memory() or 0) < 2**50


@pytest.mark.parametrize(
    ("limit", "used", "cached", "free"),
    [("3000", 1000, 200, 2200), ("max", 1000, 200, None), ("3000", 3500, 100, -400)],
)
def test_a_control_group_may_have_less(
    limit: str, used: int, cached: int, free: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text(f"{used}\n")
    (tmp_path / "memory.stat").write_text(f"anon 7\ninactive_file {cached}\n")
    machine = memory.free_memory() or 0
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    if free is None:
        assert (memory.free_memory() or 0) > machine / 2
    else:
        assert memory.free_memory() == free


@pytest.mark.model
class TestBundle:
    def test_the_refusal_gives_both_sizes_and_nothing_is_loaded(
        self, bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = (bundle / "manifest.json").read_bytes()
        loads: list[Any] = []
        monkeypatch.setattr(memory, "free_memory", lambda: 2**16)
        monkeypatch.setattr(ort, "load", lambda *a, **k: loads.append(a))
        for verb in (("generate", bundle, "--prompt", "a"), ("tune", bundle), ("test", bundle)):
            line = refused(*verb)
            assert "MiB of memory (weights" in line and "and 0.1 MiB are free; free some" in line
        assert not loads and (bundle / "manifest.json").read_bytes() == before

    def test_no_more_is_counted_than_is_taken(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        opened = open_bundle(bundle)
        calls: list[int] = []

        def plenty() -> int:
            calls.append(1)
            return 2**40

        monkeypatch.setattr(memory, "free_memory", plenty)
        engines = package.load(bundle).engines
        engines.load("decode", "prefill")
        engines.load("decode")
        assert len(calls) == 1
        weights = opened.manifest.files[opened.manifest.weights].bytes
        spec = opened.engine("prefill")
        rows, outputs = opened.manifest.caches["target"].bytes, sum(memory.array_bytes(t) for t in spec.outputs)
        store = engines.store("target")
        assert isinstance(store, HostKV)
        assert rows == sum(a.nbytes for a in store.arrays)
        assert outputs == sum(a.nbytes for a in engines["prefill"].runner.outputs.values())
        monkeypatch.setattr(memory, "free_memory", lambda: weights + rows + outputs)  # it takes inputs too
        with pytest.raises(BackendError, match="of up to 64 slots"):
            memory.check(opened, [spec], [])
        memory.check(opened, [spec], [opened.engine("decode")])

    def test_a_further_request_leaves_room_for_what_others_may_still_fill(
        self, bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engines = package.load(bundle).engines
        rows = open_bundle(bundle).manifest.caches["target"].bytes
        monkeypatch.setattr(memory, "free_memory", lambda: 2 * rows)
        store = engines.store("target", 1)
        assert isinstance(store, HostKV) and engines.store("target").uncommitted == store.uncommitted == rows
        with pytest.raises(BackendError, match=r"one more request take .* 2 caches may still fill .*; use fewer"):
            engines.store("target", 2)
        store.commit(0, range(store.capacity))
        assert engines.store("target", 2)

    def test_a_machine_that_does_not_say_what_is_free_refuses_nothing(
        self, bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(memory, "free_memory", lambda: None)
        opened = open_bundle(bundle)
        memory.check(opened, opened.manifest.engines, [])

    @pytest.mark.skipif(sys.platform != "linux", reason="NumPy makes the arrays")
    def test_rows_that_do_not_fit_are_one_line(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any, **options: Any) -> Any:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

        monkeypatch.setattr("specc.runtime.engines.host_memory.mmap.mmap", refuse)
        line = refused("generate", bundle, "--prompt", "a")
        assert "do not fit in memory (there is no room for an array of 0 MiB); compile with" in line
        monkeypatch.undo()
        assert specc("generate", bundle, "--prompt", "a", "--max-new-tokens", 2).status == 0


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_what_was_freed_below_a_part_that_lives_goes_back_to_the_system() -> None:
    blocks = [bytes(10_000) for _ in range(10_000)]
    last = blocks.pop()  # It keeps malloc from giving back all that lies below it.
    del blocks
    before = resident()
    memory.trim()
    assert before - resident() > 50e6 and len(last) == 10_000
