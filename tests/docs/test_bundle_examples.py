"""Every example of docs/bundle-examples.md holds: for a reader that knows the page alone, and for specc's runtime."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from bundle_reader import Bundle, Reader
from bundle_reader import match as match_by_the_page
from pages import ROOT, blocks, read

from specc.exactness.golden import Case, compare
from specc.runtime.acceptance.match import match
from specc.runtime.block import Block, Frontier, Parents
from specc.runtime.bundle import open_bundle
from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.drafters.early_exit import EarlyExit
from specc.runtime.drafters.prompt_lookup import NgramIndex
from specc.runtime.engine import Engine
from specc.runtime.engines.onnx_file import parse
from specc.runtime.errors import BundleError
from specc.runtime.json_codec import from_json, to_json
from specc.runtime.manifest import FileSpec
from specc.runtime.manifest_file import digest
from specc.runtime.sampling import Sampling
from specc.runtime.stats import Stats
from specc.runtime.text import Text
from specc.runtime.tree import Tree

PAGE = read(ROOT / "docs" / "bundle-examples.md")
BLOCKS = {block.title.removeprefix('title="').removesuffix('"'): block.text for block in blocks(PAGE, "json")}
PATH = Path(__file__).parents[1] / "bundles" / "schema-2"


def example(number: int) -> Any:
    return json.loads(BLOCKS[str(number)])


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle(PATH)


@pytest.fixture
def reader(bundle: Bundle) -> Reader:
    return Reader(bundle)


@pytest.fixture
def warm_reader(reader: Reader) -> Reader:
    """A reader that has run the prompt of example 1."""
    (prompt, *_) = example(1)["calls"]
    reader.call(prompt["engine"], prompt["input_ids"], 0)
    return reader


def test_the_examples_are_numbered_and_each_has_a_test() -> None:
    headings = re.findall(r"^### (\d+)\. ", PAGE, re.MULTILINE)
    assert headings == list(BLOCKS) == [str(number) for number in range(1, 24)]
    tests = re.findall(r"^def test_(\d+)_", Path(__file__).read_text(encoding="utf-8"), re.MULTILINE)
    assert tests == headings


def test_1_positions_follow_past_len_and_the_pending_token_has_no_row(reader: Reader) -> None:
    calls, (_, _, golden, _) = example(1)["calls"], reader.bundle.golden
    assert (example(1)["prompt"], calls[0]["input_ids"]) == (golden["prompt"], golden["prompt_ids"])
    rows = 0
    for number, call in enumerate(calls):
        tokens, past_len = call["input_ids"], call["past_len"]
        assert past_len == rows and call["positions"] == list(range(past_len, past_len + len(tokens)))
        assert number == 0 or tokens == [calls[number - 1]["token"]]
        outputs = reader.call(call["engine"], tokens, past_len)
        assert int(outputs["ids"][0, -1]) == call["token"] == golden["token_ids"][number]
        rows = reader.commit(past_len, list(range(len(tokens))))
        assert rows == call["rows_after"]


def test_2_row_names_the_slot_whose_outputs_are_returned(reader: Reader) -> None:
    data = example(2)
    tokens = data["input_ids"]
    assert len(reader.bundle.engines[data["engine"]]["block"]["topology"]["parents"]) == data["slots"]
    assert data["row"] == len(tokens) - 1
    every = reader.call("decode", tokens, 0)["ids"][0]
    for row in range(len(tokens)):
        ids = reader.call(data["engine"], tokens, 0, row=np.array([row]))["ids"]
        assert list(ids.shape) == data["shape_of_ids"] and ids[0, 0] == every[row]
    assert every[data["row"]] == data["token"]


def test_3_padding_writes_scratch_rows_and_changes_nothing_before_it(warm_reader: Reader) -> None:
    data = example(3)
    block, cache = warm_reader.bundle.engines[data["engine"]]["block"], warm_reader.bundle.manifest["caches"]["target"]
    assert (block["topology"]["slots"], cache["capacity"]) == (data["slots"], data["capacity"])
    tokens, past_len, count = data["input_ids"], data["past_len"], len(data["input_ids"])
    before = {name: array.copy() for name, array in warm_reader.caches["target"].items()}
    results = []
    for padding in (0, 511):
        padded = [*tokens, *[padding] * (data["slots"] - count)]
        parents = np.array([*data["parents"], *[0] * (data["slots"] - count)])
        results.append(warm_reader.call(data["engine"], padded, past_len, parents=parents)["logits"][0, :count])
    np.testing.assert_array_equal(results[0], results[1])
    written = {
        int(row)
        for name, array in warm_reader.caches["target"].items()
        for row in np.flatnonzero((array[0] != before[name][0]).any(axis=(0, 2)))
    }
    assert sorted(written) == data["rows_written"]
    assert data["rows_after"] == past_len + count
    assert data["most_past_len"] == data["capacity"] - data["slots"]
    for engine in warm_reader.bundle.manifest["engines"]:
        topology = engine["block"]["topology"]
        slots = topology.get("slots") or len(topology["parents"])
        assert warm_reader.bundle.manifest["model"]["context"] - 1 + slots <= data["capacity"]


def test_4_a_long_prompt_runs_in_parts_or_in_one_call_of_another_width(bundle: Bundle) -> None:
    data = example(4)
    prompt = bundle.golden[data["case"]]["prompt_ids"]
    assert len(prompt) == data["tokens"] and bundle.golden[data["case"]]["token_ids"][0] == data["token"]
    for way in data["ways"]:
        reader, past_len, token = Reader(bundle), 0, -1
        for call in way:
            assert call["past_len"] == past_len
            assert call.get("row", call["tokens"] - 1) == call["tokens"] - 1
            outputs = reader.call(call["engine"], prompt[past_len : past_len + call["tokens"]], past_len)
            past_len, token = past_len + call["tokens"], int(outputs["ids"][0, -1])
        assert (past_len, token) == (len(prompt), data["token"])


def test_5_a_new_sequence_does_not_clear_its_cache(reader: Reader) -> None:
    data = example(5)
    arrays = reader.caches["target"].values()
    assert {float(array.max()) for array in arrays} == {data["initial"]}
    for array in arrays:
        array[:] = data["stale"]
    outputs = reader.call("decode", data["input_ids"], data["past_len"])
    assert int(outputs["ids"][0, -1]) == data["token"] == example(1)["calls"][0]["token"]


def test_6_verify_overwrites_the_rows_of_a_draft(warm_reader: Reader) -> None:
    data = example(6)
    row, (pending, *_) = data["draft"]["past_len"], data["draft"]["input_ids"]
    alone = Reader(warm_reader.bundle)
    alone.call("decode", [*example(1)["calls"][0]["input_ids"], pending], 0)

    def differing() -> list[str]:
        own, true = warm_reader.caches["target"], alone.caches["target"]
        return sorted({n.split(".")[0] for n in own if np.abs(own[n][:, :, row] - true[n][:, :, row]).max() > 1e-4})

    for name in ("draft", "verify"):
        call = data[name]
        assert call["past_len"] == row
        warm_reader.call(call["engine"], call["input_ids"], row)
        assert differing() == data[f"layers_that_differ_after_{name}"]


def test_7_rows_of_a_path_are_copied_in_ascending_order() -> None:
    for data in example(7):
        start, path = data["past_len"], data["path"]
        copies = [[start + slot, start + i] for i, slot in enumerate(path) if slot != i]
        assert copies == data["copies"] and data["rows_after"] == start + len(path)
        rows = list(range(32))
        for source, target in copies:
            rows[target] = rows[source]
        assert rows[start : start + len(path)] == [start + slot for slot in path]


def test_8_a_field_that_is_left_out_has_its_default() -> None:
    data = example(8)
    assert to_json(from_json(Block, data["written"])) == data["read"]


def test_9_the_fields_of_a_topology_tell_which_one_it_is() -> None:
    kinds = {Tree: "Tree", Parents: "Parents", Frontier: "Frontier"}
    for data in example(9):
        block = {"topology": data["topology"]}
        if data["is"] is None:
            with pytest.raises(BundleError, match="fits none of Tree, Parents, Frontier"):
                from_json(Block, block)
        else:
            assert kinds[type(from_json(Block, block).topology)] == data["is"]


def test_10_a_mask_says_which_of_the_last_rows_a_slot_sees(bundle: Bundle) -> None:
    data = example(10)
    prompt = example(1)["calls"][0]["input_ids"]
    slots, span, before = data["slots"], data["span"], data["rows_before"]
    assert bundle.engines[data["engine"]]["block"]["topology"] == {"slots": slots, "span": span}
    assert len(prompt) == before
    reader, outputs = Reader(bundle), np.zeros(0)
    reader.call("assistant-prefill", prompt, 0)
    for call in data["calls"]:
        past_len, count = call["past_len"], len(call["input_ids"])
        mask, depth = np.ones((slots, span), bool), np.zeros(slots, np.int64)
        for slot, sees in enumerate(call["sees"]):
            rows = [past_len + slots - span + column for column in range(span)]
            mask[slot] = [row < before or row in sees for row in rows]
            depth[slot] = before + len(sees) - 1 - past_len
        assert [np.flatnonzero(~mask[slot]).tolist() for slot in range(count)] == call["columns"]
        assert depth[:count].tolist() == call["depth"]
        outputs = reader.call(data["engine"], call["input_ids"], past_len, mask=mask, depth=depth)["logits"][0]
    for slot, branch in enumerate(data["branches"]):
        alone = Reader(bundle)
        alone.call("assistant-prefill", prompt, 0)
        for i, token in enumerate(branch):
            logits = alone.call("assistant-draft", [token], before + i)["logits"][0, 0]
        np.testing.assert_allclose(outputs[slot], logits, atol=1e-4)


def looked_up(text: list[int], longest: int, count: int) -> list[int]:
    """Draft as the table of drafters says."""
    for length in range(min(longest, len(text) - 1), 0, -1):
        ends = [end for end in range(length, len(text)) if text[end - length : end] == text[-length:]]
        if ends:
            copied = text[ends[-1] :]
            return [copied[i % len(copied)] for i in range(max(1, count // (1 + longest - length)))]
    return []


def test_11_prompt_lookup_copies_what_followed_the_longest_match() -> None:
    for data in example(11):
        assert NgramIndex(data["text"], 3).after(4) == looked_up(data["text"], 3, 4) == data["draft"]


def test_12_the_first_engine_that_a_draft_fits_verifies_it() -> None:
    data, manifest = example(12), open_bundle(PATH).manifest
    verify = next(recipe.verify for recipe in manifest.recipes if recipe.name == data["recipe"])
    engines = {engine.name: engine.block for engine in manifest.engines}
    for draft in data["drafts"]:
        tree = Tree(tuple(draft["parents"]))
        assert next((name for name in verify if engines[name].fits(tree)), None) == draft["engine"]
    baked = Block(Tree(tuple(data["tree"]["parents"])))
    for name, fits in (("fits", True), ("does_not_fit", False)):
        assert [baked.fits(Tree(tuple(parents))) for parents in data["tree"][name]] == [fits] * len(data["tree"][name])


def test_13_equal_siblings_are_all_followed_and_the_lower_id_wins() -> None:
    data = example(13)
    ids = np.array(data["ids"])
    assert match_by_the_page(data["parents"], data["tokens"], ids) == (data["path"], data["token"])
    draft = Draft(tuple(data["tokens"]), Tree(tuple(data["parents"])))
    assert match(draft, Verified(Outputs(ids.data), Sampling())) == Accepted(tuple(data["path"]), data["token"])
    assert int(np.argmax(data["logits"])) == data["id"]


def test_14_top_logprobs_are_natural_logarithms_over_the_whole_vocabulary(warm_reader: Reader) -> None:
    def top(logits: np.ndarray, count: int) -> tuple[list[int], np.ndarray]:
        logprobs = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        order = np.argsort(-logits, kind="stable")[:count]
        return order.tolist(), logprobs[order]

    data = example(14)
    ids, logprobs = top(np.array(data["logits"]), data["top_k"])
    assert ids == data["top_ids"]
    np.testing.assert_allclose(logprobs, data["top_logprobs"], atol=1e-4)
    outputs = warm_reader.call("draft-layer-skip", [473], 10)
    ids, logprobs = top(outputs["logits"][0, 0].astype(float), 8)
    assert ids == outputs["top_ids"][0, 0].tolist()
    np.testing.assert_allclose(logprobs, outputs["top_logprobs"][0, 0], atol=1e-5)


def test_15_the_first_difference_decides(bundle: Bundle) -> None:
    data = example(15)
    assert data["token_ids"][-1] in data["eos_token_ids"] == bundle.manifest["model"]["eos_token_ids"]
    case = Case(prompt="", prompt_ids=[1], token_ids=data["token_ids"], gaps=data["gaps"])
    for answer in data["answers"]:
        verdict, _ = compare(answer["token_ids"], case, data["near_tie_tolerance"])
        assert verdict.value == answer["verdict"]


def test_16_text_goes_in_with_special_tokens_and_comes_out_in_whole_characters() -> None:
    data, text = example(16), Text(open_bundle(PATH))
    assert text.encode(data["text"]) == data["token_ids"]
    assert [piece for _, piece in text.pieces(data["token_ids"])] == data["pieces"]
    assert [piece for _, piece in text.pieces(data["cut"]["token_ids"])] == data["cut"]["pieces"]
    special = data["special"]
    assert text.encode(special["text"]) == special["token_ids"]
    assert text.decode(special["token_ids"]) == special["decoded"]
    assert text.render(data["messages"]) == data["rendered"]


def test_17_steps_that_drafted_nothing_do_not_count() -> None:
    data, stats = example(17), Stats(recipe="any")
    for step in data["steps"]:
        draft = Draft.chain(list(range(step["drafted"] + 1)))
        stats.count(draft, Accepted(tuple(range(step["accepted"] + 1)), 0))
    assert stats.mean_acceptance_length == data["mean_acceptance_length"]


def test_18_an_engine_may_leave_out_a_layer_of_its_cache(bundle: Bundle) -> None:
    data = example(18)
    engine = bundle.engines[data["engine"]]
    assert engine["block"]["cache"] == data["cache"]
    assert list(bundle.manifest["caches"][data["cache"]]["layers"]) == data["layers_of_cache"]
    assert engine["layers"] == data["layers_of_engine"]
    assert [t["name"] for t in engine["inputs"] if t["name"].startswith("past_key_values.")] == data["inputs"]


def test_19_an_offset_counts_from_the_beginning_of_the_weights_file(bundle: Bundle) -> None:
    for data in example(19):
        model = parse((bundle.path / data["file"]).read_bytes())
        (tensor,) = (t for t in model.graph.initializer if t.name == data["name"])
        place = {entry.key: entry.value for entry in tensor.external_data}
        assert place == {"location": data["location"], "offset": str(data["offset"]), "length": str(data["length"])}
        content = (bundle.path / data["location"]).read_bytes()
        size = int.from_bytes(content[:8], "little")
        start, end = json.loads(content[8 : 8 + size])[data["stored_as"]]["data_offsets"]
        assert (8 + size + start, end - start) == (data["offset"], data["length"])


def test_20_fields_of_tools_are_ignored_and_others_are_refused() -> None:
    for data in example(20):
        if data["is_read"]:
            assert from_json(FileSpec, data["file"]) == FileSpec(7, "ab")
        else:
            with pytest.raises(BundleError, match="unknown field 'mirror'"):
                from_json(FileSpec, data["file"])


def test_21_sequences_with_caches_of_their_own_take_turns(bundle: Bundle) -> None:
    data = example(21)
    readers = {case: Reader(bundle) for case in data["cases"]}
    rows = dict.fromkeys(data["cases"], 0)
    tokens: dict[int, list[int]] = {case: [] for case in data["cases"]}
    for case in data["order"]:
        input_ids = tokens[case][-1:] or bundle.golden[case]["prompt_ids"]
        tokens[case].append(int(readers[case].call("decode", input_ids, rows[case])["ids"][0, -1]))
        rows[case] += len(input_ids)
    assert {str(case): answer for case, answer in tokens.items()} == data["tokens"]
    assert all(bundle.golden[case]["token_ids"][: len(answer)] == answer for case, answer in tokens.items())


def test_22_the_digest_is_that_of_the_bytes_with_zeros_for_its_digits() -> None:
    content = BLOCKS["22"].encode()
    digits = content[-68:-4].decode()
    assert json.loads(content)["manifest_sha256"] == digits
    assert content[-90:] == f'\n "manifest_sha256": "{digits}"\n}}\n'.encode()
    assert hashlib.sha256(content[:-68] + b"0" * 64 + content[-4:]).hexdigest() == digits == digest(content)


def test_23_a_tree_is_filled_level_by_level() -> None:
    tree, slots, before, calls = (example(23)[name] for name in ("tree", "slots", "rows_before", "calls"))
    depth = Tree(tuple(tree)).depth
    drafter = EarlyExit(cast(Engine, SimpleNamespace(slots=slots)), tree)
    growths = [drafter.root, *drafter.growths]
    assert [list(growth.slots) for growth in growths] == [call["slots"] for call in calls]
    for growth, call in zip(growths, calls, strict=True):
        assert before + growth.rows == call["past_len"]
        assert [int(depth[slot]) - growth.rows for slot in growth.slots] == call["depth"]
        assert [slot for slot, parent in enumerate(tree) if parent in growth.slots] == call["children"]
