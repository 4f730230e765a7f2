"""What does not fit in memory is refused before it is loaded, with what it needs and what is free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shell import refused, specc

import specc as package
from specc.runtime.bundle import open_bundle
from specc.runtime.engines import memory, ort


def test_this_machine_has_some_memory() -> None:
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
    machine = memory.free_memory()
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.free_memory() == free if free else (memory.free_memory() or 0) > (machine or 0) / 2


@pytest.mark.model
class TestBundle:
    def test_needed_and_free_are_said_and_nothing_is_loaded(
        self, bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before, loaded = (bundle / "manifest.json").read_bytes(), []
        monkeypatch.setattr(memory, "free_memory", lambda: 2**16)
        monkeypatch.setattr(ort, "load", lambda *a, **k: loaded.append(a))
        for verb in (("generate", bundle, "--prompt", "a"), ("tune", bundle), ("test", bundle)):
            told = refused(*verb)
            assert "MiB of memory (weights" in told and "and 0.1 MiB are free; free some" in told
        assert not loaded and (bundle / "manifest.json").read_bytes() == before

    def test_what_is_needed_is_no_more_than_what_is_taken(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        opened, asked = open_bundle(bundle), []
        monkeypatch.setattr(memory, "free_memory", lambda: asked.append(0) or 2**40)
        engines = package.load(bundle).engines
        engines.load("decode", "prefill")
        engines.load("decode")
        assert len(asked) == 1
        weights = opened.manifest.files[opened.manifest.weights].bytes
        spec = opened.engine("prefill")
        rows, outputs = opened.manifest.caches["target"].bytes, sum(memory._bytes(t) for t in spec.outputs)
        arrays: Any = engines.store("target")
        assert rows == sum(a.nbytes for a in arrays.arrays)
        assert outputs == sum(a.nbytes for a in engines["prefill"].runner.outputs.values())
        monkeypatch.setattr(memory, "free_memory", lambda: weights + rows + outputs)  # it takes inputs too
        with pytest.raises(package.runtime.errors.BackendError, match="of up to 64 slots"):
            memory.check(opened, [spec], [])
        memory.check(opened, [spec], [opened.engine("decode")])

    def test_rows_that_cannot_be_had_are_one_line(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def none(*_: Any) -> np.ndarray:
            raise MemoryError("Unable to allocate 46.0 GiB")

        monkeypatch.setattr(ort.np, "zeros", none)
        assert "do not fit in memory (Unable to allocate 46.0 GiB); compile with" in refused(
            "generate", bundle, "--prompt", "a"
        )
        monkeypatch.undo()
        assert specc("generate", bundle, "--prompt", "a", "--max-new-tokens", 2).status == 0
