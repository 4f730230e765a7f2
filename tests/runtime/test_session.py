"""A session over a bundle whose engines are toys: requests, turns of a conversation, and what is refused."""

from __future__ import annotations

import gc
import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles.toy_bundle import CONTEXT, VOCABULARY, ToyBackend, write_bundle
from thorough import sample
from toys import Toy

import specc
from specc.recipes.axes import RULES
from specc.runtime import engines
from specc.runtime.acceptance import rule
from specc.runtime.bundle import open_bundle
from specc.runtime.chat import ChatTemplate
from specc.runtime.device import CPU, Device
from specc.runtime.draft import Accepted, Draft, Verified
from specc.runtime.errors import BackendError, BundleError, PromptError, RecipeError, SpeccError
from specc.runtime.session import Session, open_session
from specc.runtime.width_invariance import WidthInvariance

PROMPT = "the quick brown fox"


@pytest.fixture
def session(tmp_path: Path, backend: ToyBackend) -> Session:
    """A session whose engines run in numpy."""
    write_bundle(tmp_path / "toy.specc")
    return open_session(open_bundle(tmp_path / "toy.specc"))


def change_manifest(session: Session, **changes: Any) -> None:
    """Let the session's bundle say something else."""
    session.shared.bundle = replace(session.bundle, manifest=replace(session.bundle.manifest, **changes))


def test_every_recipe_of_a_bundle_gives_the_same_tokens(session: Session) -> None:
    """One session for all: rows of the last recipe's answer are dropped, and drafters come from the manifest."""
    expected = session.generate(PROMPT, 60, ignore_eos=True)
    for recipe in session.bundle.manifest.recipes:
        got = session.generate(PROMPT, 60, recipe=recipe.name, ignore_eos=True)
        assert (got.token_ids, got.text, got.finish_reason) == (expected.token_ids, expected.text, "length")
        assert got.stats.recipe == recipe.name and got.stats.new_tokens == 60 and got.stats.prompt_tokens == 18
        assert (got.stats.drafts > 0) == (recipe.name != "plain")
        assert got.stats.target_calls <= 59


@pytest.mark.filterwarnings("ignore:acceptance .* is match at temperature 0")
@pytest.mark.parametrize("rule_name", RULES)
def test_a_rule_is_refused_before_the_first_token_or_serves_the_whole_answer(
    rule_name: str, tmp_path: Path, backend: ToyBackend
) -> None:
    """By every recipe, greedy and sampled. A rule for chains serves trees where it is `match`."""
    write_bundle(tmp_path / "toy.specc", options=("assistant-model", "untuned-model", "corpus"))
    session = open_session(open_bundle(tmp_path / "toy.specc"))
    served: dict[str, list[float]] = {}
    for recipe in session.bundle.manifest.recipes:
        for temperature in (0.0, 1.0):
            options: dict[str, Any] = {"recipe": recipe.name, "temperature": temperature, "seed": 5}
            try:
                stream = session.stream(PROMPT, 24, acceptance=rule_name, ignore_eos=True, guard=False, **options)
            except RecipeError as e:
                assert re.search(f"acceptance '?{rule_name}'? (needs|is for chains|reads)", str(e))
                continue
            assert len(stream.rest().token_ids) == 24
            served.setdefault(recipe.name, []).append(temperature)
    assert (served == {}) == (rule_name == "judge")
    assert set(served) == {"fs-gen-proxy"} or rule_name != "proxy"
    assert served.get("early-exit") == {"match": [0.0, 1.0], "speculative": [0.0]}.get(
        rule_name, served.get("early-exit")
    )


@pytest.mark.parametrize("name", ["recipe", "guard", "exact", "ignore_eos"])
@pytest.mark.parametrize("value", [np.array([1, 2]), [1], 7], ids=repr)
def test_an_option_of_another_type_is_one_error(session: Session, name: str, value: Any) -> None:
    with pytest.raises(SpeccError, match=rf"{name} is .*; give (a name|True or False)"):
        session.generate(PROMPT, 2, **{name: value})


@pytest.mark.parametrize("most", [1, 2, 3, 5, 9, 14, 40])
def test_nothing_is_drafted_past_what_is_asked_for(session: Session, most: int) -> None:
    """A step gives what it accepts and one token more: of a tree that is always the same, some may be too much."""
    for recipe in session.bundle.manifest.recipes:
        stats = session.generate(PROMPT, most, recipe=recipe.name, ignore_eos=True).stats
        assert stats.new_tokens == most
        beyond = stats.accepted + stats.target_calls - (most - 1)
        assert beyond == 0 or recipe.name in ("early-exit", "token-recycling", "jacobi", "lookahead")


