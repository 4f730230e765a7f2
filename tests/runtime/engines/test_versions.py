"""Versions are compared by their numbers."""

from __future__ import annotations

import pytest

from specc.runtime.engines.versions import numbers


@pytest.mark.parametrize(
    ("version", "parts"),
    [("1.20.1", (1, 20, 1)), ("1.9", (1, 9)), ("1.32.0.dev1", (1, 32, 0)), ("2rc1", ()), ("", ())],
)
def test_the_numbers_at_the_start(version: str, parts: tuple[int, ...]) -> None:
    assert numbers(version) == parts


def test_the_tenth_minor_version_is_newer_than_the_ninth() -> None:
    assert numbers("0.10.0") > numbers("0.9.1") > numbers("0.9") > numbers("")
