"""Prompts to tokens."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listed import bundle_of
from tokenizers import normalizers
from toys import tokenizer

from specc.runtime.chat import ChatOptions
from specc.runtime.errors import BundleError, PromptError, SpeccWarning
from specc.runtime.text import Text

ROOT = Path(__file__).parents[2]
TEMPLATE = (
    "{% for m in messages %}{{ bos_token }}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if messages[0].role != 'user' %}{{ raise_exception('begin with the user') }}{% endif %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
HELLO = [{"role": "user", "content": "hello"}]


def text(directory: Path, **config: Any) -> Text:
    tokenizer().save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return Text(bundle_of(directory))


def test_text_tokens_and_messages_are_prompts(tmp_path: Path) -> None:
    codec = text(tmp_path, chat_template=TEMPLATE, bos_token={"content": "<b>"})
    assert codec.decode(codec.encode("the 日")) == "the 日"
    assert codec.encode(iter([5, 0])) == [5, 0]
    assert codec.decode(codec.encode(HELLO)) == "<b>user: hello\nassistant:"


def test_a_template_may_lie_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    codec = text(tmp_path)
    assert codec.render(HELLO) == "hello!"


class Ids:
    """An array of another library."""

    def __init__(self, ids: Any) -> None:
        self.ids = ids

    def __iter__(self) -> Iterator[Any]:
        return (Ids(i) for i in self.ids)

    def __repr__(self) -> str:
        """Return the same text in every process, since it names a test and xdist compares names."""
        return f"Ids({self.ids!r})"

    def tolist(self) -> Any:
        return self.ids


@pytest.mark.parametrize(
    "prompt",
    [
        (5, 0),
        range(5, -1, -5),
        np.array([5, 0]),
        np.array([5, 0], np.uint8),
        np.array([[5, 0]], np.int32),
        list(np.array([5, 0], np.int16)),
        array("H", [5, 0]),
        Ids([5, 0]),
        Ids([[5, 0]]),
        [Ids(5), Ids(0)],
        [[5, 0]],
        {"input_ids": [5, 0], "attention_mask": [1, 1]},
        {"input_ids": np.array([[5, 0]])},
    ],
    ids=repr,
)
def test_token_ids_come_in_any_array_of_integers(tmp_path: Path, prompt: Any) -> None:
    tokens = text(tmp_path).encode(prompt)
    assert tokens == [5, 0] and [type(t) for t in tokens] == [int, int]


@pytest.mark.torch
def test_a_tensor_and_what_a_tokenizer_of_transformers_returns_are_prompts(tmp_path: Path) -> None:
    import torch
    from transformers import PreTrainedTokenizerFast

    codec, fast = text(tmp_path), PreTrainedTokenizerFast(tokenizer_object=tokenizer())
    for kind in (torch.int64, torch.int32, torch.uint8):
        assert codec.encode(torch.tensor([5, 0], dtype=kind)) == [5, 0]
        assert codec.encode(torch.tensor([[5, 0]], dtype=kind)) == [5, 0]
        assert codec.encode(list(torch.tensor([5, 0], dtype=kind))) == [5, 0]
    for wrong in (torch.tensor([5.0, 0.0]), torch.tensor([True, False]), list(torch.tensor([True, False]))):
        with pytest.raises(PromptError, match="is not a token id"):
            codec.encode(wrong)
    assert codec.encode(fast("the 日")) == codec.encode("the 日")
    assert codec.encode(fast("the 日", return_tensors="pt").input_ids) == codec.encode("the 日")


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("prompt", "line"),
    [
        (None, "not NoneType"),
        (b"the", "not bytes"),
        (bytearray(b"the"), "not bytearray"),
        (3, "not int"),
        (np.array(3), "no dimension"),
        ({1, 2}, "a set, which has no order; pass token ids as a list"),
        ({"input_ids": frozenset((1, 2))}, "a frozenset, which has no order"),
        ([[1, 2], [3]], "a batch of 2; pass one prompt at a time"),
        (np.ones((2, 3), int), "a batch of 2"),
        ([[[[1]]]], "a list of lists of lists"),
        (LOOP, "a list of lists of lists"),
        ("caf\udce9", r"lone surrogate U\+DCE9 at character 3"),
        ([{"role": "user", "content": "caf\udce9"}], r"lone surrogate U\+DCE9"),
    ],
    ids=repr,
)
def test_what_is_no_prompt_is_one_line(tmp_path: Path, prompt: Any, line: str) -> None:
    with pytest.raises(PromptError, match=line) as e:
        text(tmp_path, chat_template=TEMPLATE).encode(prompt)
    assert str(e.value).isprintable()


def test_one_message_is_a_conversation(tmp_path: Path) -> None:
    codec = text(tmp_path, chat_template=TEMPLATE)
    assert codec.encode(HELLO[0]) == codec.encode(HELLO)


def test_options_of_a_chat_need_messages(tmp_path: Path) -> None:
    codec = text(tmp_path, chat_template="{{ tools|length }}{{ mood }}")
    options = ChatOptions(tools=[{"name": "f"}], template_kwargs={"mood": "kind"})
    assert codec.decode(codec.encode(HELLO, options)) == "1kind"
    assert codec.encode("the", ChatOptions()) == codec.encode("the")
    for prompt in ("the", [5, 0]):
        with pytest.raises(PromptError, match="need messages"):
            codec.encode(prompt, options)


def test_a_text_is_encoded_as_it_is(tmp_path: Path) -> None:
    """A byte order mark, a NUL and line separators are characters, as for transformers."""
    codec = text(tmp_path)
    for prompt in ("\ufeffthe", "a\0b", "a\u2028b", "\u202eabc", ""):
        assert codec.decode(codec.encode(prompt)) == prompt


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff\xfe", b"3", b"[" * 100_000, b'{"a": "\xe9"}'])
def test_settings_of_a_tokenizer_that_cannot_be_read_are_named(tmp_path: Path, content: bytes) -> None:
    text(tmp_path)
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"tokenizer_config\.json .*; compile again"):
        Text(bundle_of(tmp_path))


def test_a_template_that_is_not_text_is_named(tmp_path: Path) -> None:
    text(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xff")
    with pytest.raises(BundleError, match=r"a chat template in .* cannot be read"):
        Text(bundle_of(tmp_path))


BAD_ITEMS = [[1, -1], [1, "a"], [1, 2.0], [HELLO[0], 1], [None], [True, False], np.array([1.0]), np.array([True]), [1j]]


@pytest.mark.parametrize("prompt", [*BAD_ITEMS, [np.bool_(True)], [np.float32(1)], [np.int8(-1)]], ids=repr)
def test_an_item_that_is_not_a_token_id_is_named(tmp_path: Path, prompt: Any) -> None:
    with pytest.raises(PromptError, match="is not a token id; pass text"):
        text(tmp_path).encode(prompt)


@pytest.mark.parametrize(
    ("template", "role", "named"),
    [
        (None, "user", "no chat template"),
        (TEMPLATE, "system", "begin with the user"),
        ("{% for %}", "user", "the chat template fails"),
        ("{{ messages.__class__.__mro__ }}", "user", "the chat template fails"),
    ],
)
def test_a_conversation_that_cannot_be_rendered_says_why(
    tmp_path: Path, template: str | None, role: str, named: str
) -> None:
    codec = text(tmp_path, **({"chat_template": template} if template else {}))
    with pytest.raises(PromptError, match=named):
        codec.encode([{"role": role, "content": "hello"}])


UNLISTED = ["tokenizer_config.json", "chat_template.jinja", "additional_chat_templates/rag.jinja"]


@pytest.mark.parametrize("name", UNLISTED)
def test_a_file_beside_the_tokenizer_that_the_manifest_does_not_list_is_not_read(tmp_path: Path, name: str) -> None:
    text(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    bundle = bundle_of(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(json.dumps({"chat_template": "evil"}))
    with pytest.warns(SpeccWarning, match=f"does not list {name}, so it is not read; compile again"):
        codec = Text(bundle)
    assert codec.chat.templates == {}


def test_a_tokenizer_that_the_manifest_does_not_list_is_refused(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path)
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BundleError, match=r"does not list 'tokenizer\.json'"):
        Text(bundle)


def test_a_file_that_is_not_a_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        Text(bundle_of(tmp_path))


MEMORY = """
import resource, sys
from pathlib import Path
from specc.runtime.errors import PromptError
from specc.runtime.text import Text
sys.path.append(sys.argv[3])
from listed import bundle_of

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10  # MiB

