"""Read a corpus: the text files of a folder, which recipes that retrieve look up. No torch."""

from __future__ import annotations

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
    texts = []
    for file in corpus_files(folder):
        try:
            texts.append(decode_text(file.read_bytes()))
        except UnicodeDecodeError:
            continue
        except OSError as e:
            raise PromptError(f"cannot read {file}: {e.strerror}; give a folder of files that can be read") from e
    if not any(text.strip() for text in texts):
        raise PromptError(f"the corpus {folder} has no text in UTF-8; give a folder of text files")
    return texts
