"""Answers of the model itself to many prompts at once."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel, StaticCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "specc-answers"  # transformers' registry of attention functions has ours under this name
HIDDEN = -1e9  # a score that softmax turns into zero
TOP = 50  # tokens that a sampled answer chooses from
FEW = 0.15  # of the lanes; when so few still write, their answers end, too


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend from one slot of many lanes without a copy of the keys for each head. transformers calls this.

    Where lanes have several slots, torch's own attention runs.

    Args:
        module: the layer's attention.
        query: [lanes, heads, slots, size].
        key: [lanes, key heads, rows, size].
        value: [lanes, key heads, rows, size].
        attention_mask: [lanes, 1, slots, rows] bool, true where a slot sees a row.
        scaling: of the products of queries and keys; 1 / sqrt(size) by default.
        others: arguments that some models add.

    Returns:
        The output, [lanes, slots, heads, size], and no weights.
    """
    lanes, heads, slots, size = query.shape
    scale, softcap, sinks = size**-0.5 if scaling is None else scaling, others.get("softcap"), others.get("s_aux")
    if softcap or sinks is not None:
        return _written_out(query, key, value, attention_mask, scale, softcap, sinks), None
    if slots > 1 or attention_mask is None:
        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scale, **others)
        return out, None
    groups, rows = key.shape[1:3]
    scaled = (query * scale).reshape(lanes * groups, heads // groups, size)
    scores = torch.bmm(key.reshape(-1, rows, size), scaled.transpose(1, 2)).transpose(1, 2)
    scores = scores.reshape(lanes, heads, rows).masked_fill_(~attention_mask[:, 0], HIDDEN)
    weights = scores.softmax(-1).view(lanes * groups, heads // groups, rows)
    return torch.bmm(weights, value.reshape(-1, rows, value.shape[-1])).view(lanes, 1, heads, -1), None


def _written_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor | None,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attend with what torch's operator lacks: a cap of the scores, or sinks that take a share of the softmax."""
    repeats, rows = query.shape[1] // key.shape[1], key.shape[2]
    scores = (query @ key.repeat_interleave(repeats, 1).transpose(2, 3)).float() * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if visible is None:
        visible = torch.ones(query.shape[2], rows, dtype=torch.bool).tril(rows - query.shape[2])
    scores = scores.masked_fill(~visible, HIDDEN)
    if sinks is not None:
        scores = torch.cat([scores, sinks.view(1, -1, 1, 1).expand(*scores.shape[:3], 1)], -1)
    weights = scores.softmax(-1)[..., :rows].to(value.dtype)
    return (weights @ value.repeat_interleave(repeats, 1)).transpose(1, 2)


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


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
) -> list[Answer]:
    """Let a model answer prompts in one batch.

    Args:
        model: the model, in the type in which it shall compute.
        prompts: the tokens of each prompt. Prompts of similar length waste least.
        count: the largest number of tokens of an answer.
        ends: the tokens that end an answer. They belong to it.
        temperature: of every second prompt. The others are answered greedily, and all of them if it is 0.
        seed: of the samples.
    """
    model.set_attn_implementation(ATTENTION)
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer transformers call the cache otherwise
            logits = model(
                input_ids=tokens[:, start:end],
                attention_mask=mask[:, :end],
                position_ids=positions[:, start:end],
                cache_position=columns[start:end],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=torch.tensor([end - start - 1]),  # a slice would make torch copy the table for each lane
            ).logits[:, -1]
        tokens[:, end] = choose(logits)
        ended = writing & torch.isin(tokens[:, end], stops)
        start, end = end, end + 1
        last[ended] = end
        writing &= ~ended
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
