"""The verb `train`: its table, its JSON, and what it refuses."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from author import Author
from shell import refused, specc

from specc.cli import console
from specc.huggingface import load_tokenizer
from specc.runtime.errors import SpeccError
from specc.training.places import NOTES

FEW = ("--prompts", 24, "--answer-tokens", 12, "--held-out", 6, "--updates", 2)
SMALL = (*FEW, "--self-prompts", 0, "--draft-vocab-size", 128)


def small(recipe: str) -> tuple[object, ...]:
    """The options of a short training. Not every training reads all of SMALL."""
    from specc.training.jobs import options_read

    read = options_read(recipe)
    self_prompts = ("--self-prompts", 0) if "self_prompts" in read else ()
    return (*FEW, *self_prompts, *(("--draft-vocab-size", 128) if "draft_vocab_size" in read else ()))


@pytest.mark.torch
class TestVerb:
    def test_the_json_is_the_card_and_the_table_says_what_is_next(self, model: Path, tmp_path: Path) -> None:
        card = specc("train", model, "--recipe", "eagle3", "-o", tmp_path / "h", *SMALL, "--json").json
        assert card["head"] == str(tmp_path / "h") and card["recipe"] == "eagle3"
        assert card["updates"] == 2 and card["gain"] is None
        assert card["command"].startswith("specc train ") and "--updates 2" in card["command"]
        again = specc("train", model, "--recipe", "eagle3", "-o", tmp_path / "h", *SMALL, "--overwrite")
        assert f"{card['acceptance']['chain']:.2f} tokens a step on held-out prompts" in again.out
        assert f"{tmp_path / 'h.training'} that fit are used again" in " ".join(again.err.split())
        assert "specc: warning: 4 of 24 prompts are held out, not 6: it is a fifth at most" in again.err
        assert f"Next: specc compile {model} --head {tmp_path / 'h'} -o model.specc" in " ".join(again.out.split())
        assert (tmp_path / "h.training" / "checkpoint.safetensors").is_file()

    def test_an_output_that_exists_and_an_unknown_recipe_are_refused(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "h").mkdir()
        (tmp_path / "h" / "card.json").write_text("{}")
        assert "exists; choose another output, or --overwrite" in refused(
            "train", model, "--recipe", "eagle3", "-o", tmp_path / "h"
        )
        assert "no recipe 'eagle9' that can be trained; there is a training for eagle3, medusa" in refused(
            "train", model, "--recipe", "eagle9", "-o", tmp_path / "g"
        )

    def test_a_model_is_trained_itself_and_the_table_says_how_to_compile_it(self, model: Path, tmp_path: Path) -> None:
        arguments = ("train", model, "--recipe", "lexical-units", "--with-model", "-o", tmp_path / "m", *FEW)
        page = " ".join(specc(*arguments).out.split())
        assert f"Next: specc compile {tmp_path / 'm'} --head {tmp_path / 'm' / 'head'} --recipe lexical-units" in page
        assert "right guesses" in page and (tmp_path / "m" / "head" / "model.safetensors").is_file()
        assert "leaves the model as it is; leave out --with-model" in refused(
            "train", model, "--recipe", "eagle3", "--with-model", "-o", tmp_path / "g"
        )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"prompt": "a"}\n{"prompt": 3}\n', "p.jsonl, line 2: expected"),
            ("", "p.jsonl holds no prompt"),
            (None, "cannot read prompts from"),
        ],
    )
    def test_a_wrong_file_of_prompts_is_refused_before_anything_is_loaded_or_made(
        self, text: str | None, message: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "p.jsonl"
        if text is not None:
            file.write_text(text)
        monkeypatch.setattr(console, "loading", lambda name: pytest.fail(f"{name} was loaded"))
        assert message in refused("train", model, "--recipe", "eagle3", "-o", tmp_path / "h", "--data", file)
        assert not (tmp_path / "h.training").exists()

    def test_a_line_to_which_an_error_was_served_may_have_any_form(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """'specc generate' wrote an error for it, and a training leaves it out. The test ends where torch loads."""
        data, answers = tmp_path / "p.jsonl", tmp_path / "a.jsonl"
        data.write_text('{"prompt": "a"}\n{"prompt": 3}\n')
        answers.write_text('{"index": 1, "id": null, "error": "no text"}\n')
        names: list[str] = []

        def loading(name: str) -> NoReturn:
            names.append(name)
            raise SpeccError("the test ends here")

        monkeypatch.setattr(console, "loading", loading)
        served = ("--data", data, "--answers", answers)
        assert "the test ends here" in refused("train", model, "--recipe", "draft-model", "-o", tmp_path / "h", *served)
        assert names == ["torch"]


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.torch
def test_a_disk_that_is_full_while_recording_is_one_line_and_the_next_run_goes_on(model: Path, tmp_path: Path) -> None:
    arguments = ("train", model, "--recipe", "eagle3", "-o", tmp_path / "h", *SMALL)
    with largest_file(300_000):
        message = refused(*arguments)
    assert "train-0000.safetensors: " in message and "free some space, or choose another place" in message
    (shard,) = (tmp_path / "h.training").glob("*.safetensors")
    stamp = shard.stat().st_mtime_ns
    assert shard.name == "heldout-0000.safetensors" and not (tmp_path / "h").exists()
    assert specc(*arguments, "--json").json["updates"] == 2
    assert shard.stat().st_mtime_ns == stamp


def terminate_at_rename(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SIGTERM come when a file or a directory is complete and has not got its name."""
    rename, calls = os.replace, itertools.count(1)

    def replace(source: Path, target: Path) -> None:
        if next(calls) == number:
            signal.raise_signal(signal.SIGTERM)
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)


