"""Other systems on the same model, each in a process of its own, which any interpreter may run.

Each peer has one file in this folder. `worker.py` says what such a file holds, and what passes between the processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from specc.bench.systems import Run
from specc.runtime.errors import BackendError, RecipeError, nearest


@dataclass(frozen=True)
class PeerSource:
    """A file of this folder that runs a peer, and the command that installs what it needs."""

    file: str
    install: str


PEERS = {
    "transformers": PeerSource("transformers.py", "pip install torch transformers"),
    "onnxruntime-genai": PeerSource("onnxruntime_genai.py", "pip install --no-deps onnxruntime-genai"),
    "openvino-genai": PeerSource("openvino_genai.py", "pip install openvino-genai gguf llama-cpp-python"),
    "llama.cpp": PeerSource("llama_cpp.py", "pip install llama-cpp-python gguf"),
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """The data that every peer gets when it starts.

    Attributes:
        model: the directory of the model, or another form of it that the peer reads.
        assistant: the directory of a draft model, or None.
        dtype: the type of the bundle's weights, such as fp32.
        threads: how many threads the peer may use.
        context: tokens that must fit, prompt and answer.
        work: a directory for files that the peer makes from the model.
        ids: a prompt on which each mode is tried.
    """

    model: str
    assistant: str | None
    dtype: str
    threads: int
    context: int
    work: str
    ids: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class PeerOutcome:
    """A report on one peer.

    Attributes:
        name: the name of the peer.
        version: its version; None if it did not start.
        modes: the modes that ran.
        failed: why a mode was left out, by its name.
        problem: why the peer was left out; None if it ran to the end.
    """

    name: str
    version: str | None = None
    modes: Sequence[str] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None


def source(name: str) -> PeerSource:
    """Look a peer up by name.

    Raises:
        RecipeError: no peer has this name. The message names the nearest, or all.
    """
    if name not in PEERS:
        raise RecipeError(f"no peer {name!r}; {nearest(name, PEERS)}")
    return PEERS[name]


class Peer:
    """A peer that runs, as a system of a benchmark."""

    def __init__(self, name: str, job: Job, python: str | None = None) -> None:
        """Start the peer and load the model.

        Args:
            name: the name of the peer, one of PEERS.
            job: what the peer gets.
            python: the interpreter that has the peer. None takes the one of this process.

        Raises:
            RecipeError: no peer has this name.
            BackendError: the peer does not start or does not load the model. The message names the remedy.
        """
        peer, folder = source(name), Path(__file__).parent
        self.name, self.install = name, peer.install
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  The method close() closes it.
        try:
            self.process = subprocess.Popen(
                [python or sys.executable, str(folder / "worker.py"), str(folder / peer.file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                text=True,
                encoding="utf-8",
                env=os.environ | {"OMP_NUM_THREADS": str(job.threads), "TOKENIZERS_PARALLELISM": "false"},
            )
        except OSError as e:
            self.log.close()
            raise BackendError(f"{python} does not run ({e.strerror}); name an interpreter: {self._python()}") from e
        try:
            answer = self._ask("load", asdict(job))
        except BaseException:
            self.close()
            raise
        self.version = str(answer["version"])
        self.modes = tuple(answer["modes"])
        self.failed = dict(answer["failed"])

    def run(self, mode: str, ids: Sequence[int], count: int, seed: int) -> Run:
        """Decode `count` tokens greedily, so that the seed has no effect.

        Raises:
            BackendError: the peer broke off.
        """
        return Run(**self._ask("run", {"mode": mode, "ids": list(ids), "new": count}))

    def renew(self) -> None:
        """Do nothing, since peers keep nothing from one prompt to the next."""

    def memory(self) -> int | None:
        """Return the memory of the peer's process in bytes. Shared pages count in part."""
        return int(self._ask("memory", {})["bytes"])

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.log.close()

    def _ask(self, action: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Send an order and wait for the answer.

        Raises:
            BackendError: the process has ended, or the answer is an error. The message names the remedy.
        """
        assert self.process.stdin and self.process.stdout
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"do": action, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        if not line:
            raise _broken(f"it ended with status {self.process.wait()}; {self._last_line()}")
        answer: dict[str, Any] = json.loads(line)
        if missing := answer.get("missing"):
            raise BackendError(f"{missing} is not installed; {self.install}, or {self._python()}")
        if error := answer.get("error"):
            raise _broken(error)
        return answer

    def _last_line(self) -> str:
        """Return the last line that the process wrote beside its answers."""
        self.log.seek(0)
        lines = self.log.read().strip().splitlines()
        return lines[-1] if lines else "it wrote no message"

    def _python(self) -> str:
        return f"--peer-python {self.name}=PYTHON for an interpreter that has it"


def _broken(reason: str) -> BackendError:
    return BackendError(f"it fails: {reason}; choose others with --against")
