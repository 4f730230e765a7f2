"""The original model in transformers: its greedy tokens, its gaps and its perplexity."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from graphs import model as tiny_model
from tiny import save_model
from transformers.utils import logging as transformers_logging

from specc.exactness import reference as module
from specc.exactness.golden import Case
from specc.exactness.perplexity import Sample
from specc.exactness.reference import perplexities, perplexity, recompute, reference
from specc.huggingface import describe, load_model
from specc.runtime.errors import CaptureError

pytestmark = pytest.mark.torch

PROMPTS = [("a", [3, 1, 4, 1, 5]), ("b", [9, 2, 6])]


def logits(ids: list[int]) -> torch.Tensor:
    """Return the logits after all of these tokens, by one call without a cache."""
    with torch.no_grad():
        whole: torch.Tensor = tiny_model("llama")(input_ids=torch.tensor([ids])).logits[0]
    return whole


def test_tokens_and_gaps_are_those_of_one_call_over_the_whole_text() -> None:
    calls: list[None] = []
    cases = reference(tiny_model("llama"), PROMPTS, 6, (), lambda: calls.append(None))
    assert [(c.prompt, c.prompt_ids, len(c.token_ids)) for c in cases] == [("a", PROMPTS[0][1], 6), ("b", [9, 2, 6], 6)]
    for case in cases:
        rows = logits([*case.prompt_ids, *case.token_ids])[len(case.prompt_ids) - 1 : -1]
        best = rows.topk(2)
        assert case.token_ids == best.indices[:, 0].tolist()
        assert case.gaps == pytest.approx((best.values[:, 0] - best.values[:, 1]).tolist(), abs=1e-4)
    assert len(calls) == 2


def test_the_librarys_advice_to_programmers_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """Version 5.24 of transformers says once a process that names of its own have changed."""
    warn_once: Any = transformers_logging.warning_once
    warn_once.cache_clear()
    reference(tiny_model("llama"), PROMPTS[:1], 2, ())
    assert capfd.readouterr().err == ""


def test_a_prompt_has_the_logits_of_its_last_token_alone() -> None:
    """All of them would fill the memory of a model with a large vocabulary."""
    model = tiny_model("llama")
    shapes: list[tuple[int, ...]] = []
    hook = model.lm_head.register_forward_hook(lambda module, arguments, logits: shapes.append(tuple(logits.shape[:2])))
    try:
        reference(model, PROMPTS, 2, ())
    finally:
        hook.remove()
    assert shapes == [(1, 1)] * 4


def test_a_model_that_always_gives_all_logits_decodes_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    expected, forward = reference(model, PROMPTS, 3, ()), model.forward

    def without_the_option(input_ids: Any, past_key_values: Any, use_cache: bool) -> Any:
        return forward(input_ids=input_ids, past_key_values=past_key_values, use_cache=use_cache)

    monkeypatch.setattr(model, "forward", without_the_option)
    assert [case.token_ids for case in reference(model, PROMPTS, 3, ())] == [case.token_ids for case in expected]


def test_an_end_token_is_the_last_of_a_case() -> None:
    (whole,) = reference(tiny_model("llama"), PROMPTS[:1], 6, ())
    end = whole.token_ids[2]
    (case,) = reference(tiny_model("llama"), PROMPTS[:1], 6, (end,))
    assert case.token_ids == whole.token_ids[: whole.token_ids.index(end) + 1]


def test_perplexity_is_the_exponential_of_the_mean_surprise() -> None:
    sample = Sample("t", [[3, 1, 4, 1], [5, 9]])
    surprises = []
    for run in sample.runs:
        chances = logits(list(run)).log_softmax(-1)
        surprises += [-float(chances[i, token]) for i, token in enumerate(run[1:])]
    expected = math.exp(sum(surprises) / len(surprises))
    value = perplexity(tiny_model("llama"), sample)
    assert value == pytest.approx(expected, rel=1e-5)
    (row,) = perplexities(tiny_model("llama"), [sample])
    assert row == {"text": "t", "sha256": sample.sha256, "tokens": 4, "original": round(value, 4)}


@pytest.mark.model
class TestRecompute:
    def test_each_case_is_decoded_for_as_many_tokens_as_it_has(self, model: Path) -> None:
        target = describe(load_model(str(model)), str(model))
        cases = [Case("a", [3, 1, 4], [0, 0, 0], [9.0] * 3), Case("b", [5], [0], [9.0])]
        anew, value = recompute(str(model), target, cases, Sample("t", []))
        assert [(c.prompt, c.prompt_ids, len(c.token_ids)) for c in anew] == [("a", [3, 1, 4], 3), ("b", [5], 1)]
        assert anew[:1] == reference(load_model(str(model)), [("a", [3, 1, 4])], 3, target.eos_token_ids)
        assert value is None
        sample = Sample("t", [[1, 2, 3]])
        assert recompute(str(model), target, [], sample) == ([], perplexity(load_model(str(model)), sample))

    def test_the_revision_is_that_of_the_bundle_where_the_source_is_too(
        self, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        revisions: list[Any] = []

        def load(source: str, revision: str | None = None) -> Any:
            revisions.append(revision)
            return load_model(str(model))

        monkeypatch.setattr(module, "load_model", load)
        local = describe(load_model(str(model)), "owner/name")
        for source, revision in (("owner/name", "abc"), ("owner/name", "local"), ("other/name", "abc")):
            recompute(source, replace(local, revision=revision), [], Sample("t", []))
        assert revisions == ["abc", None, None]

    def test_a_model_of_another_vocabulary_is_refused(self, model: Path, tmp_path: Path) -> None:
        target = describe(load_model(str(model)), "owner/name")
        other = save_model(tmp_path / "other", vocab_size=600)
        with pytest.raises(CaptureError, match=r"600 and the bundle one of 512; name the model .*, owner/name"):
            recompute(str(other), target, [], Sample("t", []))
