"""Remedies for errors of ONNX Runtime. Its errors have one class, so a part of the message chooses the remedy."""

from __future__ import annotations

from .onnx_runtime import ort

MEMORY = "free some memory, or compile with a smaller --max-seq-len"
OPERATORS = "install a newer ONNX Runtime, or compile the bundle again with --lowering portable"
# A part of the message, and what helps. libspecc and runtimes/javascript have the same table.
REMEDIES = {
    "bad_alloc": MEMORY,
    "allocat": MEMORY,
    "memory": MEMORY,
    "is not a registered": OPERATORS,
    "No Op registered": OPERATORS,
    "Could not find an implementation": OPERATORS,
}
DAMAGED = "compile the bundle again"  # The remedy for all other messages, such as those about a cut file.


def remedy(message: str) -> str:
    """Return what a person can do about a message with which ONNX Runtime refuses a file or a call."""
    return next((what for part, what in REMEDIES.items() if part in message), DAMAGED)


def refused_call(message: str) -> str:
    """Return the line that says that ONNX Runtime broke off a call of an engine."""
    return f"ONNX Runtime {ort.__version__} cannot run an engine: {message}; {remedy(message)}"
