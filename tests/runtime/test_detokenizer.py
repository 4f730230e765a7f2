"""Tokens to text one by one, against transformers' decoding of all of them, over tokenizers of twelve kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models

from specc.runtime.detokenizer import Decoder, Detokenizer

SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# Words, spaces, punctuation, characters of several bytes, and U+FFFD itself.
WORDS = ["▁", "▁▁", "a", "b", "▁foo", "foo", "!", "好", "▁好", "\ufffd", "▁the", "n't", "▁'", "▁s", "\n", "é"]


def _byte_level() -> list[str]:
    """Return GPT-2's characters for the bytes, in the order of the bytes."""
    printables = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printables]
    characters = {byte: chr(byte) for byte in printables} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [characters[byte] for byte in range(256)]


def _bpe(tokens: Sequence[str], decoder: Any, **options: Any) -> Tokenizer:
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*SPECIAL, *tokens]))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", **options))
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def _unigram(tokens: Sequence[str], decoder: Any, **options: Any) -> Tokenizer:
    pieces = [(token, -1.0) for token in dict.fromkeys([*SPECIAL, *tokens])]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, **options))
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def _sentencepiece(*strip: Any) -> Any:
    fallback = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    return decoders.Sequence(fallback)


def _gpt2(*added: AddedToken) -> Tokenizer:
    characters = _byte_level()
    joined = ["".join(characters[b] for b in word.encode()) for word in (" the", "好", " é", "🙂", "\ufffd", "a ")]
    halves = ["".join(characters[b] for b in part) for part in (b"a\xf0\x9f", b"\x99\x82", b"\xe5\xa5", b"\xbdb")]
    tokenizer = _bpe([*characters, *joined, *halves], decoders.ByteLevel())
    tokenizer.add_tokens(list(added))
    return tokenizer


def _word_piece() -> Tokenizer:
    words = ["[UNK]", "a", "##b", "##c", ".", ",", "'", "s", "n", "t", "n't", "the", "##好", "é", "!", "do", "##'"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[UNK]"])
    return tokenizer


def _word_level() -> Tokenizer:
    words = ["a", "b", "好", ".", "'", "s", "n't", "ve", "'ve", "!", "é"]
    return Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="a"))


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": _gpt2,
    "byte-level with added tokens": lambda: _gpt2(AddedToken("<tool>"), AddedToken("好", normalized=False)),
    "byte fallback that strips a space": lambda: _bpe(
        [*BYTES, *WORDS], _sentencepiece(decoders.Strip(" ", 1, 0)), byte_fallback=True
    ),
    "byte fallback that strips nothing": lambda: _bpe([*BYTES, *WORDS], _sentencepiece(), byte_fallback=True),
    "byte fallback of few bytes": lambda: _bpe(
        [*BYTES[0xE0:0xF0], *BYTES[0x80:0xC0], *WORDS], _sentencepiece(decoders.Strip(" ", 1, 0)), byte_fallback=True
    ),
    "unigram with byte fallback": lambda: _unigram(
        [*BYTES, *WORDS],
        decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]),
        byte_fallback=True,
    ),
    "metaspace": lambda: _unigram(WORDS, decoders.Metaspace(prepend_scheme="always")),
    "metaspace that keeps the first space": lambda: _unigram(WORDS, decoders.Metaspace(prepend_scheme="never")),
    "word pieces": _word_piece,
    "words": _word_level,
    "ends of words": lambda: _bpe(["a</w>", "b", "好</w>", "é", "c</w>", "!</w>"], decoders.BPEDecoder("</w>")),
    "fused": lambda: _bpe(["a", " b", "好", "\ufffd", " "], decoders.Fuse()),
}
CASES = [(name, clean) for name in TOKENIZERS for clean in (False, True)]


@cache
def tokenizer_of(name: str) -> Tokenizer:
    return TOKENIZERS[name]()


@cache
def decoder_of(name: str, clean_up: bool) -> Decoder:
    return Decoder(tokenizer_of(name), clean_up)


@cache
def transformers_of(name: str, clean_up: bool) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer_of(name), clean_up_tokenization_spaces=clean_up)


def pieces(decoder: Decoder, tokens: Sequence[int], context: Sequence[int] = ()) -> list[str]:
    detokenizer = Detokenizer(decoder, context)
    return [*(detokenizer.add(token) for token in tokens), detokenizer.finish()]


