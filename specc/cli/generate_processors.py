"""The options of `specc generate` for processors, from the command line to a request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specc.bounded_read import read_text
from specc.runtime.errors import PromptError

if TYPE_CHECKING:
    from specc.runtime.detokenizer import Decoder
    from specc.runtime.processors.logprobs import TokenLogprobs
    from specc.runtime.request import RequestOptions
    from specc.runtime.stream import Stream
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
    return read_grammar("--json-schema", Path(value))


def read_grammar(name: str, file: Path | None) -> str | None:
    """Read a grammar from a file; None without a file.

    Args:
        name: the name of the option, for the error message.
        file: the file.

    Raises:
        PromptError: it cannot be read, or has no end.
    """
    if file is None:
        return None
    try:
        with file.open("rb") as opened:
            return read_text(opened, f"{name} {file}")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        raise PromptError(f"{name} {file} cannot be read: {reason}; give another file") from e


def logprobs_json(logprobs: Sequence[TokenLogprobs], text: Text) -> list[dict[str, Any]]:
    """Return log-probabilities as plain data: each token by its id, as the tokenizer writes it, and as text."""
    return [
        {
            **_token(entry.token_id, entry.logprob, text),
            "top_logprobs": [_token(token, logprob, text) for token, logprob in entry.top.items()],
        }
        for entry in logprobs
    ]


def logprobs_lines(logprobs: Sequence[TokenLogprobs], text: Text) -> list[str]:
    """Write log-probabilities as a table: a line for each token, with the likeliest tokens at its place."""
    rows = [("logprob", "token", "likeliest tokens, if they were asked for")]
    for entry in logprobs:
        likeliest = [f"{_name(token, text)} {logprob:.3f}" for token, logprob in entry.top.items()]
        rows.append((f"{entry.logprob:.3f}", _name(entry.token_id, text), ", ".join(likeliest)))
    width = max(len(token) for _, token, _ in rows)
    return [f"{logprob:>8}  {token:{width}}  {likeliest}".rstrip() for logprob, token, likeliest in rows]


def cut_warning(stream: Stream, options: RequestOptions, text: Text) -> str:
    """Say that an answer by a grammar was cut before it was whole; nothing if it is whole, or there is no grammar.

    Args:
        stream: the request, at its end.
        options: its options.
        text: the tokenizer.
    """
    from specc.runtime.processors.options import ProcessorOptions

    json_schema, regex, lark = options.get("json_schema"), options.get("regex"), options.get("lark")
    grammar = ProcessorOptions(json_schema=json_schema, regex=regex, lark=lark).grammar(text)
    if grammar is None:
        return ""
    grammar.commit(stream.token_ids)
    if grammar.complete:
        return ""
    kind = "complete JSON" if json_schema is not None else f"a whole answer by --{grammar.option}"
    by_length = "give a larger --max-new-tokens, or a shorter prompt if the context is full"
    remedy = by_length if stream.finish_reason == "length" else "leave out what stops it"
    return f"the answer was cut after {len(stream.token_ids)} tokens and is not {kind}; {remedy}"


def token_text(token: int, decoder: Decoder) -> str | None:
    """Return the text that a token adds to a text; None if it adds none, or a part of a character.

    The token is decoded behind itself, since some tokenizers leave out a space at the beginning of a text.
    """
    from specc.runtime.detokenizer import PARTIAL

    once, twice = decoder.decode([token]), decoder.decode([token, token])
    if PARTIAL in twice or not twice.startswith(once):
        return None
    return twice.removeprefix(once) or None


def _name(token: int, text: Text) -> str:
    """Return the text of a token in quotes. Without one, return how the tokenizer writes it, or else its number."""
    added = token_text(token, text.decoder)
    if added is not None:
        return json.dumps(added, ensure_ascii=False)
    return text.tokenizer.id_to_token(token) or str(token)


def _token(token: int, logprob: float, text: Text) -> dict[str, Any]:
    return {
        "token_id": token,
        "token": text.tokenizer.id_to_token(token),
        "text": token_text(token, text.decoder),
        "logprob": logprob,
    }
