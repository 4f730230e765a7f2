"""Run one peer in a process of its own: read an order from each line of standard input, and write one answer line.

Any interpreter that has the peer can run this file as a script: it imports nothing of specc.

    {"do": "load", …}                              {"version": "…", "modes": […], "failed": {mode: why}}
    {"do": "run", "mode": m, "ids": […], "new": n} {"token_ids": […], "first": 1, "prefill_seconds": s, "seconds": s}
    {"do": "memory"}                               {"bytes": n}

`first` is how many tokens came at once with the first one, and `seconds` is the time from then on. If an order fails,
the answer is {"missing": module} or {"error": "…"}. The command line names the file of a peer. This file has a class
Peer(job) with `version`, `modes` and `generate(mode, ids, count, arrive)`. The method calls `arrive(tokens)` as tokens
come, and returns {"drafts": n, "accepted": n} or None.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Seconds between two looks at the processor time of this process. Measured on 2 cores of a Xeon:
# benchmarks/LOG.md#peers-that-answer-when-their-threads-rest. Anew: `specc bench BUNDLE --against onnxruntime-genai`.
PAUSE = 0.01
# Seconds to wait for threads to rest, at most. ONNX Runtime's own threads spin for 0.05 seconds after a run.
LONGEST_REST = 1.0
TRIAL_TOKENS = 8  # Tokens that each mode decodes once after loading, to find out whether it works.
ERROR_LENGTH = 300  # Characters of an error message that are passed on.


class Worker:
    """A peer with the orders that it can carry out. Each method takes the arguments of an order by name."""

    peer: Any

    def __init__(self, file: Path) -> None:
        self.file = file

    def load(self, job: dict[str, Any]) -> dict[str, Any]:
        """Load the peer's file and the model, and try every mode once."""
        spec = importlib.util.spec_from_file_location("peer", self.file)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)

        def make_gguf(source: str, name: str, dtype: str = job["dtype"]) -> str:
            return gguf(source, Path(job["work"]) / f"{name}.gguf", dtype)

        spec.loader.exec_module(module)
        self.peer = module.Peer({**job, "gguf": make_gguf})
        failed: dict[str, str] = {}
        for mode in self.peer.modes:
            try:
                self.run({"mode": mode, "ids": job["ids"], "new": TRIAL_TOKENS})
            except Exception as e:
                failed[mode] = describe(e)
        modes = [mode for mode in self.peer.modes if mode not in failed]
        return {"version": self.peer.version, "modes": modes, "failed": failed}

    def run(self, order: dict[str, Any]) -> dict[str, Any]:
        """Decode one prompt and measure.

        Raises:
            ValueError: the peer gave fewer tokens than the order asks for.
        """
        count: int = order["new"]
        tokens: list[int] = []
        times: list[float] = []
        first = 0

        def arrive(new: list[int]) -> None:
            nonlocal first
            if new and len(tokens) < count:
                times.append(time.perf_counter())
                tokens.extend(new[: count - len(tokens)])
                first = first or len(tokens)

        start = time.perf_counter()
        counts = self.peer.generate(order["mode"], order["ids"], count, arrive)
        rest()
        if len(tokens) < count:
            raise ValueError(f"{len(tokens)} tokens came instead of {count}")
        return {
            "token_ids": tokens,
            "first": first,
            "prefill_seconds": times[0] - start,
            "seconds": times[-1] - times[0],
            **(counts or {}),
        }

    def memory(self, order: dict[str, Any]) -> dict[str, Any]:
        """Return the proportional set size of this process in bytes."""
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return {"bytes": next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024}


def rest(longest: float = LONGEST_REST) -> None:
    """Wait until the threads of this process rest.

    Some libraries' threads spin after their work, and would take the time of the system that runs next.

    Args:
        longest: how many seconds to wait at most.
    """
    end, before = time.perf_counter() + longest, -1.0
    while time.perf_counter() < end and time.process_time() - before > PAUSE / 10:
        before = time.process_time()
        time.sleep(PAUSE)


def gguf(source: str, file: Path, dtype: str) -> str:
    """Return the path of a GGUF file: the source itself, or a file that is made from a Hugging Face directory.

    Args:
        source: a GGUF file, or a directory.
        file: where to keep the file that is made. It is made once.
        dtype: the type of its weights.

    Raises:
        ValueError: the model cannot be converted. The message gives the reason and the remedy.
    """
    if source.endswith(".gguf"):
        return source
    if not file.exists():
        script = str(Path(__file__).with_name("to_gguf.py"))
        command = [sys.executable, "-c", f"import runpy; runpy.run_path({script!r}, run_name='__main__')"]
        command += [source, str(file), dtype]
        result = subprocess.run(command, cwd=file.parent, stdout=2, stderr=subprocess.PIPE, text=True)
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["no reason was given"])[-1]
            raise ValueError(
                f"no GGUF file can be made from {source} ({reason}); give a model that the peer reads with --peer-model"
            )
    return str(file)


def describe(error: Exception) -> str:
    """Return the class and the message of an error in one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:ERROR_LENGTH]


def main() -> None:
    """Answer orders until standard input ends."""
    file = Path(sys.argv[1])
    # A peer's file has the name of the package that it imports. So its folder must not be on the path.
    sys.path = [p for p in sys.path if Path(p).resolve() != file.parent.resolve()]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # Libraries that print to standard output must not disturb the answers.
    worker = Worker(file)
    actions = {"load": worker.load, "run": worker.run, "memory": worker.memory}
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = actions[order.pop("do")](order)
        except ImportError as e:
            answer = {"missing": e.name or describe(e)}
        except Exception as e:
            answer = {"error": describe(e)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
