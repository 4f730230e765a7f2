"""Answers of the model itself to many prompts at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from specc.training.device import generator
from specc.training.lanes import FEWEST, Lanes

TOP = 50  # tokens that a sampled answer chooses from
BLOCK = 64  # logits whose largest is looked for first
FEW = 0.08  # of the lanes; when so few still write, their answers end, too
ENDED = 0.2  # of the lanes that are computed; when so many have ended, they are let go


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A prompt with the model's answer.

    Attributes:
        tokens: the prompt and the answer, N tokens.
        prompt: the number of tokens of the prompt.
        states: [N, T * D] bf16: the states after the taps, side by side.
        final: [N, D] bf16: what the model's last product reads.
    """

    tokens: list[int]
    prompt: int
    states: Tensor
    final: Tensor


@torch.inference_mode()
def answer(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    count: int,
    ends: Collection[int],
    temperatures: Sequence[float],
    seed: int,
    taps: Sequence[int] = (),
) -> list[Answer]:
    """Let a model answer prompts in one batch.

    Args:
        model: the model, in the type in which it shall compute.
        prompts: the tokens of each prompt. Prompts of similar length waste least.
        count: the largest number of tokens of an answer.
        ends: the tokens that end an answer. They belong to it.
        temperatures: of each answer. 0 is greedy.
        seed: of the samples.
        taps: the layers after which states are kept. Without taps, answers have states of 0 rows.
    """
    lanes = Lanes(model, prompts, count, taps)
    choose = _Chooser(temperatures, seed)
    stops = torch.tensor(sorted(ends), dtype=torch.long)
    last = torch.full((len(prompts),), lanes.columns)
    writing = torch.ones(len(prompts), dtype=torch.bool)
    logits = lanes.read_prompts()
    while True:
        tokens = choose(logits, lanes.lanes)
        lanes.write(tokens)
        ended = writing & torch.isin(tokens, stops)
        last[lanes.lanes[ended]] = lanes.end
        writing &= ~ended
        done = lanes.end == lanes.columns or writing.sum() <= FEW * len(prompts)
        if not done or taps:  # the last tokens have states, too
            logits = lanes.read_column()
        if done:
            break
        if writing.sum() <= (1 - ENDED) * len(writing):
            next_lanes = _round_number_of(writing)
            lanes.keep(next_lanes)
            logits, writing = logits[next_lanes], writing[next_lanes]
    last = last.clamp(max=lanes.end)
    return [_answer_of(lanes, lane, int(end), len(prompts[lane])) for lane, end in enumerate(last)]


def _round_number_of(writing: Tensor) -> Tensor:
    """Return which lanes go on, [L] bool: all that write, and some that ended, to make a multiple of FEWEST."""
    ended = (~writing).cumsum(0)
    return writing | (ended <= -int(writing.sum()) % FEWEST)


def _answer_of(lanes: Lanes, lane: int, end: int, prompt: int) -> Answer:
    states, final = lanes.states(lane, end)
    return Answer(tokens=lanes.text(lane, end), prompt=prompt, states=states, final=final)


class _Chooser:
    """A choice of the next token of each lane: the likeliest, or a sample of the TOP likeliest."""

    def __init__(self, temperatures: Sequence[float], seed: int) -> None:
        self.temperatures = torch.tensor(temperatures)
        self.generator = generator(seed)

    def __call__(self, logits: Tensor, lanes: Tensor) -> Tensor:
        """Choose tokens.

        Args:
            logits: [L, V].
            lanes: [L], the number of each lane.

        Returns:
            The tokens, [L].
        """
        temperatures = self.temperatures[lanes]
        sampled = temperatures > 0
        tokens, values = largest(logits, TOP if sampled.any() else 1)
        choice = tokens[:, 0].clone()
        if sampled.any():
            probs = (values[sampled] / temperatures[sampled, None]).softmax(-1)
            ranks = torch.multinomial(probs, 1, generator=self.generator)
            choice[sampled] = tokens[sampled].gather(1, ranks)[:, 0]
        return choice


def largest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the tokens of the largest logits, [L, count], largest first, and those logits in fp32.

    The `count` largest of all lie in the `count` blocks whose largest are largest. torch finds those of a block fast,
    and its search in whole rows is slow.
    """
    size = logits.shape[1]
    if size % BLOCK:
        logits = functional.pad(logits, (0, -size % BLOCK), value=-torch.inf)
    blocks = torch.unflatten(logits, 1, (-1, BLOCK))
    indices = blocks.amax(-1).topk(min(count, blocks.shape[1]), sorted=False).indices
    candidates = blocks.gather(1, indices[..., None].expand(-1, -1, BLOCK)).flatten(1)
    tokens = (indices[..., None] * BLOCK + torch.arange(BLOCK)).flatten(1)
    values, places = candidates.float().topk(min(count, size))
    return tokens.gather(1, places), values
