"""Perplexity: by a bundle's engines as by the model in torch, and what `specc test` says of it."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
from shell import refused, specc
from toys import World

import specc as package
from specc.exactness import perplexity
from specc.exactness.golden import Case
from specc.exactness.perplexity import Sample, from_prompts, from_text
from specc.runtime.block import Block
from specc.runtime.bundle import open_bundle
from specc.runtime.errors import PromptError
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree


def test_a_text_is_cut_in_windows_that_fit() -> None:
    assert from_text("t", range(10), 4).runs == [range(4), range(4, 8), range(8, 10)]
    assert from_text("t", range(9), 4).tokens == 6  # the last token has a window of its own, and predicts nothing
    assert [len(run) for run in from_text("t", range(600), 2048).runs] == [512, 88]
    with pytest.raises(PromptError, match="t holds 1 tokens, and perplexity needs 2"):
        from_text("t", [1], 4)


def test_prompts_of_one_token_say_nothing() -> None:
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

        told = specc("test", bundle, "--text", text, "--recipe", "plain", "--json").json["perplexity"]
        ids = AutoTokenizer.from_pretrained(model).encode(text.read_text(encoding="utf-8"))
        loaded, size = AutoModelForCausalLM.from_pretrained(model), open_bundle(bundle).manifest.model.context
        losses = []
        for start in range(0, len(ids) - 1, size):
            window = torch.tensor([ids[start : start + size]])
            with torch.no_grad():
                losses += [float(loaded(window, labels=window).loss)] * (window.shape[1] - 1)
        assert told["tokens"] == len(losses) > 2 * size and told["text"] == "book.txt"
        assert told["value"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)

    def test_without_a_text_the_golden_prompts_serve(self, bundle: Path) -> None:
        told = specc("test", bundle, "--recipe", "plain", "--json").json["perplexity"]
        assert told["text"] == "golden prompts" and told["value"] > 1 and told["original"] is None
        assert f"perplexity on golden prompts, {told['tokens']} tokens: " in specc("test", bundle).out

    def test_a_reference_tells_the_original_s(self, bundle: Path, model: Path, text: Path) -> None:
        told = specc("test", bundle, "--text", text, "--reference", model, "--recipe", "plain", "--json").json
        assert told["perplexity"]["original"] == pytest.approx(told["perplexity"]["value"], rel=1e-4)

    def test_a_quantised_bundle_holds_both(self, model: Path, text: Path, tmp_path: Path) -> None:
        output = tmp_path / "small.specc"
        options = ["--dtype", "int4", "--golden-tokens", 4, "--recipe", "plain", "--text", text]
        assert specc("compile", model, "-o", output, *options).status == 0
        golden, mine = open_bundle(output).manifest.extra[perplexity.KEY]
        assert (golden["text"], mine["text"]) == ("golden prompts", "book.txt")
        assert golden["original"] != golden["bundle"]  # four bits are not what was trained
        ran = specc("test", output, "--text", text)
        assert f"{mine['bundle']:.3f}; the original model's is {mine['original']:.3f}" in ran.out
        told = specc("test", output, "--json").json["perplexity"]
        assert told["value"] == pytest.approx(golden["bundle"], abs=1e-3)
        assert told["original"] == golden["original"]
        anew = specc("test", output, "--reference", model, "--text", text, "--json")  # 4 bits diverge from it: status 1
        assert json.loads(anew.out)["perplexity"]["original"] == pytest.approx(mine["original"], rel=1e-4)

    def test_rows_of_a_conversation_are_forgotten(self, bundle: Path) -> None:
        session = package.load(bundle)
        before = session.generate("import os", 8, ignore_eos=True).token_ids
        perplexity.measure(session, from_text("t", [1, 2, 3, 4] * 5, 256))
        assert session.generate("import os", 8, ignore_eos=True).token_ids == before

    def test_a_text_that_is_none_is_refused(self, bundle: Path, model: Path, tmp_path: Path) -> None:
        file = tmp_path / "t.txt"
        assert "cannot read a text from" in refused("test", bundle, "--text", file)
        file.write_bytes(b"\xff\xfe\x00")
        assert "give a text file in UTF-8" in refused("compile", model, "-o", tmp_path / "x", "--text", file)
        file.write_text("")
        assert "perplexity needs 2" in refused("test", bundle, "--text", file)
