"""A runtime for specc bundles with numpy and ONNX Runtime alone: docs/bundle-format.md as a program.

    python examples/minimal_runtime.py build/demo.specc        # replays the golden outputs by every recipe it knows

It decodes greedily, from tokens to tokens. Text, sampling, lanes and other backends are left out.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

VERSIONS = {"plain": 1, "prompt-lookup": 1, "token-recycling": 1, "match": 1}  # Of the algorithms that are here.


class Engine:
    """An engine over the rows of one cache. Its arrays are bound once, and the rows are written in place."""

    def __init__(self, spec: dict[str, Any], session: Any, rows: dict[str, np.ndarray]) -> None:
        self.parents, self.slots, self.rows = spec["block"]["topology"]["parents"], spec["inputs"][0]["shape"][1], rows
        self.session, self.binding, self.arrays = session, session.io_binding(), dict[str, np.ndarray]()
        for tensors, bind in ((spec["inputs"], self.binding.bind_input), (spec["outputs"], self.binding.bind_output)):
            for tensor in tensors:
                row = tensor["name"].partition(".")[2]  # Empty if the tensor has no rows of a cache.
                array = rows[row] if row else np.zeros(tensor["shape"], tensor["dtype"])
                bind(tensor["name"], "cpu", 0, array.dtype, array.shape, array.ctypes.data)
                self.arrays[tensor["name"]] = array

    def run(self, tokens: list[int], past_len: int) -> dict[str, np.ndarray]:
        """Run tokens, one in each of the first slots, behind `past_len` rows. Return all arrays by name."""
        self.arrays["input_ids"][0, : len(tokens)], self.arrays["past_len"][0] = tokens, past_len
        if "row" in self.arrays:  # The engine returns the outputs of one row: that of the last token.
            self.arrays["row"][0] = len(tokens) - 1
        self.session.run_with_iobinding(self.binding)
        return self.arrays

    def commit(self, past_len: int, path: list[int]) -> None:
        """Move the rows of a path of slots behind the first `past_len` rows."""
        for rows in self.rows.values() if path[-1] >= len(path) else ():
            rows[0, :, past_len : past_len + len(path)] = rows[0][:, [past_len + slot for slot in path]]


class Runtime:
    """A bundle with the caches of one sequence."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Check a bundle. Raise ValueError if it was changed, or is of a schema that this program does not know."""
        content = (path / "manifest.json").read_bytes()
        if hashlib.sha256(content[:-68] + b"0" * 64 + content[-4:]).hexdigest().encode() != content[-68:-4]:
            raise ValueError(f"{path}: the manifest was changed, or its schema is 1; compile the bundle again")
        self.path, self.manifest = path, json.loads(content)
        if (schema := self.manifest["schema"]) not in (2, 3):
            raise ValueError(f"{path} has schema {schema!r}, and this runtime reads 2 and 3; use a newer runtime")
        if (name := self.manifest["default_recipe"]) not in [recipe["name"] for recipe in self.manifest["recipes"]]:
            raise ValueError(f"{path} lacks its default recipe {name!r}; compile it again")
        if not 0 <= (gap := self.manifest["near_tie_tolerance"]) <= 1:
            raise ValueError(f"{path} has the tolerance {gap!r}, not one of 0 to 1; compile it again")
        self.specs = {engine["name"]: engine for engine in self.manifest["engines"] if engine["backend"] == "onnx"}
        files = {name: file["sha256"] for name, file in self.manifest["files"].items()}
        named = [e.get(key) or self.manifest["weights"] for e in self.specs.values() for key in ("file", "weights")]
        for name in {*files, *named, "golden.jsonl"}:
            if not (path / name).is_file() or hashlib.sha256((path / name).read_bytes()).hexdigest() != files.get(name):
                raise ValueError(f"{path / name} was changed, or is not in the manifest; compile the bundle again")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        load = cache(lambda file: onnxruntime.InferenceSession(path / file, options))  # Engines share files.
        self.engine = cache(lambda name: Engine(self.specs[name], load(self.specs[name]["file"]), self.rows))
        kv = self.manifest["caches"]["target"]
        shapes = {f"{name}.{kind}": shape for name, shape in kv["layers"].items() for kind in ("key", "value")}
        self.rows = {row: np.zeros((1, h, kv["capacity"], size), kv["dtype"]) for row, (h, size) in shapes.items()}

    def generate(self, prompt: list[int], recipe: dict[str, Any]) -> Iterator[int]:
        """Decode until an end-of-sequence token comes. Yield each token."""
        prefill, tokens = self.engine("prefill"), list(prompt)
        for start in range(0, len(prompt), prefill.slots):
            outputs = prefill.run(prompt[start : start + prefill.slots], start)
        new, after = [int(outputs["ids"][0, 0])], dict[int, list[int]]()  # By token that ran, likeliest first.
        while True:
            tokens += new
            yield from new
            draft, parents = propose(recipe, tokens, after)
            engine = next(e for e in map(self.engine, recipe["verify"]) if e.parents[: len(parents)] == parents)
            outputs = engine.run(draft, len(tokens) - 1)
            ids = outputs["ids"][0].tolist()
            path = accept(draft, parents, ids)
            engine.commit(len(tokens) - 1, path)
            if "top_ids" in outputs:
                after |= dict(zip(draft, outputs["top_ids"][0].tolist(), strict=False))
            new = [*(draft[slot] for slot in path[1:]), ids[path[-1]]]

    def golden_cases(self) -> list[dict[str, Any]]:
        """Read the golden cases. Raise ValueError if there are none, or if one is not of this model, or no test."""
        with suppress(Exception):  # A line that is no case is no test either.
            cases = [json.loads(raw) for raw in (self.path / "golden.jsonl").read_bytes().splitlines() if raw.strip()]
            tests = [c for c in cases if c["prompt_ids"] and 0 < len(c["token_ids"]) == len(c["gaps"])]
            tests = [c for c in tests if all(type(gap) in (int, float) and 0 <= gap < np.inf for gap in c["gaps"])]
            tests = [c for c in tests if 2 * sum(gap >= 0.001 for gap in c["gaps"]) >= len(c["gaps"])]
            tokens = set(range(self.manifest["model"]["vocab_size"]))
            prompts = {tuple(c["prompt_ids"]) for c in tests if tokens.issuperset(c["prompt_ids"] + c["token_ids"])}
            if 0 < len(cases) == len(prompts):
                return cases
        raise ValueError("golden.jsonl has no cases, two of one prompt, or one that tests nothing; compile it again")

    def replay(self, recipe: dict[str, Any]) -> Counter[str]:
        """Decode each golden prompt by a recipe, and count how the tokens compare with the golden ones."""
        verdicts, tolerance = Counter[str](), min(self.manifest["near_tie_tolerance"], 0.001)
        for case in self.golden_cases():
            triples = zip(case["token_ids"], case["gaps"], self.generate(case["prompt_ids"], recipe), strict=False)
            gap = next((gap for golden, gap, token in triples if token != golden), None)
            verdicts["identical" if gap is None else "near-tie" if gap < tolerance else "diverged"] += 1
        return verdicts


