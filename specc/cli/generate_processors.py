"""The options of `specc generate` for processors, from the command line to a request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specc.runtime.errors import PromptError

if TYPE_CHECKING:
    from specc.runtime.processors.logprobs import TokenLogprobs
    from specc.runtime.text import Text


def parse_biases(values: Sequence[str]) -> dict[int, float] | None:
    """Parse the values of --logit-bias, TOKEN=BIAS each.

    Returns:
        The biases by token; None if there are none.

    Raises:
        PromptError: a value is not TOKEN=BIAS, or a token or a bias is not a number.
    """
    biases = {}
    for value in values:
        token, _, bias = value.partition("=")
        try:
            biases[int(token)] = float(bias)
        except ValueError:
            remedy = "give a token id and a number, such as 42=-5"
            raise PromptError(f"--logit-bias {value!r} is not TOKEN=BIAS; {remedy}") from None
    return biases or None


def read_schema(value: str | None) -> str | None:
    """Return the text of a JSON schema: `value` itself if it begins with a brace, else that of the file so named.

    Raises:
        PromptError: it is empty, or the file cannot be read.
    """
    if value is None or value.lstrip().startswith("{"):
        return value
    if not value.strip():
        raise PromptError("--json-schema is empty; give a file or the text of a JSON schema")
    return read_text("--json-schema", Path(value))


def read_text(name: str, file: Path | None) -> str | None:
    """Read a grammar from a file; None without a file.

    Args:
        name: the name of the option, for the error message.
        file: the file.

    Raises:
        PromptError: it cannot be read.
    """
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        raise PromptError(f"{name} {file} cannot be read: {reason}; give another file") from e


def logprobs_json(logprobs: Sequence[TokenLogprobs], text: Text) -> list[dict[str, Any]]:
    """Return log-probabilities as plain data, with each token as the tokenizer writes it."""
    return [
        {
            **_token(entry.token_id, entry.logprob, text),
            "top_logprobs": [_token(token, logprob, text) for token, logprob in entry.top.items()],
        }
        for entry in logprobs
    ]


def _token(token: int, logprob: float, text: Text) -> dict[str, Any]:
    return {"token_id": token, "token": text.tokenizer.id_to_token(token), "logprob": logprob}
