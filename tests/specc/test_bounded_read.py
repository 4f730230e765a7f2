"""Files of users are read up to a bound. All readers leave out a byte order mark at the start of a file."""

from __future__ import annotations

import gzip
import importlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specc import bounded_read, prompts
from specc.bounded_read import decode_text, read_bounded
from specc.exactness import perplexity
from specc.runtime.errors import PromptError, SpeccError


def tokenize(text: str, **options: Any) -> dict[str, Any]:
    """Return a token for each character, as a tokenizer of transformers would."""
    return {"input_ids": list(map(ord, text)), "offset_mapping": [(i, i + 1) for i in range(len(text))]}


# Whatever reads a file that a user wrote: the function, the name and the text of the file, and its other arguments.
READERS: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "specc.prompts:read": ("p.jsonl", '{"prompt": "a", "category": "b"}', ()),
    "specc.prompts:read_lines": ("p.jsonl", '{"turns": ["a"]}', ()),
    "specc.exactness.perplexity:read": ("t.txt", "a text", ()),
    "specc.corpus:read_corpus": ("t.txt", "a text", ()),
    "specc.recipes:method": ("mine.toml", "base = 'layer-skip'", ()),
    "specc.cli.prompt_source:_read_text": ("p.txt", "a prompt", ()),
    "specc.cli.generate_processors:read_schema": ("schema.json", "{}", ()),
    "specc.training.prompts:_of_file": ("t.txt", "a text", (tokenize, 9)),
    "specc.training.served:_lines": ("answers.jsonl", "{}", ()),
    "specc.training.judge:read_marked": ("m.jsonl", '{"prompt": "a", "answer": "b"}', (tokenize,)),
}


each_reader = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.torch] * (".training." in name)) for name in READERS]
)


def reader_of(name: str) -> Callable[..., Any]:
    """Return the function of a name in READERS."""
    module, _, function = name.partition(":")
    read: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return read


def argument_of(name: str, file: Path) -> Any:
    """Return a file as a reader takes it."""
    return str(file) if name.startswith(("specc.recipes", "specc.cli.generate_processors")) else file


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


@each_reader
def test_a_byte_order_mark_changes_nothing_in_any_file_that_a_user_wrote(name: str, tmp_path: Path) -> None:
    """Editors on Windows write it. A text that begins with the mark and another one, as control, keeps the second."""
    file_name, text, others = READERS[name]
    file = tmp_path / file_name
    argument = argument_of(name, file)

    def comparable(mark: str) -> str:
        file.write_text(mark + text, encoding="utf-8")
        result = reader_of(name)(argument, *others)
        return repr(getattr(result, "parameters", result))

    assert comparable("\ufeff") == comparable("")


@each_reader
def test_a_missing_file_is_refused_without_the_number_of_the_reason(name: str, tmp_path: Path) -> None:
    """The command line takes the number out of an OSError itself."""
    file_name, _, others = READERS[name]
    file = tmp_path / file_name
    with pytest.raises((SpeccError, OSError)) as error:
        reader_of(name)(argument_of(name, file), *others)
    assert file_name in str(error.value)
    assert isinstance(error.value, OSError) or "Errno" not in str(error.value)


def test_a_mark_that_is_not_at_the_start_stays() -> None:
    assert decode_text(b"\xef\xbb\xbfa\xef\xbb\xbf") == "a\ufeff"