@pytest.mark.torch
@pytest.mark.parametrize("recipe", ["hydra", "draft-model"])
def test_a_training_that_is_terminated_leaves_no_half_written_file_and_goes_on(
    recipe: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "h"
    arguments = ("train", model, "--recipe", recipe, "-o", output, *small(recipe), "--overwrite")
    assert specc(*arguments).status == 0
    card = (output / "card.json").read_bytes()
    for number in itertools.count(1):
        with monkeypatch.context() as patch:
            terminate_at_rename(number, patch)
            result = specc(*arguments)
        if result.status == 0:
            break
        assert result.status == 143 and f"the same command goes on from {output}.training" in result.err
        names = [file.name for file in tmp_path.rglob("*")]
        assert not [name for name in names if name.endswith((".partial", ".old"))]
        assert (output / "card.json").read_bytes() == card and (output / "model.safetensors").is_file()
    assert number > 3


@pytest.mark.torch
def test_a_disk_that_is_full_while_prompts_are_written_is_one_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specc.training.self_prompts.answer", Author(load_tokenizer(str(model))))
    arguments = ("train", model, "--recipe", "eagle3", "-o", tmp_path / "h", *SMALL, "--self-prompts", 20)
    with largest_file(500):
        message = refused(*arguments)
    assert "prompts-0000.json" in message and [file.name for file in (tmp_path / "h.training").iterdir()] == [NOTES]


@pytest.mark.model
def test_costs_want_a_bundle_that_was_tuned(bundle: Path, model: Path, tmp_path: Path) -> None:
    message = refused("train", model, "--recipe", "eagle3", "-o", tmp_path / "h", "--costs", bundle)
    assert f"has no measured costs; run: specc tune {bundle}" in message


def test_twelve_bits_are_refused(tmp_path: Path) -> None:
    message = refused("train", tmp_path, "--recipe", "eagle3", "-o", tmp_path / "h", "--bits", 12)
    assert "numbers are not stored in 12 bits; give 8 or 16" in message


@pytest.mark.torch
@pytest.mark.parametrize("recipe", ["eagle3", "draft-model", "tr-jacobi"])
def test_a_rate_by_which_weights_overflow_writes_nothing(recipe: str, model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    arguments = ("train", model, "--recipe", recipe, "-o", tmp_path / "h", *small(recipe), "--learning-rate")
    message = refused(*arguments, "1e39")
    assert "train again with a lower --learning-rate" in message and not (tmp_path / "h").exists()
    for file in (tmp_path / "h.training").glob("*checkpoint*"):
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(file).values())
    assert specc(*arguments, "1e-4", "--json").json["losses"]  # which two updates have, too


@pytest.mark.torch
def test_seeds_too_large_are_refused_and_the_largest_trains(model: Path, tmp_path: Path) -> None:
    arguments = ("train", model, "-o", tmp_path / "h", "--overwrite", "--seed")
    for seed in (2**31, 2**53, 2**64):
        message = refused(*arguments, seed, "--recipe", "eagle3")
        assert "'--seed'" in message and str(2**31 - 1) in message.replace(",", "")
    for recipe in ("eagle3", "draft-model", "tr-jacobi"):
        words = ("--recipe", recipe, *small(recipe), "--work", tmp_path / recipe, "--json")
        card = specc(*arguments, 2**31 - 1, *words).json
        assert card["seed"] == 2**31 - 1


@pytest.mark.torch
@pytest.mark.parametrize("recipe", ["ppd", "lexical-units", "draft-model", "tr-jacobi", "glide", "m2r2"])
def test_what_other_libraries_print_is_not_shown(
    recipe: str, model: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    page = specc("train", model, "--recipe", recipe, "-o", tmp_path / "h", *small(recipe))
    assert page.status == 0 and "train" in page.err + page.out
    assert "Writing model shards" not in page.err and "Warning" not in page.err
    assert not [one for one in recwarn if issubclass(one.category, FutureWarning)]


@pytest.mark.torch
@pytest.mark.parametrize("recipe", ["eagle3", "draft-model", "tr-jacobi", "judge-decoding", "specdec-plus-plus"])
def test_answers_that_do_not_fit_the_positions_are_refused_before_the_model_loads(
    recipe: str, model: Path, tmp_path: Path
) -> None:
    whole = shutil.copytree(model, tmp_path / "model")
    (whole / "model.safetensors").unlink()  # Now the model cannot load.
    draft = ("--assistant-model", model) if recipe == "specdec-plus-plus" else ()
    arguments = ("train", whole, "--recipe", recipe, "-o", tmp_path / "h", *draft)
    message = refused(*arguments, "--answer-tokens", 100000)
    assert f"--answer-tokens 100000 does not fit the 256 positions of {whole} beside a prompt; give 224 or" in message
    assert not (tmp_path / "h.training").exists()
    assert "--answer-tokens" not in refused(*arguments, "--answer-tokens", 224)
