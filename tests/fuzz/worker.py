"""A process that tries mutated bundles: for each a child of its own runs the command line, within bounds.

Run it as `python tests/fuzz/worker.py DIRECTORY FIRST LAST [STEP]`. It prints a JSON object for each seed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
os.environ |= {"SPECC_CACHE": "off", "SPECC_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

from specc.cli import main as main_of_specc  # noqa: E402  before tests/specc can be found

sys.path.insert(0, str(ROOT / "tests"))
from fuzz.mutators import FROZEN, mutation, write  # noqa: E402
from fuzz.verdicts import FAULT, verdict  # noqa: E402

SECONDS = 60  # Of wall clock, on a machine that does other work.
CPU_SECONDS = 20
BYTES = 8 << 30


def run(arguments: tuple[str, ...], bundle: Path, output: Path) -> dict[str, object]:
    """Run the command line in a child and return its status, or the signal that ended it, with both its outputs."""
    child = os.fork()
    if not child:
        _become_command(arguments, bundle, output)
    end = time.monotonic() + SECONDS
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"status": "hang", "out": "", "err": ""}
        time.sleep(0.002)
    status = os.waitstatus_to_exitcode(done[1])
    texts = {name: (output / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err")}
    return {"status": status, **texts}


def _become_command(arguments: tuple[str, ...], bundle: Path, output: Path) -> None:
    """Run the command line in this process, which ends with it."""
    status = FAULT
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(output / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        main_of_specc([arguments[0], str(bundle), *arguments[1:]])
        status = 0
    except SystemExit as e:
        status = int(e.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _import_everything(directory: Path) -> None:
    """Run commands that fail, so that a child finds all modules imported. No session may be loaded before a fork."""
    for verb in ("generate", "test"):
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
            main_of_specc([verb, str(directory / "nowhere"), *(["--prompt", "a"] if verb == "generate" else [])])


def main(directory: Path, first: int, last: int, step: int = 1) -> None:
    """Try the mutations of some seeds."""
    _import_everything(directory)
    expected: dict[tuple[str, ...], object] = {}
    for seed in range(first, last, step):
        mutated, bundle = mutation(seed), directory / str(seed)
        start = time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        if mutated.arguments[0] == "generate" and mutated.arguments not in expected:
            result = run(mutated.arguments, FROZEN, directory)
            assert result["status"] == 0, result
            expected[mutated.arguments] = json.loads(str(result["out"]))["token_ids"]
        write(mutated, bundle)
        result = run(mutated.arguments, bundle, directory)
        judged = verdict(result, mutated, expected.get(mutated.arguments))
        shutil.rmtree(bundle)
        seconds = time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - start
        report = {
            "seed": seed,
            "kind": mutated.kind,
            "what": mutated.what,
            "verdict": judged,
            "seconds": round(seconds, 3),
        }
        print(json.dumps(report | {"err": str(result["err"])[-1500:]}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
