"""The errors that specc raises on purpose. A message is one line: what is wrong, the value, the remedy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches


class SpeccWarning(UserWarning):
    """A notice about something that works all the same. The command line prints it as one line."""


class SpeccError(Exception):
    """A mistake of the user or of the input. Everything else that is raised is a defect of specc."""


class TreeError(SpeccError, ValueError):
    """A tree literal or a parent vector that does not describe a tree."""


class RecipeError(SpeccError, ValueError):
    """A recipe or parameter that does not exist, or a value that is out of range."""


class BundleError(SpeccError):
    """A bundle that is missing, damaged, or of another schema."""


class PromptError(SpeccError, ValueError):
    """A prompt that a session cannot take."""


class BusyError(SpeccError):
    """A model that has as many waiting requests as it takes."""


class CaptureError(SpeccError):
    """A model that cannot be captured."""


class HeadError(SpeccError):
    """A trained head that is missing, damaged or made for another model, or that cannot be trained."""


class PassError(SpeccError):
    """A pass that did not find what it must rewrite."""


class BackendError(SpeccError):
    """A backend that cannot build an engine, or run one, on this machine."""


# What Python raises where a drafter or a rule gets an engine, a parameter or numbers that it cannot use.
CODE_ERRORS = (
    TypeError, ValueError, LookupError, ArithmeticError, AttributeError, AssertionError, MemoryError, RecursionError,
)  # fmt: skip


def printable(text: str) -> str:
    """Return a text with escapes for what no terminal should get: control characters and halves of surrogate pairs."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error message, or the error's class if the message is empty."""
    return next((printable(line.strip()) for line in str(error).splitlines() if line.strip()), type(error).__name__)


def nearest(name: str, names: Iterable[str], otherwise: str = "") -> str:
    """Return a hint for a name that is not among `names`: the nearest of them. If none is near, `otherwise`, or all."""
    names = list(names)
    near = get_close_matches(name, names, 1)
    return f"did you mean {near[0]!r}?" if near else otherwise or f"there are {', '.join(names) or 'none'}"


def check_unicode(text: str, name: str) -> None:
    """Check that a text can be written as UTF-8.

    Args:
        text: the text.
        name: what the text is, for the error message.

    Raises:
        PromptError: it has half of a surrogate pair, as Python makes of bytes that are not UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise PromptError(
            f"{name} has the lone surrogate U+{ord(text[e.start]):04X} at character {e.start}; give UTF-8 text"
        ) from e


@contextlib.contextmanager
def backend_errors(message: Callable[[str], str]) -> Iterator[None]:
    """Turn every error of the block into a BackendError. A SpeccError passes as it is.

    Libraries such as ONNX Runtime raise classes of their own that have no common base but Exception.

    Args:
        message: makes the text from the first line of the library's message. It is called after the failure, so it may
            ask how much memory is free.
    """
    try:
        yield
    except SpeccError:
        raise
    except Exception as e:
        raise BackendError(message(first_line(e))) from e
