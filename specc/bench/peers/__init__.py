"""Other systems on the same model, each in a process of its own that any interpreter may run.

One file a peer; `worker.py` says what is in it and what passes between the processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from specc.bench.systems import Run
from specc.runtime.errors import BackendError, RecipeError

PEERS = {  # name -> file, and what installs it
    "transformers": ("transformers.py", "pip install torch transformers"),
    "onnxruntime-genai": ("onnxruntime_genai.py", "pip install --no-deps onnxruntime-genai"),
    "openvino-genai": ("openvino_genai.py", "pip install openvino-genai gguf llama-cpp-python"),
    "llama.cpp": ("llama_cpp.py", "pip install llama-cpp-python gguf"),
}


@dataclass(frozen=True)
class Job:
    """What every peer is given. `model` and `assistant` are directories; `work` is for what a peer makes of them."""

    model: str
    assistant: str | None
    dtype: str
    threads: int
    context: int
    work: str
    ids: Sequence[int]  # a prompt to try each mode on


class Peer:
    """A running peer. Raises BackendError, with the remedy, where it does not load or breaks off."""

    def __init__(self, name: str, job: Job, python: str | None = None) -> None:
        if name not in PEERS:
            near = get_close_matches(name, PEERS, 1)
            raise RecipeError(f"no peer {name!r}; " + (f"did you mean {near[0]!r}?" if near else _known()))
        file, self.install = PEERS[name]
        here = Path(__file__).parent
        self.name = name
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115  close() closes it
        try:
            self.process = subprocess.Popen(
                [python or sys.executable, str(here / "worker.py"), str(here / file)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=self.said, text=True, encoding="utf-8",
                env=os.environ | {"OMP_NUM_THREADS": str(job.threads), "TOKENIZERS_PARALLELISM": "false"},
            )  # fmt: skip
        except OSError as e:
            raise BackendError(f"{python} does not run ({e.strerror}); name an interpreter: {self._python()}") from e
        try:
            loaded = self._ask("load", vars(job))
        except BaseException:
            self.close()
            raise
        self.version, self.modes, self.failed = str(loaded["version"]), tuple(loaded["modes"]), dict(loaded["failed"])

    def run(self, mode: str, ids: Sequence[int], count: int, seed: int) -> Run:
        return Run(**self._ask("run", {"mode": mode, "ids": list(ids), "new": count}))

    def renew(self) -> None:
        pass

    def memory(self) -> int | None:
        return int(self._ask("memory", {})["bytes"])

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.said.close()

    def _ask(self, what: str, order: Mapping[str, Any]) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"do": what, **order}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"it ended with status {self.process.wait()}; {self._last()}"}
        if missing := answer.get("missing"):
            raise BackendError(f"{missing} is not installed; {self.install}, or {self._python()}")
        if error := answer.get("error"):
            raise BackendError(f"it fails: {error}; choose others with --against")
        return dict(answer)

    def _last(self) -> str:
        """The last line that it wrote beside its answers."""
        self.said.seek(0)
        lines = self.said.read().strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _python(self) -> str:
        return f"--peer-python {self.name}=PYTHON for an interpreter that has it"


@contextlib.contextmanager
def closing(peers: list[Peer]) -> Iterator[None]:
    """End the processes of the peers that are in the list when the block ends."""
    try:
        yield
    finally:
        for peer in peers:
            peer.close()


def _known() -> str:
    return f"there are {', '.join(PEERS)}"