def sequences(data: st.DataObject, name: str, size: int = 14) -> list[int]:
    return data.draw(st.lists(st.integers(0, tokenizer_of(name).get_vocab_size() - 1), max_size=size))


@pytest.mark.torch
@pytest.mark.parametrize(("name", "clean_up"), CASES)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_the_pieces_are_the_text_that_transformers_decodes(name: str, clean_up: bool, data: st.DataObject) -> None:
    tokens, decoder = sequences(data, name), decoder_of(name, clean_up)
    expected = transformers_of(name, clean_up).decode(tokens, skip_special_tokens=True)
    assert decoder.decode(tokens) == expected
    assert "".join(pieces(decoder, tokens)) == expected


@pytest.mark.parametrize(("name", "clean_up"), CASES)
@given(data=st.data())
def test_prompt_and_answer_together_read_as_one_text(name: str, clean_up: bool, data: st.DataObject) -> None:
    """Where the prompt ends with a whole character, that is."""
    prompt, answer, decoder = sequences(data, name, 30), sequences(data, name), decoder_of(name, clean_up)
    whole, before = decoder.decode([*prompt, *answer]), decoder.decode(prompt)
    text = "".join(pieces(decoder, answer, prompt))
    if whole.startswith(before):
        assert before + text == whole


def test_the_first_word_of_an_answer_keeps_its_space() -> None:
    name = "byte fallback that strips a space"
    ids, decoder = tokenizer_of(name).get_vocab(), decoder_of(name, False)
    words = [ids["▁foo"], ids["▁the"]]
    assert pieces(decoder, words, [ids["<s>"], ids["a"]]) == [" foo", " the", ""]
    assert pieces(decoder, words, [ids["<s>"]]) == ["foo", " the", ""]
    assert pieces(decoder, words) == ["foo", " the", ""]


def test_a_character_comes_with_its_last_byte_or_with_the_token_after_its_run() -> None:
    """A byte token makes no character sure: a later one of the run that fits not would undo it."""
    level = "byte-level"
    ids = [tokenizer_of(level).get_vocab()[_byte_level()[byte]] for byte in "é🙂".encode()]
    assert pieces(decoder_of(level, False), ids) == ["", "é", "", "", "", "🙂", ""]
    name = "byte fallback that strips nothing"
    vocabulary, decoder = tokenizer_of(name).get_vocab(), decoder_of(name, False)
    run = [vocabulary[f"<0x{byte:02X}>"] for byte in "好".encode()]
    assert pieces(decoder, [*run, vocabulary["a"]]) == ["", "", "", "好a", ""]
    assert pieces(decoder, run) == ["", "", "", "好"]
    assert pieces(decoder, [*run, vocabulary["<0xFF>"]]) == ["", "", "", "", "\ufffd" * 4]


def test_a_part_of_a_character_at_the_end_is_shown() -> None:
    level = "byte-level"
    ids = [tokenizer_of(level).get_vocab()[_byte_level()[byte]] for byte in b"a\xf0\x9f"]
    assert pieces(decoder_of(level, False), ids) == ["a", "", "", "\ufffd"]


def test_an_answer_completes_the_character_that_its_prompt_begins() -> None:
    level = "byte-level"
    ids = [tokenizer_of(level).get_vocab()[_byte_level()[byte]] for byte in "a好b".encode()]
    assert "".join(pieces(decoder_of(level, False), ids[2:], ids[:2])) == "好b"


def test_an_answer_goes_on_with_the_run_of_bytes_that_its_prompt_ends_with() -> None:
    name = "byte fallback that strips nothing"
    vocabulary = tokenizer_of(name).get_vocab()
    run = [vocabulary[f"<0x{byte:02X}>"] for byte in "好好好好".encode()]
    assert "".join(pieces(decoder_of(name, False), [*run[9:], vocabulary["a"]], [vocabulary["b"], *run[:9]])) == "好a"


def test_text_comes_as_it_is_made_and_a_step_does_not_decode_all_of_it() -> None:
    """Of a long answer each token is decoded a few times, not as often as tokens follow it."""
    level, lengths = "byte-level", []

    class Counting(Decoder):
        def decode(self, tokens: Sequence[int]) -> str:
            lengths.append(len(tokens))
            return super().decode(tokens)

    ids = tokenizer_of(level).get_vocab()["a"]
    matches = pieces(Counting(tokenizer_of(level)), [ids] * 1000, [ids] * 1000)
    assert matches == ["a"] * 1000 + [""]
    assert sum(lengths) < 20_000
