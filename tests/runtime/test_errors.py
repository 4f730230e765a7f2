"""Errors of other libraries become one line."""

from __future__ import annotations

import pytest

from specc.runtime.errors import BackendError, backend_errors, first_line, nearest


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("\n  no room \nat bfc_arena.cc"), "no room"),
        (RuntimeError(""), "RuntimeError"),
        (KeyError("a"), "'a'"),
    ],
)
def test_the_first_line_of_an_error_is_its_message_or_its_class(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_a_librarys_error_becomes_a_backend_error_of_one_line() -> None:
    with pytest.raises(BackendError) as e, backend_errors(lambda line: f"it cannot load: {line}; free some"):
        raise RuntimeError("no room\nat bfc_arena.cc")
    assert str(e.value) == "it cannot load: no room; free some" and isinstance(e.value.__cause__, RuntimeError)


def test_a_backend_error_passes_as_it_is() -> None:
    error = BackendError("as it is")
    with pytest.raises(BackendError) as e, backend_errors(lambda line: pytest.fail("was called")):
        raise error
    assert e.value is error


def test_an_interrupt_passes_and_success_is_silent() -> None:
    with pytest.raises(KeyboardInterrupt), backend_errors(str):
        raise KeyboardInterrupt
    with backend_errors(lambda line: pytest.fail("was called")):
        pass


def test_where_no_name_is_near_all_are_listed_or_the_remedy_is_another() -> None:
    assert nearest("zzz", ["count", "tree"]) == "there are count, tree"
    assert nearest("zzz", []) == "there are none"
    assert nearest("zzz", ["count", "tree"], "upgrade specc") == "upgrade specc"
    assert nearest("tre", iter(["count", "tree"]), "upgrade specc") == "did you mean 'tree'?"
