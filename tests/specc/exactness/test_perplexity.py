"""Perplexity: by a bundle's engines as by the model in torch, and what `specc test` says of it."""

from __future__ import annotations

import json
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shell import refused, specc
from toys import World

import specc as package
from specc.exactness import perplexity
from specc.exactness.golden import Case
from specc.exactness.perplexity import Sample, Text, from_prompts, from_text
from specc.runtime.block import Block
from specc.runtime.bundle import open_bundle
from specc.runtime.errors import PromptError
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree

FROZEN = Path(__file__).parents[2] / "bundles" / "schema-1"


def test_a_text_is_cut_in_windows_that_fit() -> None:
    assert from_text("t", range(10), 4).runs == [range(4), range(4, 8), range(8, 10)]
    assert from_text("t", range(9), 4).tokens == 6  # the last token has a window of its own, and predicts nothing
    assert [len(run) for run in from_text("t", range(600), 2048).runs] == [512, 88]
    with pytest.raises(PromptError, match="t holds 1 tokens, and perplexity needs 2"):
        from_text("t", [1], 4)


def test_prompts_of_one_token_are_left_out() -> None:
    cases = [Case("a", [1], [], []), Case("b", [1, 2, 3], [], [])]
    assert from_prompts(cases).runs == [[1, 2, 3]]
    assert from_prompts(cases[:1]).tokens == 0


def test_equal_probabilities_are_as_perplexing_as_there_are_choices() -> None:
    assert Sample("t", [[0, 0, 0]]).perplexity(2 * np.log(7)) == pytest.approx(7)


def test_chunks_of_a_block_give_what_one_token_at_a_time_gives() -> None:
    world, run = World(), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    engines = [world.engine(Block(Tree.chain(n))) for n in (1, 4)]
    one, four = (perplexity.surprise_of(e, Cache(world.stores["target"]), run) for e in engines)
    assert one == pytest.approx(four) and one > 1


def test_samples_are_the_prompts_and_the_text_without_empty_ones() -> None:
    cases = [Case("a", [1, 2], [], [])]
    encode = {"book": [4, 5, 6]}.__getitem__
    assert perplexity.samples(cases, Text("book.txt", "book"), encode, 8) == [
        Sample("golden prompts", [[1, 2]]),
        Sample("book.txt", [[4, 5, 6]]),
    ]
    assert perplexity.samples([Case("a", [1], [], [])], None, encode, 8) == []


def test_a_sample_is_known_again_by_its_tokens() -> None:
    """Not by its name, nor by the kind of sequence that holds them."""
    assert Sample("a", [[1, 2], [3, 4]]).sha256 == Sample("b", [range(1, 3), (3, 4)]).sha256
    assert Sample("a", [[1, 2], [3, 4]]).sha256 != Sample("a", [[1, 2, 3, 4]]).sha256


def test_the_original_is_found_by_the_sample() -> None:
    sample, bundle = Sample("t", [[1, 2]]), open_bundle(FROZEN)
    rows = [{"sha256": "other", "original": 1.0}, {"sha256": sample.sha256, "original": 2.0}]
    measured = replace(bundle, manifest=replace(bundle.manifest, extra={perplexity.KEY: rows}))
    assert perplexity.original(measured, sample) == 2.0
    assert perplexity.original(measured, Sample("t", [[1, 3]])) is None
    assert perplexity.original(bundle, sample) is None


@pytest.mark.model
class TestBundle:
    @pytest.fixture(scope="class")
    def text(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        file = tmp_path_factory.mktemp("text") / "book.txt"
        file.write_text(Path(textwrap.__file__).read_text(encoding="utf-8")[:3000], encoding="utf-8")
        return file

    def test_it_is_the_cross_entropy_of_the_model_in_torch(self, bundle: Path, model: Path, text: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        report = specc("test", bundle, "--text", text, "--recipe", "plain", "--json").json["perplexity"]
        ids = AutoTokenizer.from_pretrained(model).encode(text.read_text(encoding="utf-8"))
        reference, size = AutoModelForCausalLM.from_pretrained(model), open_bundle(bundle).manifest.model.context
        losses = []
        for start in range(0, len(ids) - 1, size):
            window = torch.tensor([ids[start : start + size]])
            with torch.no_grad():
                losses += [float(reference(window, labels=window).loss)] * (window.shape[1] - 1)
        assert report["tokens"] == len(losses) > 2 * size and report["text"] == "book.txt"
        assert report["value"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)

    def test_without_a_text_the_golden_prompts_are_the_sample(self, bundle: Path) -> None:
        report = specc("test", bundle, "--recipe", "plain", "--json").json["perplexity"]
        assert report["text"] == "golden prompts" and report["value"] > 1 and report["original"] is None
        assert f"perplexity on golden prompts, {report['tokens']} tokens: " in specc("test", bundle).out

    def test_a_reference_gives_the_perplexity_of_the_original(self, bundle: Path, model: Path, text: Path) -> None:
        report = specc("test", bundle, "--text", text, "--reference", model, "--recipe", "plain", "--json").json
        assert report["perplexity"]["original"] == pytest.approx(report["perplexity"]["value"], rel=1e-4)

    def test_a_quantised_bundle_keeps_both(self, model: Path, text: Path, tmp_path: Path) -> None:
        output = tmp_path / "small.specc"
        options = ["--dtype", "int4", "--golden-tokens", 4, "--recipe", "plain", "--text", text]
        assert specc("compile", model, "-o", output, *options).status == 0
        golden, own = open_bundle(output).manifest.extra[perplexity.KEY]
        assert (golden["text"], own["text"]) == ("golden prompts", "book.txt")
        assert golden["original"] != golden["bundle"]  # four bits are not what was trained
        result = specc("test", output, "--text", text)
        assert f"{own['bundle']:.3f}; the original model's is {own['original']:.3f}" in result.out
        report = specc("test", output, "--json").json["perplexity"]
        assert report["value"] == pytest.approx(golden["bundle"], abs=1e-3)
        assert report["original"] == golden["original"]
        anew = specc("test", output, "--reference", model, "--text", text, "--json")  # 4 bits diverge from it: status 1
        assert json.loads(anew.out)["perplexity"]["original"] == pytest.approx(own["original"], rel=1e-4)

    def test_rows_of_a_conversation_are_forgotten(self, bundle: Path) -> None:
        session = package.load(bundle).conversation
        before = session.generate("import os", 8, ignore_eos=True).token_ids
        perplexity.measure(session, from_text("t", [1, 2, 3, 4] * 5, 256))
        assert session.generate("import os", 8, ignore_eos=True).token_ids == before

    def test_a_file_that_is_not_a_text_is_refused(self, bundle: Path, model: Path, tmp_path: Path) -> None:
        file = tmp_path / "t.txt"
        assert "cannot read a text from" in refused("test", bundle, "--text", file)
        file.write_bytes(b"\xff\xfe\x00")
        assert "give a text file in UTF-8" in refused("compile", model, "-o", tmp_path / "x", "--text", file)
        file.write_text("")
        assert "perplexity needs 2" in refused("test", bundle, "--text", file)
