"""One peer in a process of its own: an order a line on standard input, an answer a line on standard output.

Run as a script, by any interpreter that has the peer: it imports nothing of specc.

    {"do": "load", …}                              {"version": "…", "modes": […], "failed": {mode: why}}
    {"do": "run", "mode": m, "ids": […], "new": n} {"token_ids": […], "first": 1, "prefill_seconds": s, "seconds": s}
    {"do": "memory"}                               {"bytes": n}

`first` is how many tokens came with the first, and `seconds` what passed from then on. An answer {"missing": module}
or {"error": "…"} says why there is none. A peer's file, named on the command line, has a class Peer(job) with
`version`, `modes` and `generate(mode, ids, count, arrive)`, which calls `arrive(tokens)` as they come and returns
{"drafts": n, "accepted": n} or None.
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

PAUSE = 0.01  # seconds between two looks at what this process spends


class Peers:
    """The peer, once it is loaded."""

    peer: Any

    def __init__(self, file: Path) -> None:
        self.file = file

    def load(self, job: dict[str, Any]) -> dict[str, Any]:
        spec = importlib.util.spec_from_file_location("peer", self.file)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        job["gguf"] = lambda source, name, dtype=job["dtype"]: gguf(source, Path(job["work"]) / f"{name}.gguf", dtype)
        spec.loader.exec_module(module)
        self.peer = module.Peer(job)
        failed: dict[str, str] = {}
        for mode in self.peer.modes:
            try:
                self.run({"mode": mode, "ids": job["ids"], "new": 8})
            except Exception as e:
                failed[mode] = told(e)
        modes = [mode for mode in self.peer.modes if mode not in failed]
        return {"version": self.peer.version, "modes": modes, "failed": failed}

    def run(self, order: dict[str, Any]) -> dict[str, Any]:
        tokens: list[int] = []
        times: list[float] = []
        first = 0

        def arrive(new: list[int]) -> None:
            nonlocal first
            if new and len(tokens) < order["new"]:
                times.append(time.perf_counter())
                tokens.extend(new[: order["new"] - len(tokens)])
                first = first or len(tokens)

        start = time.perf_counter()
        counts = self.peer.generate(order["mode"], order["ids"], order["new"], arrive)
        rest()
        if len(tokens) < order["new"]:
            raise ValueError(f"{len(tokens)} tokens came instead of {order['new']}")
        return {
            "token_ids": tokens, "first": first, "prefill_seconds": times[0] - start, "seconds": times[-1] - times[0],
            **(counts or {}),
        }  # fmt: skip

    def memory(self, order: dict[str, Any]) -> dict[str, Any]:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return {"bytes": next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024}


def rest(longest: float = 1.0) -> None:
    """Wait for threads that spin on after their work, or they would take the time of whoever runs next.

    ONNX Runtime's do for 50 ms; at most `longest` seconds are given.
    """
    end, spent = time.perf_counter() + longest, -1.0
    while time.perf_counter() < end and time.process_time() - spent > PAUSE / 10:
        spent = time.process_time()
        time.sleep(PAUSE)


def gguf(source: str, file: Path, dtype: str) -> str:
    """A GGUF file as given, or made of a Hugging Face directory."""
    if source.endswith(".gguf"):
        return source
    if not file.exists():
        convert = str(Path(__file__).with_name("to_gguf.py"))
        command = [sys.executable, "-c", f"import runpy; runpy.run_path({convert!r}, run_name='__main__')"]
        made = subprocess.run(
            [*command, source, str(file), dtype], cwd=file.parent, stdout=2, stderr=subprocess.PIPE, text=True
        )
        if made.returncode:
            why = (made.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ValueError(f"no GGUF file can be made of {source} ({why}); give what it reads with --peer-model")
    return str(file)


def told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def main() -> None:
    file = Path(sys.argv[1])
    sys.path = [p for p in sys.path if Path(p).resolve() != file.parent.resolve()]  # a peer's file has its name
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    peers = Peers(file)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = getattr(peers, order.pop("do"))(order)
        except ImportError as e:
            answer = {"missing": e.name or told(e)}
        except Exception as e:
            answer = {"error": told(e)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
