"""Write the directory of a trained model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from specc.heads import Head, save_head
from specc.heads.files import replace_directory
from specc.huggingface import quiet
from specc.huggingface.recursive import loops_of, save_recursive
from specc.runtime.errors import HeadError, first_line

PARTIAL = ".partial"
HEAD = "head"  # The model's directory has a folder of this name, if a head was trained together with the model.


def save_model(
    model: PreTrainedModel, tokenizer: Any, directory: Path, texts: Mapping[str, str], head: Head | None = None
) -> None:
    """Write a model's directory, with its tokenizer. It appears whole or not at all.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        directory: where it goes. It replaces one that is there.
        texts: further files by name, such as card.json and README.md.
        head: a head that was trained together with the model. It gets a directory in that of the model.

    Raises:
        HeadError: it cannot be written.
    """
    partial = directory.with_name(f".{directory.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if loops_of(model) > 1:
            save_recursive(model, partial)
        else:
            with quiet():  # transformers draws a bar
                model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        if head is not None:
            save_head(head, partial / HEAD, texts)
        replace_directory(partial, directory)
    except Exception as e:  # safetensors and tokenizers raise exceptions of their own where the disk is full
        raise HeadError(f"cannot write {directory}: {first_line(e)}; free some space, or choose another place") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)
