"""Grammars by llguidance: what they allow along a path, what they force, and what is refused."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from toys import tokenizer

from specc.runtime.errors import PromptError, SpeccWarning
from specc.runtime.extras import package
from specc.runtime.processors.grammar import COMPILED, Grammar, Grammars, Language

TOKENIZER = tokenizer()
SIZE, EOS = 259, 257  # One more logit than tokens, as models with padded vocabularies have.
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "size": {"enum": [1, 23]}},
    "required": ["name", "size"],
    "additionalProperties": False,
}


def grammars(eos: Sequence[int] = (EOS,)) -> Grammars:
    return Grammars(TOKENIZER.to_str, SIZE, eos)


def regex(source: str, eos: Sequence[int] = (EOS,)) -> Grammar:
    return grammars(eos).compile(Language.REGEX, source)


def ids(text: str) -> list[int]:
    return list(TOKENIZER.encode(text).ids)


def allowed(grammar: Grammar, path: Sequence[int] = ()) -> set[str]:
    """Return what the grammar allows after a path, as texts of tokens; the ends are `$`."""
    row = np.zeros(SIZE, np.float32)
    grammar(path, row)
    tokens = [int(token) for token in np.flatnonzero(~np.isneginf(row))]
    return {"$" if token in grammar.eos else str(TOKENIZER.id_to_token(token)) for token in tokens}


def test_only_tokens_that_can_lead_to_an_answer_are_allowed() -> None:
    grammar = regex("(ab|ac)x?|th[aeo]")
    assert allowed(grammar) == {"a", "t", "th"}
    grammar.commit(ids("a"))
    assert allowed(grammar) == {"b", "c"}
    grammar.commit(ids("c"))
    assert allowed(grammar) == {"x", "$"}
    grammar.commit(ids("x"))
    assert allowed(grammar) == {"$"}
    grammar.commit([EOS])
    assert allowed(grammar) == {"$"}


def test_paths_go_forward_and_back_in_any_order() -> None:
    """The text is `a`, and the slots of a tree are asked for as a rule could walk them."""
    grammar = regex("a(b(c|d)|e(f|g(h|i)))")
    grammar.commit(ids("a"))
    expected = {"": {"b", "e"}, "b": {"c", "d"}, "e": {"f", "g"}, "eg": {"h", "i"}, "bc": {"$"}, "ef": {"$"}}
    rng = np.random.default_rng(0)
    for place in rng.integers(len(expected), size=200):
        path = list(expected)[place]
        assert allowed(grammar, ids(path)) == expected[path]
    grammar.commit(ids("eg"))
    assert allowed(grammar) == {"h", "i"}


def test_after_an_end_on_a_path_only_an_end_is_allowed() -> None:
    grammar = regex("a*", (EOS, 5))
    assert allowed(grammar, [*ids("aa"), EOS]) == {"$"}
    assert allowed(grammar, [EOS, EOS]) == {"$"}
    assert allowed(grammar, ids("aa")) == {"a", "$"}
    row = np.zeros(SIZE, np.float32)
    grammar([], row)
    assert row[5] == row[EOS] == 0.0


@pytest.mark.parametrize("source", ["([ab]the end[12]|a*)+c?", "[a-z ]{3,9}x?", "th(is|at|e) (a|th)b*"])
def test_a_token_is_allowed_if_and_only_if_it_keeps_its_logit(source: str) -> None:
    """Along random answers to their ends, and along paths of the tokens to come."""
    rng = np.random.default_rng(0)
    grammar = regex(source, (EOS, 5))
    for _ in range(12):
        grammar.matcher.reset()
        grammar = Grammar("regex", grammar.matcher, SIZE, (EOS, 5))
        for length in range(14):
            path = [int(t) for t in rng.integers(SIZE, size=length % 2)]
            for prefix in ([], path):
                row = np.zeros(SIZE, np.float32)
                grammar(prefix, row)
                assert [grammar.allows(prefix, t) for t in range(SIZE)] == (row == 0).tolist()
            row = np.zeros(SIZE, np.float32)
            grammar([], row)
            grammar.commit([int(rng.choice(np.flatnonzero(row == 0)))])


def test_a_path_that_it_refuses_changes_nothing() -> None:
    """No rule can accept it. The text goes on from where it was."""
    grammar, row = regex("abc"), np.ones(SIZE, np.float32)
    grammar(ids("ax"), row)
    assert row.tolist() == [1.0] * SIZE
    assert allowed(grammar, ids("ab")) == {"c"}
    grammar([SIZE - 1], row)
    assert row.tolist() == [1.0] * SIZE


def test_tokens_are_refused_from_the_first_one_on_that_it_does_not_allow() -> None:
    grammar = regex("ab(cd)*")
    counts = {"": 0, "ab": 2, "abcd": 4, "abx": 2, "xb": 0, "abcdce": 5}
    assert {text: grammar.truncate(ids(text)) for text in counts} == counts
    assert grammar.truncate([*ids("ab"), EOS]) == 3
    assert grammar.truncate([*ids("a"), EOS, *ids("b")]) == 2  # The target decides about an end.
    assert grammar.truncate([*ids("x"), EOS]) == 0 and grammar.truncate([EOS, EOS]) == 1
    assert grammar.truncate([*ids("ab"), SIZE, 1]) == 2 and grammar.truncate([-1]) == 0
    assert allowed(grammar) == {"a"}
    grammar.commit([*ids("ab"), EOS])
    assert grammar.truncate(ids("cd")) == 0


def test_what_has_no_alternative_is_forced() -> None:
    grammar = regex("[ab]the end[12]")
    assert list(grammar.forced()) == []
    grammar.commit(ids("b"))
    assert list(grammar.forced()) == ids("the end")
    assert allowed(grammar) == {"th"}
    grammar.commit(ids("the end"))
    assert list(grammar.forced()) == []
    grammar.commit(ids("2"))
    assert list(grammar.forced()) == [EOS]
    grammar.commit([EOS])
    assert list(grammar.forced()) == []


def test_a_json_schema_comes_as_a_dict_or_as_text() -> None:
    text = '{"name": "x", "size": 23}'
    for source in (SCHEMA, json.dumps(SCHEMA)):
        grammar = grammars().compile(Language.JSON_SCHEMA, source)
        assert grammar.truncate([*ids(text), EOS]) == len(ids(text)) + 1
        assert grammar.truncate(ids('{"name": 5')) == len(ids('{"name": '))


def test_a_lark_grammar() -> None:
    grammar = grammars().compile(Language.LARK, 'start: "a" digits ";"\ndigits: /[0-9]+/')
    assert grammar.truncate(ids("a12;")) == 4
    assert grammar.truncate(ids("a12x")) == 3


def test_requests_with_one_grammar_do_not_share_its_state() -> None:
    library = grammars()
    first = library.compile(Language.REGEX, "ab")
    first.commit(ids("a"))
    second = library.compile(Language.REGEX, "ab")
    assert (allowed(first), allowed(second)) == ({"b"}, {"a"})
    second.commit(ids("ab"))
    assert allowed(first) == {"b"}


def test_only_the_last_grammars_are_kept() -> None:
    library = grammars()
    for number in range(COMPILED + 3):
        library.compile(Language.REGEX, f"a{number}")
    assert len(library._compiled) == COMPILED


@pytest.mark.parametrize(
    ("language", "source", "message"),
    [
        ("regex", "(abc", r"regex is refused: .*invalid regex .*: unclosed group; change it"),
        ("regex", r"[^\s\S]", "regex is refused: no answer is possible by it; change it"),
        ("lark", "start: start", "lark is refused: no answer is possible by it; change it"),
        ("json_schema", {"$ref": "#"}, "json_schema is refused: no answer is possible by it; change it"),
        ("regex", "\ud800", r"regex has the lone surrogate U\+D800 at character 0; give UTF-8 text"),
        ("lark", "\ud800", r"lark has the lone surrogate U\+D800 at character 0; give UTF-8 text"),
        ("regex", "", "regex is ''; give text"),
        ("regex", 5, "regex is 5; give text"),
        ("lark", "start: missing", r"lark is refused: .*unknown name: \"missing\".*; change it"),
        ("json_schema", {"type": "objct"}, "json_schema is refused: Invalid type: objct; change it"),
        ("json_schema", {"uniqueItems": True}, r'json_schema is refused: .*\["uniqueItems"\]; change it'),
        ("json_schema", '{"type":', r"json_schema is not JSON \(Expecting value.*\); give a JSON object or its text"),
        ("json_schema", "[1]", r"json_schema is \[1\]; give a JSON object"),
        ("json_schema", {"enum": {1}}, r"json_schema is not JSON \(.*set.*\); give a JSON object or its text"),
    ],
)
def test_a_grammar_that_cannot_be_used_is_refused_in_one_line(language: str, source: Any, message: str) -> None:
    with pytest.raises(PromptError) as refusal:
        grammars().compile(Language(language), source)
    assert re.fullmatch(message, str(refusal.value))


def test_a_model_without_an_end_is_refused() -> None:
    with pytest.raises(PromptError, match="regex needs a model with an end-of-sequence token, and this one has none"):
        grammars(()).compile(Language.REGEX, "a")


def test_a_tokenizer_that_the_library_cannot_read_is_refused() -> None:
    library = Grammars(lambda: '{"model": {}}', SIZE, (EOS,))
    message = r"regex: llguidance cannot use this tokenizer \(.*\); decode without a grammar"
    with pytest.raises(PromptError, match=message):
        library.compile(Language.REGEX, "a")


def test_without_llguidance_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    message = f"lark needs llguidance, which is not installed; pip install {re.escape(package('grammar'))}"
    with pytest.raises(PromptError, match=message):
        grammars().compile(Language.LARK, "start: /a/")


def test_a_committed_token_that_it_refuses_is_an_error() -> None:
    """As a rule would commit that accepts what has no probability."""
    with pytest.raises(PromptError, match=r"regex does not allow token \d+; use an acceptance rule that is lossless"):
        regex("ab").commit(ids("ax"))


def test_a_limit_of_the_library_is_an_error() -> None:
    class Failed:
        def try_consume_tokens(self, tokens: list[int]) -> int:
            return 0

        def is_error(self) -> bool:
            return True

        def get_error(self) -> str:
            return "lexer error: too many states\nand more"

    matcher: Any = Failed()
    with pytest.raises(PromptError, match="lark: lexer error: too many states; simplify it"):
        Grammar("lark", matcher, SIZE, (EOS,)).commit([1])


def test_a_warning_of_the_library_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from llguidance import LLMatcher

    class Warns:
        def __init__(self, *args: Any, **options: Any) -> None:
            self.matcher = LLMatcher(*args, **options)

        grammar_from_regex = staticmethod(LLMatcher.grammar_from_regex)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.matcher, name)

        def get_grammar_warnings(self) -> list[str]:
            return ["a rule\nis slow"]

    monkeypatch.setattr("llguidance.LLMatcher", Warns)
    with pytest.warns(SpeccWarning, match="regex: a rule is slow"):
        regex("a")


def test_threads_that_compile_grammars_at_once_keep_no_more_of_them() -> None:
    library = grammars()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: library.compile(Language.REGEX, f"a{number}"), range(200)))
    assert len(library._compiled) <= COMPILED
