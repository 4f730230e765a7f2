"""Read a corpus: the text files of a folder, which recipes that retrieve look up. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from specc.bounded_read import decode_text
from specc.runtime.errors import PromptError

MOST_BYTES = 1 << 30  # of all files together


def corpus_files(folder: Path) -> list[Path]:
    """Return the files of a corpus, in the order of their names: those of a folder and its subfolders, or one file.

    Raises:
        PromptError: there is no such folder, it has no file, or its files are too large.
    """
    if folder.is_file():
        files = [folder]
    elif folder.is_dir():
        files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    else:
        raise PromptError(f"no corpus at {folder}; give a folder of text files, or one file")
    size = sum(file.stat().st_size for file in files)
    if not size:
        raise PromptError(f"the corpus {folder} is empty; give a folder with some text")
    if size > MOST_BYTES:
        raise PromptError(f"the corpus {folder} has {size} bytes; {MOST_BYTES} are the most: give fewer files")
    return files


def read_corpus(folder: Path) -> list[str]:
    """Return the texts of a corpus. Files that are not UTF-8 are left out.

    Raises:
        PromptError: there is no text.
    """
    texts = list(_texts(folder))
    _check_texts(folder, texts)
    return texts


def check_corpus(folder: Path) -> None:
    """Check that a corpus has some text. No file is read behind the first one that has any.

    Raises:
        PromptError: there is no text.
    """
    _check_texts(folder, _texts(folder))


def _check_texts(folder: Path, texts: Iterable[str]) -> None:
    """Raise PromptError if no text of a corpus has a character that is not white space."""
    if not any(text.strip() for text in texts):
        raise PromptError(f"the corpus {folder} has no text in UTF-8; give a folder of text files")


def _texts(folder: Path) -> Iterator[str]:
    """Yield the text of each file in UTF-8. Raises PromptError for a file that cannot be read."""
    for file in corpus_files(folder):
        try:
            yield decode_text(file.read_bytes())
        except UnicodeDecodeError:
            continue
        except OSError as e:
            raise PromptError(f"cannot read {file}: {e.strerror}; give a folder of files that can be read") from e
