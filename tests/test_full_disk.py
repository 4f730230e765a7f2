"""A disk that is full, in each place where specc writes: one line, status 2, and what was there is as before.

The disk is a tmpfs in a mount namespace of its own, so no right of root is needed where Linux allows such namespaces.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from shell import command

pytestmark = pytest.mark.model

IN_NAMESPACE = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
# Mount a small disk at $1, copy $2 into it, fill it but for $3 bytes, run the other arguments, and compare the files.
SCRIPT = """
disk=$1 source=$2 free=$3; shift 3
mount -t tmpfs -o size=8m tmpfs "$disk" || exit 77
[ -z "$source" ] || cp -r "$source" "$disk/"
head -c "$free" /dev/zero > "$disk/room"; cat /dev/zero > "$disk/filler" 2>/dev/null; rm "$disk/room"
before=$(cd "$disk" && find . -type f -exec sha256sum {} + | sort)
"$@"; status=$?
after=$(cd "$disk" && find . -type f -exec sha256sum {} + | sort)
[ "$before" = "$after" ] || echo "FILES CHANGED: $after" >&2
exit $status
"""


def namespaces_are_allowed() -> bool:
    if shutil.which("unshare") is None:
        return False
    mount = "mount -t tmpfs tmpfs /mnt"
    return subprocess.run([*IN_NAMESPACE, mount], capture_output=True, check=False).returncode == 0


needs_namespaces = pytest.mark.skipif(not namespaces_are_allowed(), reason="no mount namespaces for this user")


def on_full_disk(
    disk: Path, *argv: object, source: Path | None = None, free: int = 0, env: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `specc argv…` while a disk at `disk` is full.

    Args:
        disk: a directory, over which the disk is mounted.
        argv: the arguments of specc.
        source: a directory that is copied to the disk first.
        free: the bytes that stay free.
        env: NAME=VALUE, for the environment.
    """
    disk.mkdir(exist_ok=True)
    words = [*(["env", env] if env else []), *command(*argv)]
    script = [*IN_NAMESPACE, SCRIPT, "sh", str(disk), str(source or ""), str(free), *words]
    result = subprocess.run(script, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode != 77, result.stderr
    return result


def check_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a run ended in one line that holds some words, and changed no file of the disk."""
    assert result.returncode == 2, (result.stdout, result.stderr)
    assert "Traceback" not in result.stderr and "FILES CHANGED" not in result.stderr, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if "specc: error: " in line]
    assert all(word in line for word in words), line


@needs_namespaces
def test_a_tune_says_so_before_it_measures(bundle: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    result = on_full_disk(disk, "tune", disk / bundle.name, "--limit", 1, source=bundle)
    check_refused(result, "manifest.json cannot be written", "No space left on device", "make room")
    assert "measure the steps" not in result.stderr


@needs_namespaces
@pytest.mark.slow  # test_compile.py has a compile that a limit stops, in each run of the suite.
@pytest.mark.parametrize("free", [0, 8192])
def test_a_compile_leaves_nothing(free: int, model: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    argv = "compile", model, "-o", disk / "new.specc", "--recipe", "prompt-lookup", "--golden-tokens", 2
    check_refused(on_full_disk(disk, *argv, free=free), "No space left on device")


@needs_namespaces
def test_the_page_of_a_bench_names_its_file(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    disk = tmp_path / "disk"
    argv = "bench", bundle, "--limit", 1, "--max-new-tokens", 2, "--rounds", 1, "--html", disk / "page.html"
    check_refused(on_full_disk(disk, *argv), "page.html", "No space left on device")


@needs_namespaces
def test_answers_to_many_prompts_stop_at_a_whole_line(bundle: Path, tmp_path: Path) -> None:
    disk, prompts = tmp_path / "disk", tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "import os"}) + "\n", encoding="utf-8")
    argv = "generate", bundle, "--prompts", prompts, "--output", disk / "answers.jsonl", "-n", 2
    result = on_full_disk(disk, *argv)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "No space left on device" in result.stderr.splitlines()[-1] or "FILES CHANGED" in result.stderr


@needs_namespaces
@pytest.mark.parametrize("free", [0, 20000])
def test_a_full_cache_changes_no_token(free: int, bundle: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    argv = "generate", bundle, "-p", "import os", "-n", 8, "--raw", "--json"
    full = on_full_disk(disk, *argv, free=free, env=f"SPECC_CACHE={disk}/cache")
    alone = subprocess.run(["env", "SPECC_CACHE=off", *command(*argv)], capture_output=True, text=True, check=True)
    assert full.returncode == 0 and "Traceback" not in full.stderr, full.stderr
    assert json.loads(full.stdout)["token_ids"] == json.loads(alone.stdout)["token_ids"]
    warnings = [line for line in full.stderr.splitlines() if "warning" in line]
    assert all("let SPECC_CACHE name a directory with room" in line for line in warnings), full.stderr
