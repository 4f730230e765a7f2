"""The verb `generate`: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from shell import command, copied, edit_manifest, refused, specc, without_template

from specc import load
from specc.cli import console
from specc.runtime.bundle import open_bundle
from specc.runtime.device import Device
from specc.runtime.engines import ort, ort_cpu

pytestmark = pytest.mark.model

PROMPT = "def wrap(text, width=70):\n"
GENERATED = {
    "text", "token_ids", "finish_reason", "stop_reason", "recipe", "lossless", "prompt_tokens", "new_tokens",
    "prefill_seconds", "seconds", "tokens_per_second", "mean_acceptance_length", "draft_acceptance_rate",
    "acceptance_histogram", "num_drafts", "num_draft_tokens", "num_accepted_tokens", "target_calls", "draft_calls",
    "overhead_fraction", "verify_fraction",
}  # fmt: skip


def test_json(bundle: Path) -> None:
    answer = specc("generate", bundle, "--prompt", PROMPT, "--max-new-tokens", 20, "--json").json
    assert answer.keys() >= GENERATED
    assert answer["new_tokens"] == len(answer["token_ids"]) == 20
    assert answer["finish_reason"] == "length"
    assert answer["recipe"] == open_bundle(bundle).manifest.default_recipe


def test_text_to_stdout_and_a_summary_to_stderr(bundle: Path) -> None:
    argv = ("generate", bundle, "--prompt", PROMPT, "--max-new-tokens", 20, "--recipe", "early-exit")
    result = specc(*argv)
    assert result.status == 0
    assert result.out.removesuffix("\n") == specc(*argv, "--json").json["text"].removesuffix("\n")
    counts, decoding = result.err.splitlines()
    assert re.fullmatch(r"\d+ prompt tokens, first token after \d+\.\d\d s; 20 new tokens, [\d.]+ tokens/s", counts)
    length = r"recipe early-exit, mean acceptance length \d\.\d\d"
    assert re.fullmatch(f"{length}; finish reason length: --max-new-tokens 20", decoding)


def test_the_summary_says_that_an_answer_is_lossy(bundle: Path) -> None:
    """A rule may keep nothing of plain decoding, whatever the recipe says."""
    lossy = "recipe plain (lossy: the answer may differ from plain decoding)"
    for rule, temperature, expected in (("match", 0.8, False), ("typical", 0.8, True), ("typical", 0, False)):
        argv = ("generate", bundle, "--prompt", "a", "-n", "2", "--recipe", "plain", "--acceptance", rule)
        assert (lossy in specc(*argv, "--temperature", temperature).err) == expected


def test_an_answer_says_how_far_it_is_from_plain_decoding(bundle: Path) -> None:
    argv = ("generate", bundle, "--prompt", PROMPT, "-n", 20, "--recipe", "early-exit", "--divergence")
    assert specc(*argv, "--json").json["divergence"] == {"changed": 0.0, "first": None}
    assert specc(*argv, "--temperature", 0.9, "--json").json["divergence"]["changed"] == 0
    assert "0% of the tokens are not those of plain decoding" in specc(*argv).err
    refusal = refused("generate", bundle, "--prompts", "a.jsonl", "--output", "b.jsonl", "--divergence")
    assert refusal == "--divergence is for one answer, and --prompts has many; leave out one of them"


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


def test_a_prompt_is_a_users_message_unless_it_is_raw(bundle: Path) -> None:
    argv = ("generate", bundle, "-n", 8, "--json")
    rendered = specc(*argv, "--raw", "-p", "<user>hi\n<assistant>").json["token_ids"]
    for options in (("-p", "hi"), ("--chat", "-p", "hi")):
        assert specc(*argv, *options).json["token_ids"] == rendered
    assert specc(*argv, "--raw", "-p", "hi").json["prompt_tokens"] < len("<user>hi\n<assistant>")


def test_a_system_message_stands_in_front(bundle: Path) -> None:
    argv = ("generate", bundle, "-n", 8, "--json")
    rendered = specc(*argv, "--raw", "-p", "<system>be brief\n<user>hi\n<assistant>").json["token_ids"]
    assert specc(*argv, "--system", "be brief", "-p", "hi").json["token_ids"] == rendered


def test_messages_come_from_a_file_or_from_standard_input(bundle: Path, tmp_path: Path) -> None:
    argv = ("generate", bundle, "-n", 8, "--json")
    rendered = specc(*argv, "--raw", "-p", "<user>hi\n<assistant>yes\n<user>why\n<assistant>").json["token_ids"]
    turns = [("user", "hi"), ("assistant", "yes"), ("user", "why")]
    messages = [{"role": role, "content": content} for role, content in turns]
    for text in (json.dumps(messages), "\ufeff" + json.dumps({"messages": messages, "documents": []})):
        (tmp_path / "chat.json").write_text(text, encoding="utf-8")
        assert specc(*argv, "--messages", tmp_path / "chat.json").json["token_ids"] == rendered
        assert specc(*argv, "--messages", "-", stdin=text.encode()).json["token_ids"] == rendered


def test_a_bundle_without_a_template_takes_text_as_it_is(bundle: Path, tmp_path: Path) -> None:
    plain = without_template(copied(bundle, tmp_path))
    raw = specc("generate", bundle, "-n", 8, "--json", "--raw", "-p", "hi").json["token_ids"]
    assert specc("generate", plain, "-n", 8, "--json", "-p", "hi").json["token_ids"] == raw
    (tmp_path / "chat.json").write_text('[{"role": "user", "content": "hi"}]', encoding="utf-8")
    for options in (("--chat",), ("--system", "b"), ("--chat", "--system", "b")):
        names = " and ".join(word for word in options if word.startswith("--"))
        error = f"this model has no chat template; leave out {names}"
        assert refused("generate", plain, "-p", "a", *options) == error
    error = "messages need a chat template, and this model has none; give a prompt of text instead"
    assert refused("generate", plain, "--messages", tmp_path / "chat.json", "--system", "b") == error


def test_a_prompt_that_a_template_rendered_is_taken_as_it_is(bundle: Path) -> None:
    """The special token says so: a user's message would not have it."""
    argv = ("generate", bundle, "-n", 8, "--json")
    result = specc(*argv, "-p", "<end>hi")
    assert "the prompt has the special token <end>, so it is taken as it is; --chat" in result.err
    assert result.json["token_ids"] == specc(*argv, "--raw", "-p", "<end>hi").json["token_ids"]
    assert result.json["token_ids"] != specc(*argv, "--chat", "-p", "<end>hi").json["token_ids"]