def test_a_second_turn_runs_only_what_is_new(session: Session) -> None:
    """59 of 60 tokens of the first answer have rows; the next prompt goes on from them."""
    first = session.text.encode(PROMPT)
    answer = session.generate(first, 60, ignore_eos=True).token_ids
    prefill, decode = session.engines["prefill"], session.engines["decode"]
    calls = prefill.calls, decode.calls
    second = session.generate(first + answer, 1, ignore_eos=True)
    assert (prefill.calls, decode.calls) == (calls[0], calls[1] + 1)
    fresh = open_session(session.bundle).generate(first + answer, 1, ignore_eos=True)
    assert second.token_ids == fresh.token_ids


def test_a_session_suggests_several_texts_and_goes_on_with_its_conversation(
    tmp_path: Path, backend: ToyBackend
) -> None:
    write_bundle(tmp_path / "toy.specc", options=("corpus",))
    session = open_session(open_bundle(tmp_path / "toy.specc"))
    plain = session.generate(PROMPT, 20, recipe="plain").token_ids
    texts = session.suggest(PROMPT, 6)
    assert len({text.tokens for text in texts}) == 3 and {len(text.tokens) for text in texts} == {6}
    assert session.suggest(PROMPT, 6, recipe="superposed") == texts
    assert session.generate(PROMPT, 20, recipe="plain").token_ids == plain
    for options, message in (
        ({"recipe": "plain"}, "recipe plain gives one answer; leave it out"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; give 1 or more"),
    ):
        with pytest.raises(SpeccError, match=message):
            session.suggest(PROMPT, **options)


def test_a_bundle_without_such_a_recipe_suggests_nothing(session: Session) -> None:
    with pytest.raises(RecipeError, match="no recipe of this bundle gives several suggestions; compile it with"):
        session.suggest(PROMPT)


def test_a_request_that_was_given_up_leaves_nothing_behind(session: Session) -> None:
    expected = session.generate(PROMPT, 40, ignore_eos=True).text
    for _ in zip(range(5), session.stream("the lazy dog", 40, recipe="early-exit", ignore_eos=True), strict=False):
        pass
    assert session.generate(PROMPT, 40, recipe="early-exit", ignore_eos=True).text == expected


def test_the_end_of_the_context_is_the_end(session: Session) -> None:
    got = session.generate([1] * (CONTEXT - 3), 100, recipe="lookahead", ignore_eos=True)
    assert len(got.token_ids) == 3 and got.finish_reason == "length"


def test_a_seed_fixes_what_is_sampled(session: Session) -> None:
    """With the rule that samples from the target alone, whatever drafts."""
    options: dict[str, Any] = {"temperature": 0.9, "top_k": 20, "top_p": 0.95, "ignore_eos": True}
    one, two, other = (
        session.generate(PROMPT, 40, recipe=recipe, seed=seed, **options).token_ids
        for recipe, seed in (("plain", 1), ("token-recycling", 1), ("plain", 2))
    )
    assert one == two != other


@pytest.mark.parametrize("seed", sample(range(4), 1))
def test_a_seeded_sample_is_a_function_of_the_request(session: Session, seed: int) -> None:
    """Whatever drafts, with the guard and without it, after other requests, with rows in the cache and without."""
    options: dict[str, Any] = {"temperature": 1.1, "top_p": 0.98, "seed": seed, "ignore_eos": True}
    expected = open_session(session.bundle).generate(PROMPT, 60, recipe="plain", **options).token_ids
    for recipe in session.bundle.manifest.recipes:
        for guard in (True, False):
            got = session.generate(PROMPT, 60, recipe=recipe.name, acceptance="match", guard=guard, **options)
            assert got.token_ids == expected, recipe.name
    first = session.text.encode(PROMPT)
    cut = len(first) + 30
    for turn in (first, (first + expected)[:cut]):
        rest = session.generate(turn, 10, recipe="plain", **options).token_ids
        assert rest == (first + expected)[len(turn) : len(turn) + 10]


@pytest.mark.parametrize(("recipe", "acceptance"), [("early-exit", "recursive"), ("layer-skip", "speculative")])
def test_a_sample_by_rejection_repeats_in_every_session(session: Session, recipe: str, acceptance: str) -> None:
    options: dict[str, Any] = {"recipe": recipe, "acceptance": acceptance, "temperature": 1.1, "ignore_eos": True}
    texts = []
    for seed in range(3):
        fresh = open_session(session.bundle).generate(PROMPT, 50, seed=seed, guard=False, **options).token_ids
        session.generate("the lazy dog", 20, seed=5, guard=False, **options)
        assert session.generate(PROMPT, 50, seed=seed, guard=False, **options).token_ids == fresh
        texts.append(fresh)
    assert texts[0] != texts[1] != texts[2]


@rule(needs_draft_probs=False)
def everything(draft: Draft, verified: Verified) -> Accepted:
    """Accept the first path, whatever the target says: a lossy rule."""
    slots = [0]
    while children := draft.tree.children[slots[-1]]:
        slots.append(children[0])
    return Accepted(tuple(slots), verified.choose(slots[-1]))


@pytest.mark.parametrize(
    ("recipe", "acceptance", "temperature", "lossless", "guarded"),
    [
        ("jacobi", None, 0.0, True, True),
        ("jacobi", None, 1.0, True, True),
        ("jacobi", everything, 0.0, False, False),
        ("early-exit", "recursive", 0.0, True, True),
        ("early-exit", "recursive", 1.0, True, False),
        ("layer-skip", "speculative", 1.0, True, False),
        ("plain", everything, 0.0, False, False),
        ("jacobi", "typical", 0.0, True, True),
        ("jacobi", "typical", 1.0, False, False),
    ],
)
def test_the_rule_in_use_says_what_is_lossless_and_where_a_guard_changes_nothing(
    session: Session, recipe: str, acceptance: Any, temperature: float, lossless: bool, guarded: bool
) -> None:
    got = session.generate(PROMPT, 20, recipe=recipe, acceptance=acceptance, temperature=temperature, ignore_eos=True)
    assert (got.stats.lossless, got.stats.guard is not None) == (lossless, guarded)
    assert got.stats.to_json()["lossless"] is lossless


@pytest.mark.parametrize(
    ("rule", "temperature", "warns"), [("typical", 0.0, 1), ("typical", 1.0, 0), ("match", 0.0, 0)]
)
def test_a_lossy_rule_that_changes_nothing_at_temperature_0_says_so(
    session: Session, rule: str, temperature: float, warns: int, recwarn: pytest.WarningsRecorder
) -> None:
    session.generate(PROMPT, 5, recipe="jacobi", acceptance=rule, temperature=temperature)
    texts = [str(warning.message) for warning in recwarn]
    assert len(texts) == warns
    assert all(text.startswith("acceptance typical is match at temperature 0, which is lossless") for text in texts)


def test_a_lossless_rule_makes_a_lossy_recipe_lossless(session: Session) -> None:
    lossy = [replace(r, lossless=False, acceptance="trust") for r in session.bundle.manifest.recipes]
    change_manifest(session, recipes=tuple(lossy))
    for acceptance, lossless in ((None, False), ("recursive", True)):
        stats = session.generate(PROMPT, 5, recipe="early-exit", acceptance=acceptance, ignore_eos=True).stats
        assert stats.lossless is lossless


def test_no_rule_makes_a_recipe_lossless_whose_target_reads_rounded_rows(session: Session) -> None:
    manifest = session.bundle.manifest
    verify = {name for recipe in manifest.recipes if recipe.name == "early-exit" for name in recipe.verify}
    engines = [
        replace(engine, block=replace(engine.block, quantized_group=8, quantized_bits=8))
        if engine.name in verify
        else engine
        for engine in manifest.engines
    ]
    lossy = [replace(r, lossless=False, acceptance="trust") for r in manifest.recipes]
    change_manifest(session, engines=tuple(engines), recipes=tuple(lossy))
    stats = session.generate(PROMPT, 5, recipe="early-exit", acceptance="recursive", ignore_eos=True).stats
    assert not stats.lossless


def test_over_a_target_that_depends_on_the_width_nothing_is_lossless_but_plain_decoding(session: Session) -> None:
    """And the guard, which changes widths by the clock, does not work there."""
    measured = WidthInvariance(
        backend="toy", holds=False, difference=0.6, changed=0.02, tokens=100, slots=(4,), slots_agree=True
    )
    change_manifest(session, width_invariance=measured)
    for recipe, lossless in (("jacobi", False), ("early-exit", False), ("plain", True)):
        stats = session.generate(PROMPT, 5, recipe=recipe, ignore_eos=True).stats
        assert (stats.lossless, stats.guard) == (lossless, None)


class Rounded(Toy):
    """A model whose logits depend on the width of the step, as those of 4-bit weights do."""

    def head(self, token_N: np.ndarray, x_N: np.ndarray) -> None:
        super().head(token_N, x_N)
        logits = self.outputs["logits"]
        logits += np.random.default_rng(self.block.slots).normal(size=(logits.shape[-1],)).astype(np.float32)
        self.outputs["ids"][0] = logits[0].argmax(-1)


CHAINS = ("prompt-lookup", "recycled-lookup", "jacobi", "layer-skip", "cascade", "staged")


@pytest.fixture
def rounded(session: Session, backend: ToyBackend) -> Session:
    """A session whose engines round differently at each width. Its own width decides every token of an engine."""
    backend.model = Rounded
    return session


@pytest.mark.parametrize("recipe", sample(CHAINS, 2))
def test_an_exact_request_gives_the_tokens_of_plain_decoding_at_one_width(rounded: Session, recipe: str) -> None:
    """Whatever the guard does, and with rows of other requests in the cache. The control: without it, they differ."""
    for options in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 2, "acceptance": "match"}):
        request: dict[str, Any] = {**options, "ignore_eos": True}
        plain = rounded.generate(PROMPT, 60, recipe="plain", exact=recipe, **request)
        for guard in (True, False):
            got = rounded.generate(PROMPT, 60, recipe=recipe, guard=guard, exact=True, **request)
            assert got.token_ids == plain.token_ids
        assert plain.stats.guard is None and plain.stats.drafts == 0
        loose = rounded.generate(PROMPT, 60, recipe=recipe, guard=False, **request).token_ids
        assert loose != rounded.generate(PROMPT, 60, recipe="plain", **request).token_ids


