"""A reader that is written from docs/bundle-format.md alone runs the frozen bundle: json, numpy and ONNX Runtime.

It imports nothing of specc. Where the page leaves a choice, it chooses otherwise than specc's runtime: caches are not
bound in place, and prompts run at a width that no engine has.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

BUNDLE = Path(__file__).parents[1] / "bundles" / "schema-1"
MANIFEST = json.loads((BUNDLE / "manifest.json").read_text(encoding="utf-8"))
GOLDEN = [json.loads(line) for line in (BUNDLE / "golden.jsonl").read_text(encoding="utf-8").splitlines()]
ENGINES = {e["name"]: e for e in MANIFEST["engines"]}
Caches = dict[str, np.ndarray]


def canonical(text: str) -> str:
    """Write JSON as the digest wants it, with each number's own text."""
    numbers: list[str] = []

    def keep(number: str) -> str:
        numbers.append(number)
        return f"\0{len(numbers) - 1}\0"

    data = json.loads(text, parse_int=keep, parse_float=keep)
    del data["manifest_sha256"]
    return re.sub(r'"\\u0000(\d+)\\u0000"', lambda m: numbers[int(m[1])], json.dumps(data, sort_keys=True))


class Reader:
    """Engines of the bundle and the caches of one sequence."""

    def __init__(self) -> None:
        self.sessions: dict[str, Any] = {}
        self.caches: dict[str, Caches] = {}
        for name, cache in MANIFEST["caches"].items():
            self.caches[name] = {
                f"{layer}.{kind}": np.zeros((1, heads, cache["capacity"], size), np.float32)
                for layer, (heads, size) in cache["layers"].items()
                for kind in ("key", "value")
            }

    def call(self, name: str, tokens: list[int], past_len: int, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Run tokens in the first slots, and keep the rows that the engine returns."""
        engine = ENGINES[name]
        block, file = engine["block"], engine["file"]
        if file not in self.sessions:
            self.sessions[file] = onnxruntime.InferenceSession(BUNDLE / file, providers=["CPUExecutionProvider"])
        session, cache = self.sessions[file], self.caches[block.get("cache", "target")]
        width = next(i.shape[1] for i in session.get_inputs() if i.name == "input_ids")
        slots = width if isinstance(width, int) else len(tokens)  # A width with a name may be any number.
        feed = {
            "input_ids": np.array([tokens + [0] * (slots - len(tokens))]),
            "past_len": np.array([past_len]),
            **inputs,
        }
        if block.get("last_row"):
            feed["row"] = np.array([len(tokens) - 1])
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


def draft(parents: list[int], truth: list[int], rng: np.random.Generator) -> list[int]:
    """Fill a tree: along one random path the tokens that are right, elsewhere random ones."""
    path = [int(rng.integers(len(parents)))]
    while path[0]:
        path.insert(0, parents[path[0]])
    tokens: list[int] = rng.integers(0, 512, len(parents)).tolist()
    for depth, slot in enumerate(path[: len(truth)]):
        tokens[slot] = truth[depth]
    return tokens


def match(parents: list[int], tokens: list[int], ids: np.ndarray) -> tuple[list[int], int]:
    """Accept as the page says; return the path and the new token."""
    paths = [[0]]
    while True:
        token = int(ids[paths[0][-1]])
        children = [(p, s) for p in paths for s, parent in enumerate(parents) if parent == p[-1] and tokens[s] == token]
        if not children:
            return paths[0], token
        paths = [[*p, s] for p, s in children]


def test_the_digest_is_computed_from_the_text_of_the_numbers() -> None:
    text = (BUNDLE / "manifest.json").read_text(encoding="utf-8")
    assert hashlib.sha256(canonical(text).encode()).hexdigest() == MANIFEST["manifest_sha256"]


@pytest.mark.parametrize("case", range(len(GOLDEN)))
@pytest.mark.parametrize(("name", "most"), [("prefill", 64), ("decode", 1), ("decode", 200)])
def test_plain_decoding_after_every_kind_of_prefill(case: int, name: str, most: int) -> None:
    reader, golden = Reader(), GOLDEN[case]
    rows, token = reader.prefill(golden["prompt_ids"], name, most)
    tokens = [token]
    while len(tokens) < len(golden["token_ids"]):
        token = int(reader.call("decode", [token], rows)["ids"][0, 0])
        tokens.append(token)
        rows += 1
    assert tokens == golden["token_ids"]


@pytest.mark.parametrize("case", range(len(GOLDEN)))
@pytest.mark.parametrize("name", ["verify-early-exit", "verify-lookahead", "verify-dynamic-tree", "verify-chain-6"])
def test_trees_are_verified_and_committed(case: int, name: str) -> None:
    """Drafts are right along a random path of the tree, so rows that are not the first ones are committed."""
    reader, golden, rng = Reader(), GOLDEN[case], np.random.default_rng(case)
    topology = ENGINES[name]["block"]["topology"]
    rows, token = reader.prefill(golden["prompt_ids"], "decode", 200)
    tokens, moves = [token], 0
    while len(tokens) < len(golden["token_ids"]):
        parents = topology.get("parents") or [-1, *(int(rng.integers(s)) for s in range(1, topology["slots"]))]
        inputs = {} if "parents" in topology else {"parents": np.array(parents)}
        guess = draft(parents, golden["token_ids"][len(tokens) - 1 :], rng)
        guess[0] = tokens[-1]
        path, token = match(parents, guess, reader.call(name, guess, rows, **inputs)["ids"][0])
        moves += path != list(range(len(path)))
        rows = reader.commit(rows, path)
        tokens += [*(guess[slot] for slot in path[1:]), token]
    assert tokens[: len(golden["token_ids"])] == golden["token_ids"]
    assert moves > 0 or "chain" in name


@pytest.mark.parametrize(("name", "plain"), [("assistant-draft-dynamic-tree", "assistant-draft")])
def test_a_frontier_grows_a_tree_whose_branches_do_not_see_each_other(name: str, plain: str) -> None:
    """Two branches grow side by side; each token's logits are those that a chain gives."""
    topology = ENGINES[name]["block"]["topology"]
    slots, span = topology["slots"], topology["span"]
    prompt, root, branches = GOLDEN[1]["prompt_ids"], 7, ([11, 12], [21, 22])

    def chain(tokens: list[int]) -> np.ndarray:
        reader = Reader()
        reader.prefill(prompt, "assistant-prefill", 64)
        logits: list[np.ndarray] = [
            reader.call(plain, [token], len(prompt) + i)["logits"][0, 0] for i, token in enumerate(tokens)
        ]
        return logits[-1]

    reader = Reader()
    reader.prefill(prompt, "assistant-prefill", 64)

    def grow(tokens: list[int], grown: int, visible: list[list[int]], depths: list[int]) -> np.ndarray:
        """Run tokens after `grown` rows of the tree. visible: for each the rows of the tree that it sees."""
        past_len = len(prompt) + grown
        mask, depth = np.ones((slots, span), bool), np.zeros(slots, np.int64)
        for slot, rows in enumerate(visible):
            for column in range(span):
                row = past_len + slots - span + column
                mask[slot, column] = row < len(prompt) or row - len(prompt) in rows
            depth[slot] = len(prompt) + depths[slot] - past_len
        result: np.ndarray = reader.call(name, tokens, past_len, mask=mask, depth=depth)["logits"][0]
        return result

    logits = grow([root], 0, [[0]], [0])
    np.testing.assert_allclose(logits[0], chain([root]), atol=1e-4)
    firsts = [branch[0] for branch in branches]
    logits = grow(firsts, 1, [[0, 1], [0, 2]], [1, 1])
    for slot, first in enumerate(firsts):
        np.testing.assert_allclose(logits[slot], chain([root, first]), atol=1e-4)
    logits = grow([branch[1] for branch in branches], 3, [[0, 1, 3], [0, 2, 4]], [2, 2])
    for slot, branch in enumerate(branches):
        np.testing.assert_allclose(logits[slot], chain([root, *branch]), atol=1e-4)
    assert np.abs(logits[0] - logits[1]).max() > 1e-2
