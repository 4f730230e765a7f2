"""The options of `specc generate` for processors, on the frozen bundle."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shell import refused, specc
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel, Metaspace
from tokenizers.models import WordLevel

from specc import load
from specc.cli.generate_processors import parse_biases, read_grammar, read_schema, token_text
from specc.runtime.detokenizer import Decoder
from specc.runtime.errors import PromptError
from specc.runtime.model import Model

FROZEN = Path(__file__).parents[2] / "bundles/schema-1"
PROMPT = "def wrap(text):"
ARGV = ("generate", FROZEN, "--raw", "-p", PROMPT, "-n", 24, "--json")
SCHEMA = {"enum": ["yes", "no"]}


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with load(FROZEN) as model:
        yield model


@pytest.mark.parametrize(
    ("options", "same"),
    [
        (("--min-p", 0.3, "--temperature", 1, "--seed", 3), {"min_p": 0.3, "temperature": 1.0, "seed": 3}),
        (("--repetition-penalty", 1.5), {"repetition_penalty": 1.5}),
        (("--frequency-penalty", 0.9), {"frequency_penalty": 0.9}),
        (("--presence-penalty", 0.9), {"presence_penalty": 0.9}),
        (("--logit-bias", "70=20", "--logit-bias", "71=20.5"), {"logit_bias": {70: 20.0, 71: 20.5}}),
        (("--bad-words", "re", "--bad-words", "the"), {"bad_words": ["re", "the"]}),
        (("--logit-bias", "0=100", "--min-new-tokens", 4), {"logit_bias": {0: 100.0}, "min_new_tokens": 4}),
        (("--regex", "[a-z]{5}"), {"regex": "[a-z]{5}"}),
        (("--json-schema", json.dumps(SCHEMA)), {"json_schema": SCHEMA}),
    ],
)
def test_an_option_is_that_of_the_request(options: tuple[Any, ...], same: dict[str, Any], model: Model) -> None:
    assert specc(*ARGV, *options).json["token_ids"] == model.generate(PROMPT, 24, **same).token_ids


def test_grammars_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "answer.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    (tmp_path / "answer.lark").write_text('start: "yes" | "no"', encoding="utf-8")
    by_schema = specc(*ARGV, "--json-schema", tmp_path / "answer.json").json
    assert json.loads(by_schema["text"]) in ("yes", "no") and by_schema["finish_reason"] == "eos"
    assert specc(*ARGV, "--lark", tmp_path / "answer.lark").json["text"] in ("yes", "no")


def test_log_probabilities_are_in_the_json(tmp_path: Path) -> None:
    answer = specc(*ARGV, "--logprobs", 2).json
    assert [entry["token_id"] for entry in answer["logprobs"]] == answer["token_ids"]
    for entry in answer["logprobs"]:
        assert entry.keys() == {"token_id", "token", "text", "logprob", "top_logprobs"}
        assert entry["logprob"] == entry["top_logprobs"][0]["logprob"] and len(entry["top_logprobs"]) == 2
        assert entry["top_logprobs"][1].keys() == {"token_id", "token", "text", "logprob"}
    assert "logprobs" not in specc(*ARGV).json
    lines, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines.write_text(json.dumps({"prompt": PROMPT}) + "\n", encoding="utf-8")
    batch = ("generate", FROZEN, "--raw", "--prompts", lines, "--output", output, "-n", 24)
    assert specc(*batch, "--logprobs", 2).status == 0
    assert json.loads(output.read_text(encoding="utf-8"))["logprobs"] == answer["logprobs"]


def name(entry: dict[str, Any]) -> str:
    """Return how the table writes a token."""
    if entry["text"] is not None:
        return json.dumps(entry["text"], ensure_ascii=False)
    return entry["token"] or str(entry["token_id"])


def test_log_probabilities_are_a_table_after_the_text_without_json() -> None:
    *argv, _ = ARGV
    entries = specc(*ARGV, "--logprobs", 2).json["logprobs"]
    result = specc(*argv, "--logprobs", 2)
    assert result.out == specc(*argv).out
    header, *rows = result.err.splitlines()[: len(entries) + 1]
    assert header.split() == ["logprob", "token", "likeliest", "tokens,", "if", "they", "were", "asked", "for"]
    for row, entry in zip(rows, entries, strict=True):
        first, second = (f"{name(top)} {top['logprob']:.3f}" for top in entry["top_logprobs"])
        assert row.lstrip().startswith(f"{entry['logprob']:.3f}  {name(entry)} ") and row.endswith(
            f"  {first}, {second}"
        )
    remedy = "add --json, or leave out --quiet"
    assert refused(*argv, "--logprobs", 2, "--quiet") == f"--quiet leaves out what --logprobs 2 writes; {remedy}"


def test_the_texts_of_the_tokens_of_an_answer_are_its_text() -> None:
    """But for parts of characters and special tokens, which have no text."""
    answer = specc(*ARGV[:-2], "40", "--json", "--regex", "[a-z ]{1,4}\\n    return x", "--logprobs", 0).json
    texts = [entry["text"] for entry in answer["logprobs"]]
    assert "".join(text or "" for text in texts) == answer["text"]
    assert "\n" in answer["text"] and " " in answer["text"]


@pytest.mark.parametrize("spaces", [ByteLevel, Metaspace])
def test_the_text_of_a_token_has_its_space_and_no_letter_of_the_tokenizer(spaces: type[ByteLevel | Metaspace]) -> None:
    """Also with a tokenizer that leaves out the first space of a text."""
    mark = "Ġ" if spaces is ByteLevel else "▁"
    tokens = ["<end>", f"{mark}The", "The", f"{mark}{mark}", "Ã" if spaces is ByteLevel else "x\ufffd"]
    tokenizer = Tokenizer(WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<end>"))
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.decoder = spaces()
    texts = [token_text(i, Decoder(tokenizer)) for i in range(len(tokens))]
    assert texts == [None, " The", "The", "  ", None]


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("--json-schema", json.dumps({"type": "string", "minLength": 200}), "complete JSON"),
        ("--regex", "[a-z]{200}", "a whole answer by --regex"),
    ],
)
def test_an_answer_that_the_length_cuts_is_said_so_and_is_status_1(option: str, value: str, kind: str) -> None:
    result = specc(*ARGV, option, value, "--quiet")
    remedy = "give a larger --max-new-tokens, or a shorter prompt if the context is full"
    assert result.status == 1 and json.loads(result.out)["finish_reason"] == "length"
    assert result.err == f"specc: warning: the answer was cut after 24 tokens and is not {kind}; {remedy}\n"


def test_an_answer_that_is_whole_at_its_last_token_is_not_cut() -> None:
    *tokens, _ = specc(*ARGV, "--regex", "yes").json["token_ids"]  # The last one is the end-of-sequence token.
    result = specc(*ARGV, "--regex", "yes", "-n", len(tokens), "--quiet")
    assert (result.json["text"], result.json["finish_reason"], result.err) == ("yes", "length", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--regex", "(a"), r"regex is refused: .*invalid regex.*; change it"),
        (("--regex", "a", "--json-schema", "{}"), "json_schema and regex exclude each other; give one grammar"),
        (("--json-schema", "{"), r"json_schema is not JSON \(.*\); give a JSON object or its text"),
        (("--json-schema", "no.json"), r"--json-schema no\.json cannot be read: No such file .*; give another file"),
        (("--lark", "no.lark"), r"--lark no\.lark cannot be read: No such file .*; give another file"),
        (("--logit-bias", "a=1"), "--logit-bias 'a=1' is not TOKEN=BIAS; give a token id and a number, such as 42=-5"),
        (("--logit-bias", "5"), "--logit-bias '5' is not TOKEN=BIAS; give a token id and a number, such as 42=-5"),
        (("--logit-bias", "5="), "--logit-bias '5=' is not TOKEN=BIAS; give a token id and a number, such as 42=-5"),
        (("--json-schema", ""), "--json-schema is empty; give a file or the text of a JSON schema"),
        (("--logit-bias", "999=1"), "logit_bias: 999 is not a token id; give 0 to 511"),
        (("--frequency-penalty", 3), "frequency_penalty is 3; give a number from -2 to 2"),
        (("--min-p", 2), r"min_p 2.0 is not in \[0, 1\]; 0 cuts nothing"),
        (("--min-new-tokens", -1), "min_new_tokens is -1; give a whole number, 0 or more"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_in_one_line(options: tuple[Any, ...], message: str) -> None:
    assert re.fullmatch(message, refused(*ARGV, *options))


def test_an_answer_that_no_token_continues_is_an_error_of_one_line() -> None:
    line = refused(*ARGV, "--regex", "ab", "--min-new-tokens", 9)
    assert re.fullmatch(r"no token is left after \d new tokens, by the options min_new_tokens, regex; relax one", line)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xff\xfe{")
    with pytest.raises(PromptError, match=r"--lark .*latin cannot be read: it is not UTF-8; give another file"):
        read_grammar("--lark", tmp_path / "latin")


def test_options_that_are_not_given_are_none() -> None:
    assert (parse_biases(()), read_schema(None), read_grammar("--lark", None)) == (None, None, None)
    assert read_schema(' {"a": 1}') == ' {"a": 1}'