def test_every_run_of_an_exact_request_has_one_width(rounded: Session) -> None:
    """That of the recipe's widest engine, the prompt's runs too; so a cached prompt and a fresh one agree."""
    request: dict[str, Any] = {"recipe": "prompt-lookup", "exact": True, "ignore_eos": True}
    names = rounded.bundle.recipe("prompt-lookup").verify
    rounded.generate("the lazy dog", 10, recipe="prompt-lookup")
    calls = {e.name: rounded.engines[e.name].calls for e in rounded.engines.specs()}
    first = rounded.text.encode(PROMPT)
    answer = rounded.generate(first, 40, **request).token_ids
    result = [name for name, count in calls.items() if rounded.engines[name].calls > count]
    assert result == [names[-1]]
    second = rounded.generate(first + answer, 20, **request).token_ids
    assert second == open_session(rounded.bundle).generate(first + answer, 20, **request).token_ids
    assert rounded.generate(first, 60, **request).token_ids == answer + second


def test_what_is_exact_is_lossless_over_any_target_and_has_its_guard(session: Session) -> None:
    measured = WidthInvariance(
        backend="toy", holds=False, difference=0.6, changed=0.02, tokens=100, slots=(4,), slots_agree=True
    )
    change_manifest(session, width_invariance=measured)
    stats = session.generate(PROMPT, 5, recipe="jacobi", exact=True, ignore_eos=True).stats
    assert stats.lossless and stats.guard is not None
    change_manifest(session, width_invariance=replace(measured, slots_agree=False))
    with pytest.raises(RecipeError, match="other logits in other slots here; decode by recipe plain"):
        session.generate(PROMPT, 5, recipe="jacobi", exact=True)


