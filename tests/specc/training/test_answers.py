"""Answers in one batch are those that transformers gives one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import tiny
from torch import nn
from transformers import AttentionInterface

from specc.huggingface import load_model
from specc.passes import operators  # noqa: F401  registers specc::attention
from specc.training.answers import ATTENTION, Answer, answer

pytestmark = pytest.mark.torch
PROMPTS = [[5, 9, 3], [7, 1, 8, 2, 6, 4, 11], [3, 3], [12, 5, 9, 13, 2]]


def answers(model: Path, ends: tuple[int, ...] = (), temperature: float = 0.0, seed: int = 0) -> list[Answer]:
    return answer(load_model(str(model)), PROMPTS, count=9, ends=ends, temperature=temperature, seed=seed)


def test_padding_changes_no_answer(model: Path) -> None:
    alone = load_model(str(model))
    for prompt, result in zip(PROMPTS, answers(model), strict=True):
        ids = torch.tensor([prompt])
        truth = alone.generate(  # type: ignore[operator]  # its stubs know no module
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, do_sample=False, eos_token_id=None
        )
        assert result.tokens == truth[0].tolist() and result.prompt == len(prompt)


def test_every_second_answer_is_sampled(model: Path) -> None:
    greedy, first, other = answers(model), answers(model, temperature=3.0), answers(model, temperature=3.0, seed=1)
    assert first == answers(model, temperature=3.0)
    assert [first[i] == greedy[i] for i in range(4)] == [True, False, True, False]
    assert first[1] != other[1]


def test_an_answer_ends_with_the_token_that_ends_it(model: Path) -> None:
    free = answers(model)
    end = free[0].tokens[free[0].prompt + 2]
    for whole, cut in zip(free, answers(model, ends=(end,)), strict=True):
        new = whole.tokens[whole.prompt :]
        length = new.index(end) + 1 if end in new else len(new)
        assert cut.tokens == whole.tokens[: whole.prompt + length]


@pytest.mark.parametrize(("softcap", "has_sinks"), [(0.0, False), (2.0, False), (0.0, True), (2.0, True)])
def test_caps_and_sinks_are_those_of_the_operator(softcap: float, has_sinks: bool) -> None:
    query, key, value = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 6, 8), torch.randn(1, 2, 6, 8)
    sinks = torch.randn(4) if has_sinks else None
    truth = torch.ops.specc.attention(query, key, value, sinks, 0.5, 0, softcap, 0).transpose(1, 2)
    attend = AttentionInterface()[ATTENTION]
    module = nn.Module()
    module.num_key_value_groups = 2  # type: ignore[assignment]  # torch's attention in transformers reads it
    visible = torch.ones(6, 6, dtype=torch.bool).tril()[None, None]
    for mask, slots in ((visible, slice(0, 6)), (None, slice(0, 6)), (visible[:, :, 5:], slice(5, 6))):
        out, _ = attend(module, query[:, :, slots], key, value, mask, scaling=0.5, softcap=softcap or None, s_aux=sinks)
        torch.testing.assert_close(out, truth[:, slots])


@pytest.mark.parametrize("family", ["gemma2", "mistral"])
def test_layers_with_caps_and_windows_answer_as_they_do_alone(family: str) -> None:
    model = tiny(family)
    prompts = [[5, 9, 3], [7, 1, 8, 2]]
    together = answer(model, prompts, count=12, ends=(), temperature=0.0, seed=0)
    for prompt, result in zip(prompts, together, strict=True):
        (alone,) = answer(model, [prompt], count=12, ends=(), temperature=0.0, seed=0)
        assert alone == result
