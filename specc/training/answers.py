"""Answers of the model itself to many prompts at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, StaticCache

TOP = 50  # tokens that a sampled answer chooses from
FEW = 0.15  # of the lanes; when so few still write, their answers end, too
TALK = 16  # steps between two calls of `advance`


@dataclass(frozen=True)
class Answer:
    """A prompt with the model's answer.

    Attributes:
        tokens: the prompt and the answer.
        prompt: the number of tokens of the prompt.
    """

    tokens: list[int]
    prompt: int


@torch.inference_mode()
def answer(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    count: int,
    ends: Collection[int],
    temperature: float,
    seed: int,
    advance: Callable[[int], None] = lambda tokens: None,
) -> list[Answer]:
    """Let a model answer prompts in one batch.

    Args:
        model: the model, in the type in which it shall compute.
        prompts: the tokens of each prompt. Prompts of similar length waste least.
        count: the largest number of tokens of an answer.
        ends: the tokens that end an answer. They belong to it.
        temperature: of every second prompt. The others are answered greedily, and all of them if it is 0.
        seed: of the samples.
        advance: called with the number of new tokens every few steps.
    """
    lanes, longest = len(prompts), max(map(len, prompts))
    padding = torch.tensor([longest - len(prompt) for prompt in prompts])
    tokens = torch.zeros(lanes, longest + count, dtype=torch.long)
    for lane, prompt in enumerate(prompts):
        tokens[lane, longest - len(prompt) : longest] = torch.tensor(prompt)
    columns = torch.arange(longest + count)
    mask = (columns >= padding[:, None]).long()
    positions = (columns - padding[:, None]).clamp(min=0)
    choose = _Chooser(lanes, temperature, seed)
    cache: Any = StaticCache(config=model.config, max_cache_len=longest + count)
    stops = torch.tensor(sorted(ends), dtype=torch.long)
    last = torch.full((lanes,), longest + count)
    writing = torch.ones(lanes, dtype=torch.bool)
    start, end = 0, longest
    while end < longest + count:
        logits = model(
            input_ids=tokens[:, start:end],
            attention_mask=mask[:, :end],
            position_ids=positions[:, start:end],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        tokens[:, end] = choose(logits)
        ended = writing & torch.isin(tokens[:, end], stops)
        start, end = end, end + 1
        last[ended] = end
        writing &= ~ended
        if (end - longest) % TALK == 0:
            advance(TALK * int(writing.sum()))
        if writing.sum() <= FEW * lanes:
            break
    last = last.clamp(max=end)
    return [
        Answer(tokens[lane, padding[lane] : last[lane]].tolist(), len(prompt)) for lane, prompt in enumerate(prompts)
    ]


class _Chooser:
    """A choice of the next token of each lane: the likeliest, or a sample in every second lane."""

    def __init__(self, lanes: int, temperature: float, seed: int) -> None:
        self.sampled = slice(1, lanes, 2) if temperature else slice(0, 0)
        self.temperature = temperature or 1.0
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, logits: Tensor) -> Tensor:
        choice = logits.argmax(-1)
        values, tokens = logits[self.sampled].float().topk(min(TOP, logits.shape[-1]))
        if len(values):
            probs = (values / self.temperature).softmax(-1)
            ranks = torch.multinomial(probs, 1, generator=self.generator)
            choice[self.sampled] = tokens.gather(1, ranks)[:, 0]
        return choice
