"""The property of a mutated bundle: the right tokens, or one line."""

from __future__ import annotations

import json

from fuzz.mutators import Mutation

RIGHT = {"same", "changed", "tested", "refused"}
FAULT = 99  # The status of a command that ended by an exception of Python.


def verdict(result: dict[str, object], mutated: Mutation, expected: object) -> str:
    """Judge what a run did: `same`, `changed`, `tested` and `refused` are right, anything else says what is wrong."""
    status, err = result["status"], str(result["err"])
    if not isinstance(status, int) or status < 0 or status == FAULT:
        return f"status {status}"
    if "Traceback" in err:
        return "traceback"
    if status == 2:
        lines = err.splitlines()
        wrong = [line for line in lines if not line.startswith("specc: ") or not line.isprintable()]
        named = [line for line in lines if line.startswith("specc: error: ")]
        return "refused" if len(named) == 1 and not wrong else "refused in other than one line"
    if mutated.arguments[0] == "test":
        return "tested" if status in (0, 1) else f"status {status}"
    if status:
        return f"status {status}"
    tokens = json.loads(str(result["out"]))["token_ids"]
    if tokens == expected:
        return "same"
    return "changed" if mutated.may_change else "wrong tokens"
