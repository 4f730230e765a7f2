"""The environment variables: one module reads them all and documents them."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from specc.runtime import environment
from specc.runtime.environment import (
    UNUSED_SECONDS,
    CacheOffError,
    cache_directory,
    cuda_graphs,
    openvino_precision,
    stamp,
    threads,
)
from specc.runtime.errors import BackendError

ROOT = Path(__file__).parents[2]
VARIABLE = re.compile(r"SPECC_[A-Z_]+")


def test_every_variable_that_is_named_anywhere_is_documented_in_one_place() -> None:
    assert environment.__doc__
    documented = set(VARIABLE.findall(environment.__doc__))
    sources = [f for folder in ("specc", "passes", "runtime") for f in (ROOT / folder).rglob("*.py")]
    assert {name for f in sources for name in VARIABLE.findall(f.read_text(encoding="utf-8"))} == documented


def test_no_other_module_of_the_runtime_reads_the_environment() -> None:
    texts = {f: f.read_text(encoding="utf-8") for f in (ROOT / "runtime").rglob("*.py")}
    assert [f.name for f, text in texts.items() if re.search(r"\bos\.(environ|getenv)", text)] == ["environment.py"]


def test_a_cache_is_a_directory_by_kind_and_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_CACHE", str(tmp_path / "here"))
    assert cache_directory("packed", "abc") == tmp_path / "here" / "packed" / "abc"
    monkeypatch.delenv("SPECC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory("packed", "abc") == tmp_path / "xdg" / "specc" / "packed" / "abc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_directory("packed", "abc") == tmp_path / "home" / ".cache" / "specc" / "packed" / "abc"


def test_a_cache_that_is_off_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_CACHE", "off")
    with pytest.raises(CacheOffError):
        cache_directory("packed", "abc")


def test_caches_that_nobody_used_for_long_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_CACHE", str(tmp_path))
    old, recent = cache_directory("packed", "old"), cache_directory("packed", "recent")
    for directory, age in ((old, UNUSED_SECONDS + 60), (recent, UNUSED_SECONDS - 60)):
        os.utime(directory, (time.time() - age,) * 2)
    cache_directory("packed", "new")
    assert sorted(d.name for d in (tmp_path / "packed").iterdir()) == ["new", "recent"]


@pytest.mark.parametrize("value", ["0", "-1", "2.5", "many", "1025", "9" * 5000, "٣"])
def test_a_number_of_threads_that_is_none_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_THREADS", value)
    with pytest.raises(BackendError, match=f"SPECC_THREADS is '{value}'; give a whole number from 1 to 1024"):
        threads()


def test_threads_are_the_processors_of_this_process_unless_a_number_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_THREADS", "3")
    assert threads() == 3
    monkeypatch.setenv("SPECC_THREADS", "")
    assert threads() == len(os.sched_getaffinity(0))


def test_captured_graphs_are_on_unless_they_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPECC_CUDA_GRAPHS", raising=False)
    assert cuda_graphs()
    monkeypatch.setenv("SPECC_CUDA_GRAPHS", "off")
    assert not cuda_graphs()


def test_openvino_computes_in_f32_unless_another_type_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPECC_OPENVINO_PRECISION", raising=False)
    assert openvino_precision() == "f32"
    monkeypatch.setenv("SPECC_OPENVINO_PRECISION", "bf16")
    assert openvino_precision() == "bf16"
    monkeypatch.setenv("SPECC_OPENVINO_PRECISION", "int8")
    with pytest.raises(BackendError, match="SPECC_OPENVINO_PRECISION is 'int8'; give f32 or bf16"):
        openvino_precision()


def test_a_stamp_changes_with_the_size_and_with_the_time(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("1")
    os.utime(file, ns=(0, 5))
    assert stamp(file) == [1, 5]
    file.write_text("22")
    os.utime(file, ns=(0, 5))
    assert stamp(file) == [2, 5]
