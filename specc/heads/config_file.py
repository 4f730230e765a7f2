"""Read what a directory of a head has beside its weights: config.json, whoever wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from specc.runtime.errors import HeadError, first_line

CONFIG = "config.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MOST_BYTES = 1 << 20  # A configuration has some hundred bytes, and a list of layers at most.
MOST_CHARACTERS = 60  # of a value in a message


def read_object(file: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object from a user's file.

    Args:
        file: the file.
        remedy: how messages end.

    Raises:
        HeadError: it is missing, no regular file, longer than MOST_BYTES, or no JSON object.
    """
    try:
        check_regular(file, remedy)
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise HeadError(f"{file} has more than {MOST_BYTES >> 20} MiB, and no head needs so much; {remedy}")
        data = json.loads(content)
    except (OSError, ValueError, RecursionError) as e:
        raise HeadError(f"{file} cannot be read: {first_line(e)}; {remedy}") from e
    if not isinstance(data, dict):
        raise HeadError(f"{file} is no JSON object; {remedy}")
    return data


def check_regular(file: Path, remedy: str) -> None:
    """Refuse a file that is there and is not a regular one. To read a pipe would never end. Raises HeadError."""
    if file.exists() and not file.is_file():
        raise HeadError(f"{file} is not a regular file; {remedy}")


def shown(value: object) -> str:
    """Return a value for a message, in one line and cut where it is long."""
    text = repr(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."


def pickle_error(directory: Path) -> HeadError | None:
    """Return the error for a directory whose weights are a pickle, with the way to convert it; None if it has none."""
    pickled = next((file for file in sorted(directory.iterdir()) if file.suffix in PICKLES), None)
    if pickled is None:
        return None
    return HeadError(
        f"{directory} holds its weights as a pickle ({pickled.name}), which can run code; read them with "
        f"torch.load({str(pickled)!r}, weights_only=True), and write its tensors with "
        f"safetensors.torch.save_file(tensors, {str(directory / 'model.safetensors')!r})"
    )
