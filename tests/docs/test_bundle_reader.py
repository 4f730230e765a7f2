"""A reader that is written from docs/bundle-format.md alone runs the frozen bundles."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from bundle_reader import Bundle, Reader, match

BUNDLES = Path(__file__).parents[1] / "bundles"
OF_EACH_SCHEMA = pytest.mark.parametrize("bundle", ["schema-1", "schema-2", "schema-3"], indirect=True)
CASES = range(4)


@pytest.fixture(scope="module")
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return Bundle(BUNDLES / request.param)


def canonical(text: str) -> str:
    """Write JSON as the digest wants it, with each number's own text."""
    numbers: list[str] = []

    def keep(number: str) -> str:
        numbers.append(number)
        return f"\0{len(numbers) - 1}\0"

    data = json.loads(text, parse_int=keep, parse_float=keep)
    del data["manifest_sha256"]
    return re.sub(r'"\\u0000(\d+)\\u0000"', lambda m: numbers[int(m[1])], json.dumps(data, sort_keys=True))


def draft(parents: list[int], truth: list[int], rng: np.random.Generator) -> list[int]:
    """Fill a tree: along one random path the tokens that are right, elsewhere random ones."""
    path = [int(rng.integers(len(parents)))]
    while path[0]:
        path.insert(0, parents[path[0]])
    tokens: list[int] = rng.integers(0, 512, len(parents)).tolist()
    for depth, slot in enumerate(path[: len(truth)]):
        tokens[slot] = truth[depth]
    return tokens


def test_the_digest_of_schema_1_is_computed_from_the_text_of_the_numbers() -> None:
    text = (BUNDLES / "schema-1" / "manifest.json").read_text(encoding="utf-8")
    assert hashlib.sha256(canonical(text).encode()).hexdigest() == json.loads(text)["manifest_sha256"]


def test_the_digest_of_schema_2_is_computed_from_the_bytes_of_the_file() -> None:
    content = (BUNDLES / "schema-2" / "manifest.json").read_bytes()
    digits = content[-68:-4]
    assert hashlib.sha256(content[:-68] + b"0" * 64 + content[-4:]).hexdigest() == digits.decode()


@OF_EACH_SCHEMA
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("name", "most"), [("prefill", 64), ("decode", 1), ("decode", 200)])
def test_plain_decoding_after_every_kind_of_prefill(bundle: Bundle, case: int, name: str, most: int) -> None:
    reader, golden = Reader(bundle), bundle.golden[case]
    rows, token = reader.prefill(golden["prompt_ids"], name, most)
    tokens = [token]
    while len(tokens) < len(golden["token_ids"]):
        token = int(reader.call("decode", [token], rows)["ids"][0, 0])
        tokens.append(token)
        rows += 1
    assert tokens == golden["token_ids"]


@OF_EACH_SCHEMA
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["verify-early-exit", "verify-lookahead", "verify-dynamic-tree", "verify-chain-6"])
def test_trees_are_verified_and_committed(bundle: Bundle, case: int, name: str) -> None:
    """Drafts are right along a random path of the tree, so rows that are not the first ones are committed."""
    reader, golden, rng = Reader(bundle), bundle.golden[case], np.random.default_rng(case)
    topology = bundle.engines[name]["block"]["topology"]
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


@OF_EACH_SCHEMA
def test_a_frontier_grows_a_tree_whose_branches_do_not_see_each_other(bundle: Bundle) -> None:
    """Two branches grow side by side; each token's logits are those that a chain gives."""
    name, plain = "assistant-draft-dynamic-tree", "assistant-draft"
    topology = bundle.engines[name]["block"]["topology"]
    slots, span = topology["slots"], topology["span"]
    prompt, root, branches = bundle.golden[1]["prompt_ids"], 7, ([11, 12], [21, 22])

    def chain(tokens: list[int]) -> np.ndarray:
        reader = Reader(bundle)
        reader.prefill(prompt, "assistant-prefill", 64)
        logits: list[np.ndarray] = [
            reader.call(plain, [token], len(prompt) + i)["logits"][0, 0] for i, token in enumerate(tokens)
        ]
        return logits[-1]

    reader = Reader(bundle)
    reader.prefill(prompt, "assistant-prefill", 64)

    def grow(tokens: list[int], offset: int, visible: list[list[int]], depths: list[int]) -> np.ndarray:
        """Run tokens after `offset` rows of the tree. visible: for each the rows of the tree that it sees."""
        past_len = len(prompt) + offset
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
