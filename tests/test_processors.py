"""Lossless with processors: each recipe gives what plain decoding gives under the same processors.

The engines are those of the frozen bundle: eight recipes, three kinds of topology, a draft model. No model is compiled.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chance import chi_square_rejects
from thorough import sample

import specc
from specc.runtime.errors import PromptError, RecipeError
from specc.runtime.forced_tokens import ForcedTokens
from specc.runtime.model import Model
from specc.runtime.processors.grammar import Grammar

FROZEN = Path(__file__).parent / "bundles/schema-1"
PROMPT = "def wrap(text, width=70):\n    return"
TOKENS = 48
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]{2,6}$"},
        "sizes": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
        "city": {"enum": ["Paris", "London"]},
    },
    "required": ["name", "sizes", "city"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}
LARK = 'start: line+\nline: "def " NAME "(" NAME ")" ":"\nNAME: /[a-z]{1,4}/'
PROCESSORS: dict[str, dict[str, Any]] = {
    "repetition penalty": {"repetition_penalty": 3.0},
    "frequency and presence": {"frequency_penalty": 1.1, "presence_penalty": 0.7},
    "bias": {"logit_bias": {16: 3.0, 220: -30, 17: 2.0}},
    "bad words": {"bad_words": ["re", "def", "hitespace", [206, 299]]},
    "least length": {"min_new_tokens": 30, "logit_bias": {0: 6.0}},
    "JSON schema": {"json_schema": SCHEMA},
    "regex": {"regex": r"([a-z]{3,7} ){4,9}end\."},
    "Lark": {"lark": LARK},
    "all": {
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.4,
        "logit_bias": {70: 1.5},
        "bad_words": ["text"],
        "min_new_tokens": 12,
        "json_schema": SCHEMA,
        "logprobs": 2,
    },
}
NAMES = ["all", "regex", *(name for name in PROCESSORS if name not in ("all", "regex"))]
SAMPLED = {"temperature": 0.8, "min_p": 0.01, "seed": 5}


@pytest.fixture(scope="module")
def session() -> Iterator[Model]:
    with specc.load(FROZEN) as session:
        yield session


@pytest.fixture(scope="module")
def recipes(session: Model) -> list[str]:
    return [r.name for r in session.bundle.manifest.recipes if r.name != "plain"]


@pytest.mark.parametrize("sampling", sample([SAMPLED, {}], 1), ids=["sampled", "greedy"])
@pytest.mark.parametrize("name", sample(NAMES, 2))
def test_every_recipe_gives_the_tokens_of_plain_decoding(
    name: str, sampling: dict[str, Any], session: Model, recipes: list[str]
) -> None:
    options = PROCESSORS[name] | sampling
    without = session.generate(PROMPT, TOKENS, recipe="plain", **sampling).token_ids
    plain = session.generate(PROMPT, TOKENS, recipe="plain", **options)
    assert plain.token_ids != without
    for recipe in recipes:
        answer = session.generate(PROMPT, TOKENS, recipe=recipe, guard=False, acceptance="match", **options)
        assert (recipe, answer.token_ids, answer.text) == (recipe, plain.token_ids, plain.text)
        assert answer.stats.lossless


@pytest.mark.parametrize("name", sample(["regex", "JSON schema", "all"], 1))
def test_the_guard_and_one_width_change_nothing(name: str, session: Model, recipes: list[str]) -> None:
    plain = session.generate(PROMPT, TOKENS, recipe="plain", **PROCESSORS[name]).token_ids
    for recipe in recipes:
        assert session.generate(PROMPT, TOKENS, recipe=recipe, **PROCESSORS[name]).token_ids == plain
    exact = session.generate(PROMPT, TOKENS, recipe="plain", exact="prompt-lookup", **PROCESSORS[name])
    answer = session.generate(PROMPT, TOKENS, recipe="prompt-lookup", exact=True, **PROCESSORS[name])
    assert answer.token_ids == exact.token_ids


@pytest.mark.parametrize("seed", sample(range(3), 1))
def test_answers_follow_their_grammar_to_the_end(session: Model, recipes: list[str], seed: int) -> None:
    for recipe in ("plain", *recipes):
        options: dict[str, Any] = {"recipe": recipe, "temperature": 1.0, "seed": seed}
        answer = session.generate(PROMPT, 100, json_schema=SCHEMA, **options)
        assert answer.finish_reason == "eos"
        person = json.loads(answer.text)
        assert person.keys() == {"name", "sizes", "city"} and 2 <= len(person["sizes"]) <= 3
        assert person["city"] in ("Paris", "London") and re.fullmatch("[a-z]{2,6}", person["name"])
        text = session.generate(PROMPT, 100, regex=r"([a-z]{3,7} ){4,9}end\.", **options).text
        assert re.fullmatch(r"([a-z]{3,7} ){4,9}end\.", text)


def contains(tokens: list[int], words: list[int]) -> bool:
    return any(tokens[i : i + len(words)] == words for i in range(len(tokens)))


def test_options_do_what_they_say(session: Model) -> None:
    """Each with its own witness, so that a processor that is left out is noticed."""
    plain = session.generate(PROMPT, TOKENS, recipe="prompt-lookup")
    pair = plain.token_ids[5:7]
    bad = session.generate(PROMPT, TOKENS, bad_words=["re", pair])
    for words in (session.text.word_tokens("re"), pair):
        assert contains(plain.token_ids, words) and not contains(bad.token_ids, words)
    often = Counter(plain.token_ids).most_common(1)[0][1]
    penalties: list[dict[str, Any]] = [{f"{kind}_penalty": 2.0} for kind in ("frequency", "presence", "repetition")]
    for penalty in penalties:
        penalised = session.generate(PROMPT, TOKENS, **penalty)
        assert Counter(penalised.token_ids).most_common(1)[0][1] < often
    assert set(session.generate(PROMPT, 8, logit_bias={70: 100}).token_ids) == {70}
    short = session.generate(PROMPT, TOKENS, logit_bias={0: 100})
    assert (short.token_ids, short.finish_reason) == ([0], "eos")
    least = session.generate(PROMPT, TOKENS, logit_bias={0: 100}, min_new_tokens=5)
    assert (len(least.token_ids), least.finish_reason) == (6, "eos")
    stopped = session.generate(PROMPT, TOKENS, logit_bias={70: 100}, stop_token_ids=[70], min_new_tokens=4)
    assert 70 not in stopped.token_ids[:4] and stopped.token_ids[4] == 70


def test_log_probabilities_are_those_of_plain_decoding(session: Model, recipes: list[str]) -> None:
    plain = session.generate(PROMPT, 24, recipe="plain", logprobs=3)
    assert plain.logprobs is not None and [e.token_id for e in plain.logprobs] == plain.token_ids
    assert all(next(iter(e.top)) == e.token_id and e.top[e.token_id] == e.logprob for e in plain.logprobs)
    assert session.generate(PROMPT, 24, recipe="plain").logprobs is None
    for recipe in recipes:
        answer = session.generate(PROMPT, 24, recipe=recipe, logprobs=3)
        assert answer.logprobs is not None
        for own, other in zip(answer.logprobs, plain.logprobs, strict=True):
            assert own.token_id == other.token_id and list(own.top) == list(other.top)
            assert own.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_log_probabilities_stand_beside_the_tokens_of_a_stream(session: Model) -> None:
    stream = session.stream(PROMPT, 20, recipe="prompt-lookup", logprobs=0, stop="el")
    for _ in stream:
        assert stream.logprobs is not None
        assert [e.token_id for e in stream.logprobs] == stream.token_ids


def first_tokens(session: Model, count: int, samples: int, **options: Any) -> Counter[tuple[int, ...]]:
    """Return how often each beginning of an answer came."""
    draws = (session.generate(PROMPT, count, temperature=1.0, seed=seed, **options) for seed in range(samples))
    return Counter(tuple(g.token_ids) for g in draws)


CHOICES: dict[str, Any] = {"regex": "(a|b|c)(x|y)[a-z]", "logit_bias": {72: 1.5}, "top_k": 8}


@pytest.fixture(scope="module")
def probs(session: Model) -> dict[tuple[int, ...], float]:
    """The distribution of two tokens by plain decoding, as far as they are not rare."""
    plain = first_tokens(session, 2, 3000, recipe="plain", **CHOICES)
    return {tokens: count / 3000 for tokens, count in plain.items() if count > 30}


@pytest.mark.thorough
@pytest.mark.parametrize(("recipe", "acceptance"), [("draft-model", "speculative"), ("early-exit", "recursive")])
def test_a_rule_that_rejects_keeps_the_distribution_under_a_grammar(
    recipe: str, acceptance: str, session: Model, probs: dict[tuple[int, ...], float]
) -> None:
    draws = first_tokens(session, 2, 700, recipe=recipe, acceptance=acceptance, guard=False, **CHOICES)
    counts = Counter({tokens: draws[tokens] for tokens in probs})
    total = sum(probs.values())
    assert len(probs) > 3 and sum(counts.values()) > 600
    assert not chi_square_rejects(counts, {tokens: share / total for tokens, share in probs.items()})
    # The control: a distribution that is a little different is noticed.
    uniform = dict.fromkeys(probs, 1 / len(probs))
    assert chi_square_rejects(counts, uniform)


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[Any]:
    """Return a list that gets the result of each call of a method."""
    method: Callable[..., Any] = getattr(owner, name)
    results: list[Any] = []

    def called(self: Any, *args: Any) -> Any:
        results.append(method(self, *args))
        return results[-1]

    monkeypatch.setattr(owner, name, called)
    return results


def test_processors_run_for_the_slots_that_a_rule_looks_at_alone(
    session: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = count_calls(monkeypatch, Grammar, "_allowed")
    requests = count_calls(monkeypatch, Grammar, "likeliest")
    sampled = count_calls(monkeypatch, Grammar, "__call__")
    options: dict[str, Any] = {"recipe": "early-exit", "guard": False, "regex": r"([a-z]{3,7} ){4,9}end\."}
    answer = session.generate(PROMPT, TOKENS, **options)
    assert len(requests) == len(answer.token_ids) > len(masks) > 0 and not sampled
    assert answer.stats.drafted > len(requests)
    answer = session.generate(PROMPT, TOKENS, temperature=1.0, seed=0, **options)
    assert len(sampled) == len(answer.token_ids)


def test_forced_tokens_save_steps(session: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"json_schema": SCHEMA, "guard": False}
    with_forced = {r: session.generate(PROMPT, 60, recipe=r, **options) for r in ("prompt-lookup", "early-exit")}
    monkeypatch.setattr(ForcedTokens, "propose", lambda self, room: self.drafting.propose(room))
    monkeypatch.setattr(ForcedTokens, "observe", lambda self, *args: self.drafting.observe(*args))
    for recipe, answer in with_forced.items():
        without = session.generate(PROMPT, 60, recipe=recipe, **options)
        assert answer.token_ids == without.token_ids
        assert answer.stats.target_calls < without.stats.target_calls - 4


def test_refused_drafts_are_not_verified(session: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"regex": r"([a-z]{3,7} ){4,9}end\.", "guard": False, "recipe": "prompt-lookup"}
    answer = session.generate(PROMPT * 3, TOKENS, **options)
    monkeypatch.setattr(Grammar, "truncate", lambda self, tokens: len(tokens))
    whole = session.generate(PROMPT * 3, TOKENS, **options)
    assert answer.token_ids == whole.token_ids
    assert answer.stats.drafted < whole.stats.drafted and answer.stats.accepted == whole.stats.accepted


def test_the_models_defaults_apply_at_any_temperature(session: Model) -> None:
    config = {"repetition_penalty": 1.3, "min_new_tokens": 9, "bad_words_ids": [[70], [16, 17]]}
    passed: dict[str, Any] = {"repetition_penalty": 1.3, "min_new_tokens": 9, "bad_words": [[70], [16, 17]]}
    expected = session.generate(PROMPT, TOKENS, **passed).token_ids
    plain = session.generate(PROMPT, TOKENS).token_ids
    manifest = session.bundle.manifest
    asks = replace(manifest, model=replace(manifest.model, generation_config=config))
    with Model(replace(session.bundle, manifest=asks)) as other:
        assert other.generate(PROMPT, TOKENS).token_ids == expected != plain
        off: dict[str, Any] = {"repetition_penalty": 1.0, "min_new_tokens": 0, "bad_words": ()}
        assert other.generate(PROMPT, TOKENS, **off).token_ids == plain


def test_a_request_that_no_token_can_answer_is_an_error_and_the_next_one_is_answered(session: Model) -> None:
    stream = session.stream(PROMPT, TOKENS, regex="ab", min_new_tokens=9, recipe="prompt-lookup")
    with pytest.raises(
        PromptError, match=r"no token is left after \d new tokens, by the options min_new_tokens, regex;"
    ):
        stream.rest()
    assert session.generate(PROMPT, 8, regex="ab").text == "ab"


def test_options_of_processors_need_logits(session: Model) -> None:
    manifest = session.bundle.manifest
    engines = tuple(replace(e, block=replace(e.block, outputs=("ids",))) for e in manifest.engines)
    with Model(replace(session.bundle, manifest=replace(manifest, engines=engines))) as less:
        requests: list[dict[str, Any]] = [{"repetition_penalty": 1.1}, {"logprobs": 1}, {"temperature": 1.0}]
        for options in requests:
            with pytest.raises(RecipeError, match="returns no logits, which sampling and processors need"):
                less.stream(PROMPT, 4, **options)
        less.stream(PROMPT, 4)
