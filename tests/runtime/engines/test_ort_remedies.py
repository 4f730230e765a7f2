"""The remedies that specc names for errors of ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

import specc
from specc.runtime.engines.ort_remedies import DAMAGED, MEMORY, OPERATORS, remedy
from specc.runtime.errors import BackendError

FROZEN = Path(__file__).parents[2] / "bundles" / "schema-3"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Load model from m.onnx failed:std::bad_alloc", MEMORY),
        ("Failed to allocate memory for requested buffer of size 8", MEMORY),
        ("Fatal error: com.microsoft:Attention(-1) is not a registered function/op", OPERATORS),
        ("Could not find an implementation for Gelu(20)", OPERATORS),
        ("No Op registered for Gelu with domain_version of 20", OPERATORS),
        ("Load model from m.onnx failed:Protobuf parsing failed.", DAMAGED),
    ],
)
def test_a_message_has_the_remedy_of_its_cause(message: str, expected: str) -> None:
    assert remedy(message) == expected


def test_a_call_that_onnx_runtime_breaks_off_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class FullSession:
        def run_with_iobinding(self, binding: object) -> None:
            raise RuntimeError("std::bad_alloc")

    session = specc.load(FROZEN).conversation
    monkeypatch.setattr(session.engines["decode"].runner, "session", FullSession())
    monkeypatch.setattr(session.engines["prefill"].runner, "session", FullSession())
    with pytest.raises(BackendError, match=f"cannot run an engine: std::bad_alloc; {MEMORY}$"):
        session.generate([1, 2, 3], 4, recipe="plain")
