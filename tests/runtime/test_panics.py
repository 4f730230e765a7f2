"""What a library in Rust raises is one error of ours, and nothing beside it on standard error if a program asks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from specc.runtime import panics
from specc.runtime.errors import BundleError, SpeccError
from specc.runtime.panics import LibraryErrors

PANICS = """
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from specc.runtime import panics
from specc.runtime.errors import BundleError
SILENCE
tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
try:
    with panics.LibraryErrors(BundleError):
        tokenizer.encode("a" * 40 + "b")
except BundleError as e:
    print(e)
"""


class Panic(BaseException):
    """What a panic is in Python: no Exception."""


@pytest.mark.parametrize("error", [Panic("no such piece\nat line 3"), ValueError("no such piece"), MemoryError()])
def test_whatever_is_raised_becomes_one_line(error: BaseException) -> None:
    with pytest.raises(BundleError) as e, LibraryErrors(lambda reason: BundleError(f"bad file ({reason})")):
        raise error
    assert str(e.value) in ("bad file (no such piece)", "bad file (MemoryError)") and e.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), BundleError("ours")])
def test_exits_and_our_own_errors_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as e, LibraryErrors(SpeccError):
        raise error
    assert e.value is error


def test_threads_that_call_a_library_at_once_leave_standard_error_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w") as null:
        monkeypatch.setattr(panics, "_null", [null.fileno()])
        before, first, second = os.fstat(2), LibraryErrors(SpeccError), LibraryErrors(SpeccError)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert os.path.samestat(os.fstat(2), os.fstat(null.fileno()))  # The second one still calls the library.
        second.__exit__(None, None, None)
        assert os.path.samestat(os.fstat(2), before) and not os.path.samestat(before, os.fstat(null.fileno()))


@pytest.mark.process
@pytest.mark.parametrize("silent", [True, False])
def test_a_panic_prints_its_own_lines_unless_a_program_silences_it(silent: bool) -> None:
    code = PANICS.replace("SILENCE", "panics.silence()" if silent else "")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "retry-limit" in result.stdout and len(result.stdout.splitlines()) == 1
    assert ("panicked" in result.stderr) is not silent
    assert not silent or not result.stderr