text, kind = Text(bundle_of(Path(sys.argv[1]))), sys.argv[2]
prompt = {"words": "the quick fox ", "letters": "a", "spaces": " ", "lines": "\\n"}[kind]
prompt *= 20_000_000 // len(prompt)
before = peak()
try:
    text.encode(prompt, None, 256)
except PromptError as e:
    print(peak() - before, e)
"""


@pytest.mark.process
@pytest.mark.parametrize("kind", ["words", "letters", "spaces", "lines"])
def test_a_prompt_of_20_mb_is_refused_before_it_takes_memory(kind: str, tmp_path: Path) -> None:
    """The tokenizer would take some 5 GB for it."""
    shutil.copy(ROOT / "examples/pycode-10m/tokenizer.json", tmp_path)
    command = [sys.executable, "-c", MEMORY, str(tmp_path), kind, str(ROOT / "tests")]
    result = subprocess.run(command, capture_output=True, text=True)
    mebibytes, _, message = result.stdout.partition(" ")
    assert message.startswith("the prompt has more than 512 tokens and the cache 256 rows; shorten it"), result.stderr
    assert int(mebibytes) < 100


def test_a_long_text_of_few_tokens_is_a_prompt(tmp_path: Path) -> None:
    """The bound is on tokens: a normaliser may drop most characters."""
    shrinking = tokenizer()
    shrinking.normalizer = normalizers.Replace("x", "")
    shrinking.save(str(tmp_path / "tokenizer.json"))
    text = Text(bundle_of(tmp_path))
    assert text.encode("the" + "x" * 100_000, None, 256) == text.encode("the")