def test_a_recipe_that_verifies_trees_cannot_be_exact(session: Session) -> None:
    with pytest.raises(RecipeError, match=r"exact: recipe early-exit verifies trees, .* prompt-lookup"):
        session.stream(PROMPT, recipe="early-exit", exact=True)
    with pytest.raises(RecipeError, match="exact: recipe plain has no engine of several slots"):
        session.stream(PROMPT, recipe="jacobi", exact="plain")
    with pytest.raises(RecipeError, match="did you mean 'jacobi'"):
        session.stream(PROMPT, recipe="plain", exact="jacobbi")


RULE_OF = {"jacobi": "match", "early-exit": "recursive", "lookahead": "match", "layer-skip": "speculative"}


@pytest.mark.parametrize("recipe", sample(RULE_OF, 2))
def test_neither_greedy_output_nor_samples_depend_on_the_clock(
    session: Session, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    """A clock that runs at random: the guard cuts and stops drafts anywhere."""
    acceptance = RULE_OF[recipe]
    for temperature in (0.0, 1.0):
        texts, switches = set(), set()
        for clock in range(4):
            rng = np.random.default_rng(clock)
            times = iter(np.cumsum(rng.exponential(size=100_000) ** 3))
            monkeypatch.setattr(time, "perf_counter", lambda times=times: float(next(times)))
            got = session.generate(
                PROMPT, 80, recipe=recipe, acceptance=acceptance, temperature=temperature, seed=3, ignore_eos=True
            )
            texts.add(tuple(got.token_ids))
            switches.add(got.stats.guard and (got.stats.guard.switches, got.stats.guard.plain_steps))
        assert len(texts) == 1, temperature
        assert (len(switches) > 1) == (acceptance == "match" or not temperature)


def test_a_rule_that_needs_draft_probs_gets_a_drafter_that_samples(session: Session) -> None:
    """And the recipe's own rule one that does not, in the same session."""
    options: dict[str, Any] = {"recipe": "early-exit", "temperature": 0.9, "seed": 1, "ignore_eos": True}
    first, sampled, second = (
        session.generate(PROMPT, 40, acceptance=rule, **options) for rule in (None, "recursive", "match")
    )
    assert first.token_ids == second.token_ids != sampled.token_ids
    assert sampled.stats.accepted > 0


def test_a_later_request_leaves_the_guards_counts_of_an_earlier_answer_alone(session: Session) -> None:
    first = session.generate(PROMPT, 60, recipe="jacobi", ignore_eos=True).stats
    counts = first.to_json()["guard"]
    assert counts["plain_steps"] > 0
    second = session.generate(PROMPT, 2, recipe="jacobi", ignore_eos=True).stats
    assert first.to_json()["guard"] == counts
    assert second.to_json()["guard"] != counts


def test_only_what_drafts_has_a_guard_and_only_when_asked_for(session: Session) -> None:
    for recipe, guard, guarded in (("jacobi", True, True), ("jacobi", False, False), ("plain", True, False)):
        stats = session.generate(PROMPT, 5, recipe=recipe, guard=guard, ignore_eos=True).stats
        assert (stats.guard is not None) == guarded


def test_what_a_recipe_loaded_is_released_but_for_what_another_uses(session: Session, backend: ToyBackend) -> None:
    recipes = {recipe.name: recipe for recipe in session.bundle.manifest.recipes}
    for name in ("plain", "early-exit"):
        session.generate(PROMPT, 5, recipe=name, ignore_eos=True)
    assert len(session.shared.drafters) == 2
    session.shared.release(recipes["early-exit"], recipes["plain"])
    assert [key[0] for key in session.shared.drafters] == ["plain"]
    backend.loaded.clear()
    for name in ("plain", "early-exit"):
        session.generate(PROMPT, 5, recipe=name, ignore_eos=True)
    assert sorted(backend.loaded) == sorted(recipes["early-exit"].engine_names)


def test_one_stop_string_or_several(session: Session) -> None:
    whole = session.generate(PROMPT, 60, ignore_eos=True).text
    end = whole[20:30]
    for stop in (end, ["not in there", end]):
        got = session.generate(PROMPT, 60, stop=stop, ignore_eos=True)
        assert got.text == whole.partition(end)[0] and (got.finish_reason, got.stop_reason) == ("stop", end)


def test_a_stop_token_ends_the_text(session: Session) -> None:
    ids = session.generate(PROMPT, 20, ignore_eos=True).token_ids
    for stop in (ids[7], [ids[7]], np.array([ids[7]])):
        got = session.generate(PROMPT, 20, stop_token_ids=stop, ignore_eos=True)
        assert got.token_ids == ids[: ids.index(ids[7]) + 1]
        assert (got.finish_reason, got.stop_reason) == ("stop", ids[7])


def test_none_is_the_default_of_an_option(session: Session) -> None:
    """Clients write it for what they do not set. Without a limit an answer fills the context."""
    names = ("recipe", "acceptance", "temperature", "top_p", "top_k", "seed", "stop", "stop_token_ids", "tools")
    options: dict[str, Any] = dict.fromkeys((*names, "documents", "add_generation_prompt", "chat_template_kwargs"))
    assert session.generate(PROMPT, 20, **options).token_ids == session.generate(PROMPT, 20).token_ids
    stats = session.generate(PROMPT, None, ignore_eos=True).stats
    assert stats.new_tokens == CONTEXT - stats.prompt_tokens


def test_the_models_sampling_defaults_apply_to_what_is_not_passed(session: Session) -> None:
    greedy = session.generate(PROMPT, 40, ignore_eos=True).token_ids
    sampled = session.generate(PROMPT, 40, ignore_eos=True, seed=1, temperature=0.9, top_k=20).token_ids
    assert sampled != greedy
    model = replace(
        session.bundle.manifest.model, generation_config={"do_sample": True, "temperature": 0.9, "top_k": 20}
    )
    change_manifest(session, model=model)
    assert session.generate(PROMPT, 40, ignore_eos=True, seed=1).token_ids == sampled
    assert session.generate(PROMPT, 40, ignore_eos=True, seed=1, temperature=0).token_ids == greedy


def test_messages_are_rendered_with_the_options_of_a_chat(session: Session) -> None:
    """The prompt of the rendered text is the prompt of the request."""
    template = (
        "{{ messages[0].content }}{% if tools %} {{ tools|length }} {{ mood }} {{ add_generation_prompt }}{% endif %}"
    )
    session.text.chat = ChatTemplate({"default": template}, {})
    chat: dict[str, Any] = {
        "tools": [{"name": "f"}],
        "chat_template_kwargs": {"mood": "kind"},
        "add_generation_prompt": False,
    }
    got = session.generate([{"role": "user", "content": "fox"}], 20, ignore_eos=True, **chat)
    assert got.token_ids == session.generate("fox 1 kind False", 20, ignore_eos=True).token_ids
    got = session.generate([{"role": "user", "content": "the quick"}], 20, continue_final_message=True, ignore_eos=True)
    assert got.token_ids == session.generate("the quick", 20, ignore_eos=True).token_ids


def test_an_end_of_sequence_ends_unless_ignored(session: Session) -> None:
    """The toy never says it by itself."""
    ids = session.generate(PROMPT, 20, ignore_eos=True).token_ids
    change_manifest(session, model=replace(session.bundle.manifest.model, eos_token_ids=(ids[7],)))
    got = session.generate(PROMPT, 20)
    assert got.finish_reason == "eos" and got.token_ids == ids[: ids.index(ids[7]) + 1]
    assert session.generate(PROMPT, 20, ignore_eos=True).token_ids == ids


@pytest.mark.parametrize(
    ("prompt", "options", "error", "message"),
    [
        ("", {}, PromptError, "empty"),
        ([VOCABULARY], {}, PromptError, f"token {VOCABULARY} is not"),
        ([1] * CONTEXT, {}, PromptError, f"{CONTEXT} tokens"),
        ([{"role": "user", "content": "hello"}], {}, PromptError, "no chat template"),
        (PROMPT, {"max_new_tokens": 0}, PromptError, "max_new_tokens is 0"),
        (PROMPT, {"temperature": -1}, PromptError, "temperature -1"),
        (PROMPT, {"stop": ["a", ""]}, PromptError, "stop string is empty"),
        (PROMPT, {"max_new_tokens": 2.0}, PromptError, "max_new_tokens is 2.0"),
        (PROMPT, {"temperature": "hot"}, PromptError, "temperature 'hot' is not a number"),
        (PROMPT, {"top_k": 1.5}, PromptError, "top_k 1.5 is not an integer"),
        (PROMPT, {"seed": 1.5}, PromptError, "seed 1.5 is not an integer"),
        (PROMPT, {"stop": 5}, PromptError, "stop is 5; give a list"),
        (PROMPT, {"stop": [5]}, PromptError, "stop string 5 is not text"),
        (PROMPT, {"stop_token_ids": "a"}, PromptError, "stop token 'a' is not a token id"),
        (
            PROMPT,
            {"stop_token_ids": [VOCABULARY]},
            PromptError,
            f"stop_token_ids: {VOCABULARY} is not a token id; give 0",
        ),
        (PROMPT, {"stop_token_ids": [3, -1]}, PromptError, "stop_token_ids: -1 is not a token id; give 0 to"),
        ({3, 1, 2}, {}, PromptError, "a prompt is a set, which has no order; pass token ids as a list"),
        (PROMPT, {"tools": [{}]}, PromptError, "need messages"),
        ([{"role": "user", "content": "hello"}], {"tools": 5}, PromptError, "no chat template"),
        (b"the", {}, PromptError, "not bytes"),
        (PROMPT, {"recipe": "look-ahead"}, RecipeError, "did you mean 'lookahead'"),
        (PROMPT, {"acceptance": "telepathy"}, RecipeError, "'telepathy'"),
        (PROMPT, {"acceptance": "speculative"}, RecipeError, "needs a drafter that samples"),
        (PROMPT, {"recipe": "lookahead", "acceptance": "recursive"}, RecipeError, "needs a drafter that samples"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_loaded(
    session: Session, backend: ToyBackend, prompt: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as e:
        session.stream(prompt, **options)
    assert message in str(e.value) and "\n" not in str(e.value)
    assert not backend.loaded


def test_a_bundle_that_was_altered_is_not_run(session: Session) -> None:
    (session.bundle.path / "all.toy").write_text("toyz")
    with pytest.raises(BundleError, match=r"all\.toy was altered"):
        open_session(open_bundle(session.bundle.path))


def test_a_backend_that_this_runtime_lacks_is_named(session: Session, tmp_path: Path) -> None:
    write_bundle(tmp_path / "other.specc", backend="abacus")
    with pytest.raises(BackendError, match="'abacus'"):
        open_session(open_bundle(tmp_path / "other.specc"))


class TestNativeCode:
    @pytest.fixture
    def native(self, backend: ToyBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        """A bundle with engines by a backend of native code, and then by one without."""
        native = ToyBackend(native_code=True)
        monkeypatch.setitem(engines.BACKENDS, "native", "native")
        monkeypatch.setitem(engines.DEVICES, "native", ("cpu",))
        monkeypatch.setitem(sys.modules, f"{engines.__name__}.native", native)
        write_bundle(tmp_path / "native.specc", "native")
        return tmp_path / "native.specc"

    def test_it_runs_only_if_the_user_allows_it(self, native: Path) -> None:
        with pytest.raises(BackendError, match=r"by native, which run native code .*give --allow-native-code") as e:
            specc.load(native)
        assert "allow_native_code=True" in str(e.value) and "\n" not in str(e.value)
        assert specc.load(native, allow_native_code=True).engines.backend == "native"

    def test_the_first_backend_without_it_is_the_default(self, native: Path) -> None:
        bundle = open_bundle(native)
        toys = tuple(replace(e, backend="toy") for e in bundle.manifest.engines)
        manifest = replace(bundle.manifest, engines=bundle.manifest.engines + toys)
        for allowed, backend in ((False, "toy"), (True, "native")):
            assert engines.choose(replace(bundle, manifest=manifest, allow_native_code=allowed), CPU) == backend
        with pytest.raises(BackendError, match="give --allow-native-code"):
            engines.choose(replace(bundle, manifest=manifest), Device(backend="native"))

    @pytest.mark.parametrize("name", ["inductor", "inductor-cuda", "torch-tensorrt"])
    def test_a_loader_refuses_it_before_it_opens_anything(self, native: Path, name: str) -> None:
        bundle = open_bundle(native)
        spec = replace(bundle.engine("decode"), backend=name, file="no/such/file")
        anything: Any = None
        with pytest.raises(BackendError, match=f"by {name}, which run native code"):
            engines._backend(name).load(bundle, spec, anything, CPU, anything)
        assert engines.native_code([name, "onnx", "abacus"]) == [name]


def test_a_stream_that_another_has_overtaken_says_so(session: Session) -> None:
    first, second = session.stream("def f(", 8, ignore_eos=True), session.stream("import os", 8, ignore_eos=True)
    next(first)
    next(second)
    with pytest.raises(PromptError, match=r"model\.session"):
        list(first)
    assert "".join(second) and len(second.token_ids) == 8


def test_a_draft_that_fits_no_engine_of_its_recipe_is_refused(session: Session) -> None:
    recipes = session.bundle.manifest.recipes
    longer = [replace(r, parameters={**r.parameters, "num_speculative_tokens": 20}) for r in recipes]
    change_manifest(session, recipes=tuple(longer))
    with pytest.raises(RecipeError, match=r"21 slots.*give it shorter drafts"):
        session.generate(PROMPT, 30, recipe="jacobi")


def test_a_session_that_is_closed_says_so(session: Session) -> None:
    """And others of its model go on."""
    other = Session(session.shared)
    with session as opened:
        stream = opened.stream(PROMPT, 40, ignore_eos=True)
        next(stream)
    for use in (lambda: session.generate(PROMPT, 4), lambda: list(stream)):
        with pytest.raises(SpeccError, match=r"this session is closed; open another with model\.session"):
            use()
    session.close()
    assert other.generate(PROMPT, 4).token_ids


def test_the_caches_of_a_closed_session_serve_the_next_one(session: Session) -> None:
    second = Session(session.shared)
    lanes = session.lane, second.lane
    assert lanes[0] is not lanes[1]
    second.close()
    assert Session(session.shared).lane is lanes[1]


def test_a_session_that_nobody_refers_to_gives_its_caches_back(session: Session) -> None:
    lane = Session(session.shared).lane
    gc.collect()
    assert Session(session.shared).lane is lane


def test_requests_of_two_sessions_do_not_disturb_each_other(session: Session) -> None:
    """Streams that take turns, of every recipe, get the tokens of each alone."""
    prompts = [PROMPT, "the lazy dog"]
    for recipe in session.bundle.manifest.recipes:
        options: dict[str, Any] = {"recipe": recipe.name, "ignore_eos": True, "temperature": 0.8, "seed": 3}
        expected = [session.generate(prompt, 30, **options).token_ids for prompt in prompts]
        sessions = [session, Session(session.shared)]
        streams = [s.stream(p, 30, **options) for s, p in zip(sessions, prompts, strict=True)]
        while not all(stream.ended for stream in streams):
            for stream in streams:
                next(stream, None)
        assert [stream.token_ids for stream in streams] == expected


def test_sessions_of_a_backend_with_one_cache_take_turns_on_it(session: Session, backend: ToyBackend) -> None:
    backend.lanes = False
    expected = [session.generate(prompt, 30, ignore_eos=True).token_ids for prompt in (PROMPT, "the lazy dog")]
    other = Session(session.shared)
    assert other.lane is session.lane
    streams = [session.stream(PROMPT, 30, ignore_eos=True), other.stream("the lazy dog", 30, ignore_eos=True)]
    while not all(stream.ended for stream in streams):
        for stream in streams:
            next(stream, None)
    assert [stream.token_ids for stream in streams] == expected


def test_threads_that_share_a_session_get_the_answers_that_they_would_get_alone(session: Session) -> None:
    prompts = [f"{PROMPT} {i}" for i in range(4)]
    recipes = [recipe.name for recipe in session.bundle.manifest.recipes]
    expected = [session.generate(prompt, 20, ignore_eos=True).token_ids for prompt in prompts]

    def work(number: int) -> bool:
        prompt = number % len(prompts)
        answer = session.generate(prompts[prompt], 20, recipe=recipes[number % len(recipes)], ignore_eos=True)
        return answer.token_ids == expected[prompt]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(120)))


def test_threads_that_stream_get_right_tokens_or_one_clear_error(session: Session) -> None:
    prompts = [f"{PROMPT} {i}" for i in range(4)]
    expected = [session.generate(prompt, 20, ignore_eos=True).token_ids for prompt in prompts]

    def work(number: int) -> str:
        prompt = number % len(prompts)
        stream = session.stream(prompts[prompt], 20, ignore_eos=True)
        try:
            for _ in stream:
                time.sleep(0)  # Another thread may run.
        except PromptError as e:
            return "interrupted" if "a later request took this session's cache" in str(e) else str(e)
        return "right" if stream.token_ids == expected[prompt] else "wrong"

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(work, range(120))) <= {"right", "interrupted"}


def test_a_bundle_that_was_overwritten_is_an_error_when_the_next_engine_is_loaded(session: Session) -> None:
    path = session.bundle.path
    session.generate(PROMPT, 4, recipe="plain")
    shutil.rmtree(path)
    write_bundle(path)
    session.generate(PROMPT, 4, recipe="plain")
    (path / "all.toy").write_bytes((path / "all.toy").read_bytes() + b"other")
    others = [r.name for r in session.bundle.manifest.recipes if r.name != "plain"]
    with pytest.raises(BundleError, match="was replaced while this session was open; load it again"):
        session.generate(PROMPT, 4, recipe=others[0])


def test_a_rule_that_obeys_no_processor_is_refused_with_one(session: Session) -> None:
    with pytest.raises(PromptError, match="acceptance confidence accepts tokens that a grammar or a penalty forbids"):
        session.generate("a", 4, recipe="layer-skip", acceptance="confidence", repetition_penalty=1.3)
    session.generate("a", 4, recipe="layer-skip", acceptance="confidence", logprobs=1)
