"""Files without an end are refused, by whatever reads them: prompts, texts and archives that unpack to too much."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from specc import bounded_read, prompts
from specc.bounded_read import read_bounded
from specc.exactness import perplexity
from specc.runtime.errors import PromptError


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> int:
    """A bound of 1 MiB."""
    monkeypatch.setattr(bounded_read, "MOST_BYTES", 1 << 20)
    return 1 << 20


def test_a_file_of_the_bound_is_read_whole(bound: int) -> None:
    data = b"a" * bound
    assert read_bounded(io.BytesIO(data), "a file") == data
    with pytest.raises(PromptError, match=r"^a file has more than 1 MiB, which no context takes; shorten it$"):
        read_bounded(io.BytesIO(data + b"a"), "a file")


@pytest.mark.parametrize("read", [prompts.read, prompts.read_lines, perplexity.read])
@pytest.mark.parametrize("name", ["/dev/zero", "/dev/full"])
def test_a_device_without_an_end_is_refused(read: Callable[[Path], object], name: str, bound: int) -> None:
    with pytest.raises(PromptError, match=f"^{name} has more than 1 MiB"):
        read(Path(name))


def test_an_archive_that_unpacks_to_too_much_is_refused(bound: int, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl.gz"
    file.write_bytes(gzip.compress(b"\0" * (bound + 1)))
    assert file.stat().st_size < 5000
    with pytest.raises(PromptError, match="has more than 1 MiB"):
        prompts.read(file)
