"""Answers in one batch are those that transformers gives one by one."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch
from families import tiny

from specc.huggingface import load_model
from specc.training import lanes
from specc.training.answers import Answer, answer, largest
from specc.training.lanes import FEWEST, GPU_TIMES, LEAST, Lanes, lanes_that_fit
from specc.training.states import tapped

pytestmark = pytest.mark.torch
PROMPTS = [[5, 9, 3], [7, 1, 8, 2, 6, 4, 11], [3, 3], [12, 5, 9, 13, 2]]


def answers(model: Path, ends: tuple[int, ...] = (), temperature: float = 0.0, seed: int = 0) -> list[Answer]:
    temperatures = [0.0, temperature] * 2
    return answer(load_model(str(model)), PROMPTS, count=9, ends=ends, temperatures=temperatures, seed=seed)


def tokens(results: list[Answer]) -> list[list[int]]:
    return [result.tokens for result in results]


def test_padding_changes_no_answer(model: Path) -> None:
    alone = load_model(str(model))
    for prompt, result in zip(PROMPTS, answers(model), strict=True):
        ids = torch.tensor([prompt])
        truth = alone.generate(  # type: ignore[operator]  # its stubs know no module
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, do_sample=False, eos_token_id=None
        )
        assert result.tokens == truth[0].tolist() and result.prompt == len(prompt)


def test_an_answer_is_sampled_at_its_temperature(model: Path) -> None:
    greedy, first, other = (
        tokens(answers(model, temperature=temperature, seed=seed))
        for temperature, seed in ((0.0, 0), (3.0, 0), (3.0, 1))
    )
    assert first == tokens(answers(model, temperature=3.0))
    assert [first[i] == greedy[i] for i in range(4)] == [True, False, True, False]
    assert first[1] != other[1]


def test_an_answer_ends_with_the_token_that_ends_it(model: Path) -> None:
    free = answers(model)
    end = free[0].tokens[free[0].prompt + 2]
    for whole, cut in zip(free, answers(model, ends=(end,)), strict=True):
        new = whole.tokens[whole.prompt :]
        length = new.index(end) + 1 if end in new else len(new)
        assert cut.tokens == whole.tokens[: whole.prompt + length]


def test_lanes_that_have_ended_are_let_go_and_change_nothing(model: Path) -> None:
    free = answers(model)
    end = free[0].tokens[free[0].prompt]
    with mock.patch.object(Lanes, "keep", autospec=True, side_effect=Lanes.keep) as let_go:
        cut = answers(model, ends=(end,))
    assert let_go.called
    for whole, part in zip(free, cut, strict=True):
        assert part.tokens == whole.tokens[: len(part.tokens)]


def test_the_states_are_those_of_the_text_read_at_once(model: Path) -> None:
    target = load_model(str(model))
    end = answers(model)[1].tokens[-4]
    results = answer(target, PROMPTS, count=9, ends=(end,), temperatures=[0.0] * 4, seed=0, taps=(0, -1))
    for result in results:
        with tapped(target, (0, -1)) as values:
            target(torch.tensor([result.tokens]))
        truth = torch.cat([values[0], values[-1]], -1)[0]
        torch.testing.assert_close(result.states.float(), truth, atol=2e-2, rtol=2e-2)
        torch.testing.assert_close(result.final.float(), values["final"][0], atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(("size", "count"), [(40, 5), (64, 50), (1000, 50), (200, 1)])
def test_the_largest_logits_are_those_that_topk_finds(size: int, count: int) -> None:
    logits = torch.randn(7, size, generator=torch.Generator().manual_seed(size))
    tokens, values = largest(logits, count)
    truth = logits.topk(min(count, size))
    assert torch.equal(values, truth.values) and torch.equal(tokens, truth.indices)


@pytest.mark.parametrize("family", ["gemma2", "mistral"])
def test_layers_with_caps_and_windows_answer_as_they_do_alone(family: str) -> None:
    model = tiny(family)
    prompts = [[5, 9, 3], [7, 1, 8, 2]]
    together = answer(model, prompts, count=12, ends=(), temperatures=[0.0, 0.0], seed=0)
    for prompt, result in zip(prompts, together, strict=True):
        (alone,) = answer(model, [prompt], count=12, ends=(), temperatures=[0.0], seed=0)
        assert alone.tokens == result.tokens


def test_as_many_texts_are_written_at_once_as_their_rows_fit_in_the_memory_allowed(model: Path) -> None:
    target = load_model(str(model))
    row = 2 * 3 * 2 * 16 * 4  # keys and values, layers, heads, numbers, bytes
    states = 3 * 64 * 2
    assert lanes_that_fit(target, 480, 2, 192) == 192
    for columns, taps in ((10_000, 0), (10_000, 2)):
        count = lanes_that_fit(target, columns, taps, 192)
        size = columns * (row + (states if taps else 0))
        assert 16 < count < 192 and count * size <= LEAST < (count + 1) * size
    assert lanes_that_fit(target, 10**7, 2, 192) == FEWEST


@pytest.mark.parametrize(("free", "times"), [(1 << 40, GPU_TIMES), (1 << 22, 0)])
def test_a_gpu_writes_more_texts_at_once_if_its_free_memory_has_room(
    model: Path, free: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "on_gpu", lambda: True)
    monkeypatch.setattr(lanes, "free_memory", lambda: free)
    assert lanes_that_fit(load_model(str(model)), 480, 2, 192) == max(FEWEST, times * 192)