def test_quiet_writes_the_text_alone(bundle: Path) -> None:
    result = specc("generate", bundle, "-p", "hi", "-n", 8, "--quiet")
    assert result.out.removesuffix("\n") == specc("generate", bundle, "-p", "hi", "-n", 8, "--json").json["text"]
    assert result.err == ""


def test_an_empty_answer_is_said(bundle: Path, tmp_path: Path) -> None:
    """The first token ends the answer."""
    first = specc("generate", bundle, "-p", "hi", "-n", 1, "--json").json["token_ids"]
    copy = edit_manifest(copied(bundle, tmp_path), lambda m: m["model"].update(eos_token_ids=first))
    result = specc("generate", copy, "-p", "hi")
    assert result.out == "\n"
    assert result.err.startswith("the answer is empty; --raw gives the prompt without the chat template\n")
    assert result.err.endswith("finish reason eos: the model ended its answer\n")


def test_the_summary_says_why_the_answer_ended(bundle: Path) -> None:
    argv = ("generate", bundle, "--raw", "-p", PROMPT, "-n", 40)
    text = specc(*argv, "--json").json["text"]
    assert specc(*argv, "--stop", text[10:13]).err.endswith(f"finish reason stop: the stop string {text[10:13]!r}\n")
    assert specc(*argv, "--stop", text[10:13], "--json").json["stop_reason"] == text[10:13]
    cut = specc("generate", bundle, "--raw", "-p", PROMPT, "-n", 4000).err
    assert cut.endswith("finish reason length: the context of 256 tokens is full; --max-new-tokens was 4000\n")


def test_the_models_sampling_defaults_are_applied_and_said(bundle: Path, tmp_path: Path) -> None:
    requests = {"do_sample": True, "temperature": 1.5, "top_p": 0.9, "repetition_penalty": 1.4, "length_penalty": 2.0}
    copy = edit_manifest(copied(bundle, tmp_path), lambda m: m["model"].update(generation_config=requests))
    argv = ("generate", copy, "-p", PROMPT, "-n", 20, "--json", "--seed", 1)
    result, greedy = specc(*argv), specc(*argv, "--temperature", 0)
    used = "tokens are chosen as generation_config.json asks: "
    sampled = f"{used}temperature 1.5, top-p 0.9, repetition-penalty 1.4; --temperature 0 is greedy\n"
    unused = "generation_config.json also asks for length_penalty 2.0; specc does not apply it\n"
    assert (result.err, greedy.err) == (sampled + unused, f"{used}repetition-penalty 1.4\n{unused}")
    assert result.json["token_ids"] == specc(*argv, "--temperature", 1.5, "--top-p", 0.9).json["token_ids"]
    assert (
        greedy.json["token_ids"] == specc("generate", bundle, *argv[2:], "--repetition-penalty", 1.4).json["token_ids"]
    )
    plain = specc(*argv, "--temperature", 0, "--repetition-penalty", 1)
    assert plain.json["token_ids"] == specc("generate", bundle, *argv[2:]).json["token_ids"]
    assert specc("test", copy).status == 0


