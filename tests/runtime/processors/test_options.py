"""The options of a request that concern processors: their order, their neutral values, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_bundle import MANIFEST
from toys import tokenizer

from specc.runtime.errors import PromptError
from specc.runtime.processors import Processing
from specc.runtime.processors.bad_words import BadWords
from specc.runtime.processors.grammar import Grammars
from specc.runtime.processors.options import ProcessorOptions

SIZE, EOS = 258, 257
MODEL = replace(MANIFEST.model, vocab_size=SIZE, eos_token_ids=(EOS,))
TOKENIZER = tokenizer()
TEXT: Any = SimpleNamespace(
    word_tokens=lambda text: TOKENIZER.encode(text).ids, grammars=Grammars(TOKENIZER.to_str, SIZE, (EOS,))
)


def make(**options: Any) -> Processing | None:
    return ProcessorOptions(**options).make([1, 2], TEXT, MODEL, (EOS,))


def names(**options: Any) -> list[str]:
    processing = make(**options)
    return [type(p).__name__ for p in processing.processors] if processing else []


def test_a_request_without_options_has_no_processors() -> None:
    neutral = {
        "repetition_penalty": 1.0, "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "bad_words": (),
        "min_new_tokens": 0,
    }  # fmt: skip
    assert make() is None
    assert make(**dict.fromkeys(neutral)) is None
    assert make(**neutral) is None
    assert make(logit_bias={3: 0.0}) is None


def test_processors_come_in_the_order_of_transformers() -> None:
    order = ["LogitBias", "RepetitionPenalty", "FrequencyPenalty", "BadWords", "MinNewTokens", "Grammar"]
    options: dict[str, Any] = {
        "regex": "a+", "min_new_tokens": 2, "bad_words": ["no"], "presence_penalty": 0.1, "repetition_penalty": 1.1,
        "logit_bias": {3: 1},
    }  # fmt: skip
    assert names(**options) == order


@pytest.mark.torch
def test_the_order_is_that_in_which_transformers_puts_its_own() -> None:
    import torch
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

    model: Any = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=4, vocab_size=8))
    config = GenerationConfig(
        sequence_bias=[[[3], 1.0]], repetition_penalty=1.1, bad_words_ids=[[4]], min_new_tokens=2, eos_token_id=0,
        num_beams=1, num_return_sequences=1,
    )  # fmt: skip
    config._eos_token_tensor = torch.tensor([0])
    processors = model._get_logits_processor(config, 2, prefix_allowed_tokens_fn=lambda batch, ids: [1])
    assert [type(p).__name__ for p in processors] == [
        "SequenceBiasLogitsProcessor",
        "RepetitionPenaltyLogitsProcessor",
        "NoBadWordsLogitsProcessor",
        "MinNewTokensLengthLogitsProcessor",
        "PrefixConstrainedLogitsProcessor",
    ]


def test_log_probabilities_alone_need_no_processors() -> None:
    processing = make(logprobs=0)
    assert processing is not None and processing.processors == () and processing.logprobs is not None
    assert processing.logprobs.count == 0


def test_without_an_end_a_least_length_changes_nothing() -> None:
    assert ProcessorOptions(min_new_tokens=3).make([1], TEXT, MODEL, ()) is None


def test_a_word_is_forbidden_with_and_without_a_space_and_tokens_as_they_are() -> None:
    processing = make(bad_words=["the", " a", [5, 6]])
    assert processing is not None
    (words,) = processing.processors
    assert isinstance(words, BadWords)
    single = {int(t) for t in words.single}
    longer = {(*prefix, last) for prefix, last in words.longer}
    expected = [TOKENIZER.encode(text).ids for text in ("the", " the", " a")] + [[5, 6]]
    assert single | longer == {tuple(tokens) for tokens in expected}
    one = make(bad_words="x")
    assert one is not None and isinstance(one.processors[0], BadWords)
    assert one.processors[0].single.tolist() == TOKENIZER.encode("x").ids


def test_a_bias_may_have_its_token_as_text_as_in_json() -> None:
    processing = make(logit_bias={"7": 2, np.int64(8): -1.5})
    row = np.zeros(SIZE, np.float32)
    assert processing is not None
    processing.processors[0]([], row)
    assert (row[7], row[8]) == (2.0, -1.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"repetition_penalty": 0},
            "repetition_penalty is 0; give a number from 0.001 to 1000, where 1 changes nothing",
        ),
        (
            {"repetition_penalty": 1e39},
            "repetition_penalty is 1e+39; give a number from 0.001 to 1000, where 1 changes nothing",
        ),
        ({"repetition_penalty": True}, "repetition_penalty is True; give a finite number, where 1 changes nothing"),
        ({"repetition_penalty": "2"}, "repetition_penalty is '2'; give a finite number, where 1 changes nothing"),
        ({"frequency_penalty": 2.1}, "frequency_penalty is 2.1; give a number from -2 to 2"),
        ({"presence_penalty": -3}, "presence_penalty is -3; give a number from -2 to 2"),
        ({"presence_penalty": float("nan")}, "presence_penalty is nan; give a finite number, where 0 changes nothing"),
        ({"logit_bias": [1]}, "logit_bias is [1]; give a dict of token ids and numbers"),
        ({"logit_bias": {258: 1.0}}, "logit_bias: 258 is not a token id; give 0 to 257"),
        ({"logit_bias": {"x": 1.0}}, "logit_bias: 'x' is not a token id; give 0 to 257"),
        ({"logit_bias": {5: 101}}, "logit_bias: the bias of token 5 is 101; give a number from -100 to 100"),
        (
            {"logit_bias": {5: "1"}},
            "logit_bias: the bias of token 5 is '1'; give a finite number, where 0 changes nothing",
        ),
        ({"bad_words": 5}, "bad_words is 5; give a list of words"),
        ({"bad_words": [5]}, "bad_words has 5; give words, or lists of token ids"),
        ({"bad_words": [""]}, "bad_words has '', which has no tokens; leave it out"),
        ({"bad_words": [b"x"]}, "bad_words has b'x'; give words, or lists of token ids"),
        ({"bad_words": np.array(1)}, "bad_words is array(1); give a list of words"),
        ({"bad_words": [[]]}, "bad_words has [], which has no tokens; leave it out"),
        ({"bad_words": [[999]]}, "bad_words: 999 is not a token id; give 0 to 257"),
        ({"bad_words": ["\ud800"]}, "a bad word has the lone surrogate U+D800 at character 0; give UTF-8 text"),
        ({"min_new_tokens": -1}, "min_new_tokens is -1; give a whole number, 0 or more"),
        ({"min_new_tokens": 1.5}, "min_new_tokens is 1.5; give a whole number, 0 or more"),
        ({"logprobs": True}, "logprobs is True; give a whole number, 0 or more"),
        ({"logprobs": 259}, "logprobs is 259, and the vocabulary has 258 tokens; give fewer"),
        ({"regex": "a", "json_schema": {}}, "json_schema and regex exclude each other; give one grammar"),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=f"^{re.escape(message)}$"):
        make(**options)


@pytest.mark.parametrize("number", [10**400, Fraction(10**400)])
@pytest.mark.parametrize("name", ["repetition_penalty", "frequency_penalty", "presence_penalty"])
def test_a_number_too_large_for_a_float_is_refused(name: str, number: Any) -> None:
    with pytest.raises(PromptError, match=f"{name} is .*; give a finite number"):
        make(**{name: number})


def test_a_token_id_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(PromptError, match="is not a token id; give 0 to 257"):
        make(logit_bias={"9" * 5000: 1})


@pytest.mark.parametrize("token", [-1, SIZE, 10**30])
def test_a_stop_token_outside_the_vocabulary_needs_no_least_length(token: int) -> None:
    """It has no logit. As an index -1 would be the last token of the vocabulary."""
    processing = ProcessorOptions(min_new_tokens=2).make([1], TEXT, MODEL, (token, EOS))
    row = np.zeros(SIZE, np.float32)
    assert processing is not None
    processing.processors[0]([], row)
    assert np.flatnonzero(np.isneginf(row)).tolist() == [EOS]
    assert ProcessorOptions(min_new_tokens=2).make([1], TEXT, MODEL, (token,)) is None
