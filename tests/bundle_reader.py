"""A reader that is written from docs/bundle-format.md alone: json, numpy and ONNX Runtime, and nothing of specc.

Where the page leaves a choice, it chooses otherwise than specc's runtime: caches are not bound in place, and prompts
run at a width that no engine has.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

Caches = dict[str, np.ndarray]


class Bundle:
    """A bundle, and the files that its engines have opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        self.golden = [json.loads(line) for line in (path / "golden.jsonl").read_text(encoding="utf-8").splitlines()]
        self.engines = {engine["name"]: engine for engine in self.manifest["engines"]}
        self.sessions: dict[str, Any] = {}

    def session(self, file: str) -> Any:
        """Open a file, once."""
        if file not in self.sessions:
            session = onnxruntime.InferenceSession(self.path / file, providers=["CPUExecutionProvider"])
            self.sessions[file] = session
        return self.sessions[file]


class Reader:
    """The caches of one sequence."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.caches: dict[str, Caches] = {}
        for name, cache in bundle.manifest["caches"].items():
            self.caches[name] = {
                f"{layer}.{kind}": np.zeros((1, heads, cache["capacity"], size), np.float32)
                for layer, (heads, size) in cache["layers"].items()
                for kind in ("key", "value")
            }

    def call(self, name: str, tokens: list[int], past_len: int, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Run tokens in the first slots, and keep the rows that the engine returns."""
        engine = self.bundle.engines[name]
        block = engine["block"]
        session, cache = self.bundle.session(engine["file"]), self.caches[block.get("cache", "target")]
        width = next(i.shape[1] for i in session.get_inputs() if i.name == "input_ids")
        slots = width if isinstance(width, int) else len(tokens)  # A width with a name may be any number.
        feed = {
            "input_ids": np.array([tokens + [0] * (slots - len(tokens))]),
            "past_len": np.array([past_len]),
            **({"row": np.array([len(tokens) - 1])} if block.get("last_row") else {}),
            **inputs,
        }
        for tensor in engine["inputs"]:
            prefix, _, row = tensor["name"].partition(".")
            if prefix == "past_key_values":
                feed[tensor["name"]] = cache[row]
        names = [o["name"] for o in engine["outputs"]]
        outputs = dict(zip(names, session.run(names, feed), strict=True))
        for output in names:
            prefix, _, row = output.partition(".")
            if prefix == "present":
                cache[row] = outputs.pop(output)
        return outputs

    def commit(self, past_len: int, path: list[int]) -> int:
        """Copy the rows of a path to their places; return the number of rows."""
        for array in self.caches["target"].values():
            for i, slot in enumerate(path):
                array[:, :, past_len + i] = array[:, :, past_len + slot]
        return past_len + len(path)

    def prefill(self, prompt: list[int], name: str, most: int) -> tuple[int, int]:
        """Run a prompt in parts of `most` tokens; return the number of rows and the first new token."""
        outputs: dict[str, np.ndarray] = {}
        for start in range(0, len(prompt), most):
            outputs = self.call(name, prompt[start : start + most], start)
        return len(prompt), int(outputs["ids"][0, -1])


def match(parents: list[int], tokens: list[int], ids: np.ndarray) -> tuple[list[int], int]:
    """Accept as the page says; return the path and the new token."""
    paths = [[0]]
    while True:
        token = int(ids[paths[0][-1]])
        children = [(p, s) for p in paths for s, parent in enumerate(parents) if parent == p[-1] and tokens[s] == token]
        if not children:
            return paths[0], token
        paths = [[*p, s] for p, s in children]