def propose(recipe: dict[str, Any], tokens: list[int], after: dict[int, list[int]]) -> tuple[list[int], list[int]]:
    """Return the tokens of a draft, the pending one first, and the parent of each."""
    values, draft = recipe["parameters"], tokens[-1:]
    if recipe["drafter"] == "token-recycling":
        for slot, parent in enumerate(values["tree"][1:], 1):  # Siblings take the likeliest tokens in turn.
            draft.append(after[draft[parent]][values["tree"][:slot].count(parent)] if draft[parent] in after else 0)
        return draft, values["tree"]
    if recipe["drafter"] == "prompt-lookup":
        draft += lookup(tokens, values["prompt_lookup_num_tokens"], values["max_matching_ngram_size"])
    return draft, list(range(-1, len(draft) - 1))


def lookup(tokens: list[int], count: int, longest: int) -> list[int]:
    """Return what followed the longest of the last n-grams at its latest place before, or nothing."""
    for size in range(min(longest, len(tokens) - 1), 0, -1):
        for end in range(len(tokens) - 1, size - 1, -1):
            if tokens[end - size : end] == tokens[-size:]:
                return (tokens[end:] * count)[: max(1, count // (1 + longest - size))]
    return []


def accept(draft: list[int], parents: list[int], ids: list[int]) -> list[int]:
    """Return the path of slots whose tokens are the target's own, by the rule `match`."""
    longer = [[0]]
    while longer:  # Several children may hold one token. Then all of them are followed.
        paths, token = longer, ids[longer[0][-1]]
        longer = [[*path, s] for path in paths for s, t in enumerate(draft) if parents[s] == path[-1] and t == token]
    return paths[0]


def main() -> bool:
    """Replay the golden outputs, and print a line for each recipe. Return whether a recipe diverged."""
    if len(sys.argv) != 2:
        raise ValueError("give one bundle: python examples/minimal_runtime.py BUNDLE")
    runtime, failed = Runtime(Path(sys.argv[1])), False
    for recipe in runtime.manifest["recipes"]:
        needs = {recipe[kind]: recipe.get(f"{kind}_version", 1) for kind in ("drafter", "acceptance")}
        if lacks := [f"{name}, version {version}" for name, version in needs.items() if VERSIONS.get(name) != version]:
            print(f"{recipe['name']:20} not replayed: this runtime lacks {' and '.join(lacks)}")
            continue
        verdicts = runtime.replay(recipe)
        failed |= verdicts["diverged"] > 0
        print(f"{recipe['name']:20}", ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()))
    return failed


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # as shells do for a program that an interrupt ended
    except Exception as e:  # Bundles come from strangers. Whatever fails, one line says it.
        print(f"error: {' '.join(sys.argv[1:])}: {type(e).__name__}: {e}".splitlines()[0], file=sys.stderr)
        sys.exit(2)  # 1 says that a recipe diverged.
