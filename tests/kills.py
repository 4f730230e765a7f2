"""Kill compile, tune and bench at random times, or let their disk fill up, and look at what remains.

    python -P kills.py MODEL DIRECTORY KILLS SEED

MODEL is a tiny model. The imports are done once: each run is a fork of this process. It prints how many runs there were
of each kind, how many of them came to their end, and what was wrong with any.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch  # noqa: F401  imported before the forks, as are the modules below
import transformers  # noqa: F401

import specc
from specc.bench import Options as BenchOptions
from specc.bench import bench
from specc.compiler import Options, compile_bundle
from specc.runtime.bundle import open_bundle
from specc.runtime.bundle_writer import check_writable, written_whole
from specc.runtime.errors import BundleError, SpeccError
from specc.tuning.tune import tune

PROMPT = "import os"
LONGEST = 240  # seconds of one run, which takes some 10 on an idle machine
CHANCES = {"compile": 1, "overwrite": 1, "tune": 4, "bench": 4, "full compile": 1, "full tune": 2, "full load": 2}


class Trial:
    """A directory with a bundle, in which runs are killed.

    Attributes:
        model: the directory of a tiny model.
        bundle: the bundle that is tuned, measured and replaced.
        new: where a compile writes a new bundle.
        seconds: how long a whole run of each kind takes.
    """

    def __init__(self, model: Path, directory: Path) -> None:
        self.model, self.root = model, directory
        self.cache = directory / "cache"
        os.environ["SPECC_CACHE"] = str(self.cache)
        self.bundle, self.new = directory / "here/old.specc", directory / "here/new.specc"
        self.whole = directory / "whole.specc"
        self.runs: dict[str, Callable[[], object]] = {
            "compile": lambda: self.compile(self.new),
            "overwrite": lambda: self.compile(self.bundle),
            "tune": lambda: tune(self.bundle, tokens=4, limit=1),
            "bench": lambda: bench(BenchOptions(bundle=self.bundle, limit=1, max_new_tokens=4, rounds=1)),
            "load": self.load,
        }
        # This process runs nothing itself: a fork of a process with threads may wait for ever.
        self.tokens = directory / "tokens.json"
        first = {
            "whole": lambda: self.compile(self.whole),
            "expect": lambda: self.tokens.write_text(json.dumps(self.decode(self.whole)), encoding="utf-8"),
        }
        for kind, work in first.items():
            self.runs[kind] = work
            if self.fork(kind) != "done":
                raise RuntimeError(f"{kind} failed")
        self.expected = json.loads(self.tokens.read_text(encoding="utf-8"))
        self.seconds = {}
        for kind in ("compile", "tune", "bench"):
            self.reset()
            start = time.monotonic()
            self.fork(kind)
            self.seconds[kind] = time.monotonic() - start
        self.seconds["overwrite"] = self.seconds["compile"]

    def compile(self, output: Path) -> None:
        prompts = self.root / "prompts.jsonl"
        prompts.write_text(json.dumps({"prompt": PROMPT}) + "\n", encoding="utf-8")
        compile_bundle(
            Options(
                model=str(self.model),
                output=output,
                recipes=("prompt-lookup",),
                prompts=prompts,
                golden_tokens=4,
                overwrite=True,
            )
        )

    def decode(self, bundle: Path) -> list[list[int]]:
        session = specc.load(bundle)
        recipes = ("plain", "prompt-lookup")
        return [session.generate(PROMPT, 8, recipe=r, temperature=0, ignore_eos=True).token_ids for r in recipes]

    def load(self) -> None:
        if self.decode(self.bundle) != self.expected:
            raise RuntimeError("wrong tokens")

    def reset(self) -> None:
        """Begin with a whole bundle and an empty cache."""
        for directory in (self.bundle.parent, self.cache):
            shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(self.whole, self.bundle)

    def fork(self, kind: str, kill_after: float | None = None, file_size: int | None = None) -> str:
        """Run in a process of its own. Return `killed`, `done`, `refused` in one line, or the error."""
        process = os.fork()
        if process == 0:
            status = 1
            try:
                signal.alarm(LONGEST)  # A run that hangs ends by this signal.
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, 1)
                if file_size is not None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
                warnings.simplefilter("ignore")
                self.runs[kind]()
                status = 0
            except (SpeccError, OSError) as e:
                status = 2 if "\n" not in str(e) else 1
            except BaseException as e:
                os.write(2, f"{kind}: {type(e).__name__}: {e}\n".encode())
            finally:
                os._exit(status)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(process, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        return {0: "done", 2: "refused", -signal.SIGKILL: "killed"}.get(status, f"status {status}")

    def faults(self, kind: str, ending: str) -> list[str]:
        """Say what is wrong after a run."""
        faults = [] if ending in ("done", "killed") or (ending == "refused" and "full" in kind) else [ending]
        if "full" in kind:
            faults += [f"{name} was left" for name in self.remnants()]
        for path in (self.bundle, self.new):  # The next runs clear away what remains.
            try:
                with written_whole(path):
                    raise BundleError("it is not written after all")
            except BundleError:
                pass
            if path.exists():
                check_writable(path)
        faults += [f"{name} remained" for name in self.remnants()]
        for path in {self.bundle, *([self.new] if self.new.exists() else [])}:
            try:
                open_bundle(path).check()
            except SpeccError as e:
                faults.append(str(e))
        if (outcome := self.fork("load")) != "done":
            faults.append(f"the next load: {outcome}")
        for entry in self.cache.glob("*/*"):
            faults += [f"{f} remained" for f in entry.glob("*") if f.name.startswith("tmp") or f.suffix == ".partial"]
        return faults

    def remnants(self) -> list[str]:
        """Return the names of files that belong to no bundle."""
        beside = {p.name for p in self.bundle.parent.iterdir()} - {self.bundle.name, self.new.name}
        inside = {p.name for p in self.bundle.rglob("*.partial")}
        return sorted(beside | inside)


def main(model: Path, directory: Path, count: int, seed: int) -> None:
    """Kill `count` runs, and print the counts as JSON."""
    trial, rng = Trial(model, directory), random.Random(seed)
    endings, faults = Counter[str](), list[str]()
    for number in range(count):
        kind = rng.choices(list(CHANCES), list(CHANCES.values()))[0]
        if number < len(CHANCES):
            kind = list(CHANCES)[number]
        trial.reset()
        if "full" in kind:
            run = kind.removeprefix("full ")
            ending = trial.fork(run, file_size=int(10 ** rng.uniform(0, 6)))
        else:
            ending = trial.fork(kind, kill_after=rng.uniform(0, trial.seconds[kind]))
        endings[f"{kind}: {ending}"] += 1
        wrong = trial.faults(kind, ending)
        print(f"{number} {kind}: {ending} {wrong or ''}", file=sys.stderr, flush=True)
        faults += [f"{number} {kind}: {fault}" for fault in wrong]
    print(json.dumps({"endings": dict(sorted(endings.items())), "faults": faults, "seconds": trial.seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
