"""A whole compile: what it writes, and that it stores no more than its engines read."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from doubles.tune_plan import tune_plan
from quick_compile import compile_quickly
from tiny import MODEL, save_model

from specc import compiler
from specc.compiler import Options, compile_bundle
from specc.compiler.stages import DETAIL, TOTAL
from specc.exactness.replay import prove
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.errors import RecipeError
from specc.tuning.plan import TreeProposal

pytestmark = [pytest.mark.torch, pytest.mark.model]


def stored(bundle: Bundle) -> dict[tuple[str, int], str]:
    """Return the names of the tensors in the bundle's weights files, by file and offset."""
    tensors: dict[tuple[str, int], str] = {}
    for file in bundle.path.glob("*.safetensors"):
        with file.open("rb") as f:
            (size,) = struct.unpack("<Q", f.read(8))
            header = json.loads(f.read(size))
        header.pop("__metadata__", None)
        tensors |= {(file.name, 8 + size + spec["data_offsets"][0]): name for name, spec in header.items()}
    return tensors


def references(bundle: Bundle) -> set[tuple[str, int]]:
    """Return the places in weights files that the bundle's ONNX engines refer to."""
    places = set()
    for file in {engine.file for engine in bundle.manifest.engines}:
        for tensor in onnx.load(bundle.file(file), load_external_data=False).graph.initializer:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            if entries:
                places.add((entries["location"], int(entries["offset"])))
    return places


def unread(bundle: Bundle) -> list[str]:
    """Return the stored tensors that no engine refers to."""
    return sorted(name for place, name in stored(bundle).items() if place not in references(bundle))


@pytest.fixture(scope="module")
def assisted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A tiny model with a draft model, whose engines read 4 bits while the target's read fp32.

    The draft model has the target's tokenizer and more rows of padding than the target.
    """
    directory = tmp_path_factory.mktemp("assisted")
    small = save_model(directory / "small", num_hidden_layers=1, vocab_size=640)
    prompts = directory / "prompts.jsonl"
    prompts.write_text('{"prompt": "import os"}\n', encoding="utf-8")
    options = Options(
        model=str(model),
        output=directory / "assisted.specc",
        recipes=("draft-model", "early-exit"),
        assistant_model=str(small),
        prompts=prompts,
        golden_tokens=4,
    )
    return compile_quickly(options).bundle


def test_every_stored_tensor_is_referred_to_by_an_engine(assisted: Bundle) -> None:
    """So no fp32 copy of the draft model's matrices, and no 4-bit copy of layers behind the exit."""
    assert references(assisted) == stored(assisted).keys()
    assert unread(assisted) == []
    names = stored(assisted).values()
    assert any(name.startswith("assistant.") for name in names) and any("_int4" in name for name in names)


def test_a_draft_model_with_other_padding_drafts(assisted: Bundle) -> None:
    """What it drafts, it drafts of the target's vocabulary, and the golden outputs are replayed with it."""
    assert assisted.manifest.model.vocab_size == MODEL["vocab_size"] == 512
    counts = prove(assisted.path, ("draft-model",)).counts
    assert (counts.identical, counts.diverged) == (1, 0)


@pytest.mark.parametrize("fault", ["another tokenizer", "fewer positions"])
def test_a_draft_model_that_cannot_draft_is_refused_before_any_work(fault: str, model: Path, tmp_path: Path) -> None:
    positions = 32 if fault == "fewer positions" else 256
    other = save_model(tmp_path / "other", num_hidden_layers=1, max_position_embeddings=positions)
    if fault == "another tokenizer":
        data = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = data["model"]["vocab"]
        first, second = sorted(vocabulary)[10:12]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
        (other / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    titles: list[str] = []
    options = Options(
        model=str(model),
        output=tmp_path / "m.specc",
        assistant_model=str(other),
        stage=lambda title, done, total: titles.append(title),
    )
    with pytest.raises(RecipeError, match=r"must share the target's tokenizer|has positions for 32 tokens"):
        compile_bundle(options)
    assert titles == [f"load {model}"] and list(tmp_path.iterdir()) == [other]


def test_the_shared_bundle_stores_nothing_else_either(bundle: Path) -> None:
    assert unread(open_bundle(bundle)) == []


@pytest.mark.parametrize("recipe", [pytest.param("plain", marks=pytest.mark.slow), "layer-skip"])
def test_the_stages_that_have_work_are_reported_and_the_total_stays(recipe: str, model: Path, tmp_path: Path) -> None:
    """Plain decoding has no draft, so that no layers are searched and no weights quantised."""
    reports: list[tuple[str, int, int]] = []
    compile_bundle(
        Options(
            model=str(model),
            output=tmp_path / "m.specc",
            recipes=(recipe,),
            golden_tokens=2,
            stage=lambda *report: reports.append(report),
        )
    )
    titles = list(dict.fromkeys(title.partition(DETAIL)[0] for title, _, _ in reports))
    assert titles == [
        f"load {model}",
        "decode the golden prompts in transformers",
        f"capture {model}",
        *([f"search the layers that {recipe} skips", "quantise the weights"] if recipe == "layer-skip" else []),
        "write the weights",
        "build the engines",
        "measure the recipes",
    ]
    details = [title.partition(DETAIL)[2] for title, _, _ in reports]
    if recipe == "plain":
        assert {"prefill, 1 of 2", "decode and 10 more widths, 2 of 2", "the fastest in turns, 28 of 30"} <= set(
            details
        )
    assert {total for _, _, total in reports} == {TOTAL}
    done = [done for _, done, _ in reports]
    assert done == sorted(done) and done[-1] == TOTAL


@pytest.fixture
def compiles(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """The options of each compile; none compiles anything, and each bundle proposes another tree."""
    calls: list[Options] = []

    def compile_nothing(options: Options) -> Bundle:
        calls.append(options)
        opened = open_bundle(bundle)
        proposal = {"early-exit": TreeProposal(tree=((0,),), predicted_gain=1.2)}
        return replace(opened, manifest=tune_plan(trees=proposal).stored_in(opened.manifest))

    monkeypatch.setattr(compiler, "_compile", compile_nothing)
    return calls


def test_with_better_trees_a_bundle_is_compiled_twice_and_never_more(compiles: list[Options]) -> None:
    report = compile_bundle(Options(model="model", output="out"))
    assert [options.overwrite for options in compiles] == [False, True]
    assert compiles[1].parameters == {"early-exit": {"tree": ((0,),)}}
    assert report.seconds > 0 and report.peak_rss_bytes > 1 << 20


def test_a_users_tree_is_compiled_once(compiles: list[Options]) -> None:
    compile_bundle(Options(model="model", output="out", parameters={"early-exit": {"tree": [(0,)]}}))
    assert len(compiles) == 1