def test_threads_reach_the_engines(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int | None] = []
    options = ort_cpu.session_options

    def recording(count: int, device: Device) -> Any:
        counts.append(options(count, device).intra_op_num_threads)
        return options(count, device)

    monkeypatch.setattr(ort, "session_options", recording)
    assert specc("generate", bundle, "-p", "hi", "-n", 1, "-t", 2).status == 0
    assert set(counts) == {2}


def test_a_long_prompt_shows_how_far_it_is_read(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    @contextmanager
    def waiting(line: Any) -> Iterator[None]:
        yield
        lines.append(line())

    monkeypatch.setattr(console, "waiting", waiting)
    assert specc("generate", bundle, "--raw", "-p", PROMPT, "-n", 1).status == 0
    (line,) = lines
    assert re.fullmatch(r"reading the prompt: (\d+) of \1 tokens", line)


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
        ((), "give one prompt: --prompt TEXT, --prompt-file FILE, --messages FILE, or - for standard input"),
        (("-", "--messages", "-"), "give one prompt"),
        (("--messages", "/nowhere"), "/nowhere: No such file or directory"),
        (("--raw", "--system", "b", "-p", "a"), "--system is for the chat template and --raw does without it"),
        (("-p", "a", "--output", "o"), "--prompts FILE and --output FILE belong together"),
        (("-p", "a", "--threads", "0"), "threads is 0; give a whole number from 1 to 1024"),
        (("-p", "a", "--threads", "1000000000"), "threads is 1000000000; give a whole number from 1 to 1024"),
        (("--prompt", "\udcff"), "the prompt has the lone surrogate U+DCFF at character 0; give UTF-8 text"),
        (("--system", "\udcff", "-p", "a"), "--system has the lone surrogate U+DCFF at character 0"),
        (("--stop", "\udcff", "-p", "a"), "a stop string has the lone surrogate U+DCFF at character 0"),
        (("-", "--prompt", "a"), "give one prompt"),
        (("a",), "unexpected 'a'; give the prompt as --prompt"),
        (("--prompt", ""), "the prompt is empty"),
        (("--prompt", "", "--raw"), "the prompt is empty"),
        (("--prompt", "word " * 400, "--raw"), "the prompt has 401 tokens and the cache 256 rows; shorten it"),
        (("--prompt-file", "/nowhere"), "/nowhere: No such file or directory"),
        (("--prompt", "a", "--recipe", "promt-lookup"), "did you mean 'prompt-lookup'?"),
        (("--prompt", "a", "--recipe", "early-exit", "--no-speculation"), "exclude each other"),
        (("--prompt", "a", "--acceptance", "greedy"), "no acceptance rule 'greedy'; there are confidence, "),
        (("--prompt", "a", "--acceptance", "typicl"), "no acceptance rule 'typicl'; did you mean 'typical'?"),
        (("--prompt", "a", "--acceptance", "top-beta"), "no acceptance rule 'top-beta'; did you mean 'top_beta'?"),
        (("--prompt", "a", "--recipe", "prompt-lookup", "--acceptance", "speculative"), "needs a drafter that"),
        (("--prompt", "a", "--suggestions", "2"), "no recipe of this bundle gives several suggestions; compile it"),
        (("--prompt", "a", "--suggestions", "2", "--recipe", "plain"), "recipe plain gives one answer; leave it out"),
        (("--prompt", "a", "--temperature", "-1"), "temperature -1.0 is not a finite number of 0 or more"),
        (("--prompt", "a", "--top-p", "0"), "top_p 0.0 is not in (0, 1]"),
        (("--prompt", "a", "--top-k", "-1"), "top_k -1 is negative"),
        (("--prompt", "a", "--stop", ""), "a stop string is empty"),
    ],
)
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
    result = specc("generate", bundle, "--prompt", "a")
    assert (result.status, result.out, result.err) == (130, "", "")
