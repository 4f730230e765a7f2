"""The environment variables: one module reads them all and documents them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from specc.runtime import environment
from specc.runtime.environment import (
    cache_root,
    cache_size,
    cuda_graphs,
    openvino_precision,
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


@pytest.mark.parametrize(("text", "size"), [("", 20 * 10**9), ("1234", 1234), ("8G", 8 * 10**9), ("0", 0)])
def test_the_size_of_all_caches_is_in_bytes_or_has_a_unit(
    text: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECC_CACHE_SIZE", text)
    assert cache_size() == size


@pytest.mark.parametrize("text", ["much", "-1", "1.5G", "8GB", "G", "\u0663"])
def test_a_size_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_CACHE_SIZE", text)
    with pytest.raises(BackendError, match=r"SPECC_CACHE_SIZE is .*; give bytes, such as 8000000000 or 8G"):
        cache_size()


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPECC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(OSError, match="no home directory"):
        cache_root()


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
