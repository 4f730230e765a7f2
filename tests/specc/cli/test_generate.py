"""The verb `generate`: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from shell import command, refused, specc

from specc import load
from specc.runtime.bundle import open_bundle

pytestmark = pytest.mark.model

PROMPT = "def wrap(text, width=70):\n"
GENERATED = {
    "text", "token_ids", "finish_reason", "recipe", "lossless", "prompt_tokens", "new_tokens", "prefill_seconds",
    "seconds", "tokens_per_second", "mean_acceptance_length", "draft_acceptance_rate", "acceptance_histogram",
    "num_drafts", "num_draft_tokens", "num_accepted_tokens", "target_calls", "draft_calls", "overhead_fraction",
}  # fmt: skip


def test_json(bundle: Path) -> None:
    answer = specc("generate", bundle, "--prompt", PROMPT, "--max-new-tokens", 20, "--json").json
    assert answer.keys() >= GENERATED
    assert answer["new_tokens"] == len(answer["token_ids"]) == 20
    assert answer["finish_reason"] == "length"
    assert answer["recipe"] == open_bundle(bundle).manifest.default_recipe


def test_text_to_stdout_and_a_summary_to_stderr(bundle: Path) -> None:
    argv = ("generate", bundle, "--prompt", PROMPT, "--max-new-tokens", 20, "--recipe", "early-exit")
    ran = specc(*argv)
    assert ran.status == 0
    assert ran.out.removesuffix("\n") == specc(*argv, "--json").json["text"].removesuffix("\n")
    [summary] = ran.err.splitlines()
    assert summary.startswith("20 tokens, ")
    assert "recipe early-exit, mean_acceptance_length " in summary


@pytest.mark.parametrize("recipe", ["plain", "prompt-lookup", "early-exit"])
def test_every_recipe_gives_the_tokens_of_no_speculation(recipe: str, bundle: Path) -> None:
    argv = ("generate", bundle, "--prompt", PROMPT * 3, "--max-new-tokens", 40, "--json")
    plain = specc(*argv, "--no-speculation").json
    assert (plain["recipe"], plain["num_drafts"], plain["mean_acceptance_length"]) == ("plain", 0, 1.0)
    answer = specc(*argv, "--recipe", recipe).json
    assert (answer["token_ids"], answer["text"]) == (plain["token_ids"], plain["text"])
    assert sum(answer["acceptance_histogram"]) == answer["num_drafts"]


def test_a_prompt_from_a_file_and_from_standard_input(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Ünïcode", encoding="utf-8")
    argv = ("generate", bundle, "--max-new-tokens", 8, "--json")
    expected = specc(*argv, "--prompt", "Ünïcode").json["token_ids"]
    assert specc(*argv, "--prompt-file", tmp_path / "prompt.txt").json["token_ids"] == expected
    assert specc(*argv, "-", stdin="Ünïcode".encode()).json["token_ids"] == expected
    assert specc(*argv, "-", stdin="Ünïcode".encode("utf-8-sig")).json["token_ids"] == expected


def test_a_chat_goes_through_the_template(bundle: Path) -> None:
    argv = ("generate", bundle, "--max-new-tokens", 8, "--json")
    chat = specc(*argv, "--chat", "--prompt", "hi").json
    assert chat["token_ids"] == specc(*argv, "--prompt", "<user>hi\n<assistant>").json["token_ids"]


def test_seeds_repeat(bundle: Path) -> None:
    argv = ("generate", bundle, "--prompt", PROMPT, "--max-new-tokens", 16, "--temperature", 1.5, "--json")

    def tokens(seed: int) -> tuple[int, ...]:
        return tuple(specc(*argv, "--seed", seed).json["token_ids"])

    assert tokens(1) == tokens(1)
    assert len({tokens(seed) for seed in range(5)}) == 5
    assert len({tuple(specc(*argv).json["token_ids"]) for _ in range(3)}) == 3


def test_a_stop_string_ends_the_text(bundle: Path) -> None:
    argv = ("generate", bundle, "--prompt", PROMPT, "--max-new-tokens", 40, "--json")
    text = specc(*argv).json["text"]
    stop = text[10:13]
    answer = specc(*argv, "--stop", "never to be found", "--stop", stop).json
    assert answer["finish_reason"] == "stop"
    assert answer["text"] == text[: text.index(stop)]


def test_a_prompt_that_fills_the_cache(bundle: Path) -> None:
    ids = [1] * 255
    generated = load(bundle).generate(ids, 10)
    assert (len(generated.token_ids), generated.finish_reason) == (1, "length")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "give one prompt: --prompt TEXT, --prompt-file FILE, or - for standard input"),
        (("-", "--prompt", "a"), "give one prompt"),
        (("a",), "unexpected 'a'; give the prompt as --prompt"),
        (("--prompt", ""), "the prompt is empty"),
        (("--prompt", "word " * 400), "the prompt has 401 tokens and the cache 256 rows; shorten it"),
        (("--prompt-file", "/nowhere"), "/nowhere: No such file or directory"),
        (("--prompt", "a", "--recipe", "promt-lookup"), "did you mean 'prompt-lookup'?"),
        (("--prompt", "a", "--recipe", "early-exit", "--no-speculation"), "exclude each other"),
        (("--prompt", "a", "--acceptance", "greedy"), "only match, recursive, speculative"),
        (("--prompt", "a", "--recipe", "prompt-lookup", "--acceptance", "speculative"), "needs a drafter that"),
        (("--prompt", "a", "--temperature", "-1"), "temperature -1.0 is not 0 or more"),
        (("--prompt", "a", "--top-p", "0"), "top_p 0.0 is not in (0, 1]"),
        (("--prompt", "a", "--top-k", "-1"), "top_k -1 is negative"),
        (("--prompt", "a", "--stop", ""), "a stop string is empty"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(argv: tuple[str, ...], message: str, bundle: Path) -> None:
    assert message in refused("generate", bundle, *argv)


def test_a_prompt_that_is_not_text_is_refused(bundle: Path) -> None:
    assert "standard input is not UTF-8 text" in refused("generate", bundle, "-", stdin=b"\xff\xfe")


def test_a_reader_that_goes_away_is_no_error(bundle: Path) -> None:
    argv = command("generate", bundle, "--prompt", PROMPT, "--max-new-tokens", 200)
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == b""


def test_an_interrupt_is_130(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("specc.load", interrupt)
    ran = specc("generate", bundle, "--prompt", "a")
    assert (ran.status, ran.out, ran.err) == (130, "", "")
