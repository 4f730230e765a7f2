"""The command line in this process, and bundles to break."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from signing import signed

from specc.cli import main


@dataclass(frozen=True)
class CommandResult:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on standard output, which holds nothing else."""
        assert self.status == 0, self.err
        return json.loads(self.out)


def specc(*argv: Any, stdin: bytes = b"") -> CommandResult:
    """Run `specc argv…`."""
    out, err = io.StringIO(), io.StringIO()
    values = io.TextIOWrapper(io.BytesIO(stdin))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.object(sys, "stdin", values):
        try:
            main([str(a) for a in argv])
            status = 0
        except SystemExit as e:
            status = int(e.code or 0)
    return CommandResult(status, out.getvalue(), err.getvalue())


def command(*argv: Any) -> list[str]:
    """`specc argv…` for a process of its own."""
    return [sys.executable, "-m", "specc", *map(str, argv)]


def refused(*argv: Any, stdin: bytes = b"") -> str:
    """The one line with which `specc argv…` refuses its input."""
    result = specc(*argv, stdin=stdin)
    assert result.status == 2 and result.out == "", result
    *progress, line = result.err.splitlines()
    assert line.startswith("specc: error: "), result.err
    assert not any("error" in p or "Traceback" in p for p in progress), result.err
    return line.removeprefix("specc: error: ")


def copied(bundle: Path, directory: Path) -> Path:
    """A copy of a bundle, to break."""
    return Path(shutil.copytree(bundle, directory / "copy.specc"))


def edit_manifest(bundle: Path, edit: Callable[[dict[str, Any]], Any]) -> Path:
    """Change the manifest and sign it again, as a stranger could."""
    file = bundle / "manifest.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    edit(data)
    file.write_bytes(signed(data))
    return bundle


def without_template(bundle: Path) -> Path:
    """Take the chat template away from a bundle."""
    (bundle / "chat_template.jinja").unlink()

    def forget(manifest: dict[str, Any]) -> None:
        del manifest["files"]["chat_template.jinja"]

    return edit_manifest(bundle, forget)


def edit_golden(bundle: Path, edit: Callable[[list[dict[str, Any]]], Any]) -> Path:
    """Change the golden cases, and what the manifest says of their file."""
    file = bundle / "golden.jsonl"
    cases = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    edit(cases)
    file.write_text("".join(json.dumps(c) + "\n" for c in cases), encoding="utf-8")
    message = {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    return edit_manifest(bundle, lambda m: m["files"].update({"golden.jsonl": message}))


def fits(text: str, columns: int) -> None:
    """Check that a printed text is plain, not empty, and at most so many columns wide."""
    assert text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= columns
