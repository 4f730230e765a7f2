"""The verb `cache`: what specc's caches on this machine hold, and how to delete it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specc.cli import console
from specc.cli.arguments import JsonOption, examples, flag, option
from specc.runtime.errors import SpeccError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from specc.runtime.disk_cache import CacheEntry

LIST_EXAMPLES = examples("specc cache list", "specc cache list --json")
CLEAN_EXAMPLES = examples(
    "specc cache clean --older-than 7 --dry-run", "specc cache clean --older-than 7", "specc cache clean --all"
)
CONTENT = {
    "packed": "weights as ONNX Runtime packs them",
    "checked": "files whose sha256 was checked",
    "timing": "timings of TensorRT's kernels",
    "peers": "models converted for peers of a benchmark",
}
DAY = 86400  # seconds
ALL = "Delete every entry."
OLDER_THAN = "Delete the entries that were not used for so many days."
DRY_RUN = "Delete nothing. Print what would be deleted."

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List and delete what specc keeps in its caches on this machine.",
    epilog=examples("specc cache list", "specc cache clean --older-than 7"),
)


@app.command("list", epilog=LIST_EXAMPLES)
def list_entries(json: JsonOption = False) -> None:
    """List the entries of the caches: kind, size and last use.

    SPECC_CACHE says where they are, and SPECC_CACHE_SIZE how large they may be together. Any entry may be deleted at
    any time: it is made again when it is needed.
    """
    from specc.runtime.disk_cache import entries

    listed = entries()
    if json:
        console.emit(_report(listed))
    else:
        console.show(entries_table(listed))


@app.command("clean", epilog=CLEAN_EXAMPLES)
def clean_entries(
    all_: Annotated[bool, flag("--all", ALL)] = False,
    older_than: Annotated[float | None, option("DAYS", OLDER_THAN, min=0)] = None,
    dry_run: Annotated[bool, flag("--dry-run", DRY_RUN)] = False,
    json: JsonOption = False,
) -> None:
    """Delete entries of the caches, and print what was deleted.

    Give --all or --older-than. An entry that a process works on at this moment is kept. A session that uses an entry
    keeps its files until it ends.
    """
    from specc.runtime import disk_cache

    if all_ == (older_than is not None):
        raise SpeccError("specc cache clean deletes files; give either --all or --older-than DAYS")
    unused_seconds = 0 if older_than is None else older_than * DAY
    if dry_run:
        deleted = [entry for entry in disk_cache.entries() if time.time() - entry.last_use >= unused_seconds]
    else:
        deleted = disk_cache.clean(unused_seconds)
    if json:
        console.emit({**_report(deleted), "dry_run": dry_run})
        return
    total = console.size(sum(entry.bytes for entry in deleted))
    count = f"{len(deleted)} {'entry' if len(deleted) == 1 else 'entries'}, {total}"
    print(f"would delete {count}" if dry_run else f"deleted {count}")


def entries_table(listed: Sequence[CacheEntry]) -> RenderableType:
    """Draw a row for each entry, the one that was not used for longest first, and the totals by kind."""
    if not listed:
        return console.text(f"no entries in {_directory() or 'a cache: it is off'}")
    table = console.table("entry", "kind", ("size", "right"), ("last use", "right"))
    for entry in listed:
        table.add_row(entry.path.name[:16], entry.kind, console.size(entry.bytes), _age(time.time() - entry.last_use))
    totals: Counter[str] = Counter()
    for entry in listed:
        totals[entry.kind] += entry.bytes
    facts = console.facts()
    for kind, size in totals.items():
        facts.add_row(kind, f"{console.size(size)}: {CONTENT.get(kind, 'other files')}")
    facts.add_row("total", f"{console.size(totals.total())} in {_directory()}")
    return console.stack(table, "", facts)


def _report(listed: Sequence[CacheEntry]) -> dict[str, Any]:
    """Return entries as plain data."""
    return {
        "directory": _directory(),
        "bytes": sum(entry.bytes for entry in listed),
        "entries": [
            {"path": str(entry.path), "kind": entry.kind, "bytes": entry.bytes, "last_use": entry.last_use}
            for entry in listed
        ],
    }


def _directory() -> str | None:
    """Return the directory of the caches; None if there is none."""
    from specc.runtime.environment import cache_root

    try:
        return str(cache_root())
    except OSError:  # The cache is off, or this user has no home directory.
        return None


def _age(seconds: float) -> str:
    """Write how long ago something was, in the largest unit that fits."""
    for unit, length in (("days", DAY), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return "now"
