"""ONNX Runtime's entries `prepacked_N`, read and written."""

from __future__ import annotations

import pytest

from specc.runtime.engines.prepacked import Copy, Prepacked


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("FusedMatMul+1|4096;288;0", Prepacked("FusedMatMul+1", (Copy(4096, 288, "0"),))),
        ("kernel|0;8;a|16;4;b", Prepacked("kernel", (Copy(0, 8, "a"), Copy(16, 4, "b")))),
        ("kernel", Prepacked("kernel", ())),
    ],
)
def test_an_entry_is_written_as_it_was_read(text: str, entry: Prepacked) -> None:
    assert Prepacked.parse(text) == entry and entry.format() == text


@pytest.mark.parametrize("text", ["kernel|", "kernel|1;2", "kernel|1;2;3;4", "kernel|a;2;0"])
def test_an_entry_of_another_format_is_not_read(text: str) -> None:
    with pytest.raises(ValueError):
        Prepacked.parse(text)
