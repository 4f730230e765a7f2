"""The steps that all exports to other runtimes share: check the engine, copy the tokenizer, judge the replay."""

from __future__ import annotations

import shutil
from pathlib import Path

from specc.exactness import golden
from specc.runtime.bundle import Bundle
from specc.runtime.engines import kernels
from specc.runtime.errors import BackendError
from specc.runtime.manifest import EngineSpec

TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def check_standard(bundle: Bundle, engine: EngineSpec) -> None:
    """Refuse an engine with operators that only specc-kernels has.

    Raises:
        BackendError: it has some.
    """
    if kernels.needed(engine):
        raise BackendError(
            f"the engine {engine.name} has operators of {kernels.PACKAGE}; "
            f"first run specc export --standard {bundle.path}"
        )


def copy_text_files(bundle: Bundle, directory: Path) -> None:
    """Copy those files of the tokenizer that a bundle has."""
    for name in bundle.manifest.files.keys() & set(TEXT_FILES):
        shutil.copyfile(bundle.file(name), directory / name)


def check_answer(runtime: str, number: int, answer: list[int], case: golden.Case, tolerance: float) -> None:
    """Compare an answer of another runtime with a golden output.

    Args:
        runtime: the other runtime, as the subject of a sentence.
        number: that of the golden output.
        answer: the tokens.
        case: the golden output.
        tolerance: the distance of two logits below which their tokens may change places.

    Raises:
        BackendError: a token differs and is no near-tie.
    """
    result = golden.judge("", number, answer, case, tolerance)
    if result.verdict is golden.Verdict.DIVERGED:
        raise BackendError(
            f"{runtime} gives token {result.token} where golden output {number} has token {result.expected} at "
            f"{result.at}, so nothing is written; report this"
        )
