"""Distil a draft model: DistillSpec (Zhou et al. 2023, arXiv:2310.08461).

A share of the text is written by the draft itself, as it is at that time, so that it learns where it will stand. The
rest are answers of the model. On both, the draft's probabilities are drawn to the model's by a divergence.

It departs from the paper in one point: tables and the last norm stay as they are, since a draft that was cut from the
model has the model's own.

A draft model may learn at several exits at once. `specc.training.draft_kinds` says which ones and why.

Online Speculative Decoding (Liu et al. 2023, arXiv:2310.07177) learns from what was served, and from those tokens alone
that the model corrected. `online` does so. It departs from that paper in three points: the corrected tokens are found
anew, as those that are not the draft's likeliest ones; the model's probabilities are computed anew, in the place of
stored ones; and norms stay as they are too, since a bundle's engines hold small tensors themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from specc.training import processes
from specc.training.answers import answer
from specc.training.batches import padded
from specc.training.checkpoint import Progress
from specc.training.divergences import Divergence, acceptance_rates
from specc.training.exits import exit_logits
from specc.training.finite import check_logits
from specc.training.prompts import Prompt
from specc.training.states import layers_of
from specc.training.text_trainer import TextTrainer
from specc.training.trainer import TrainerOptions

T = TypeVar("T")
ROUND = 48  # prompts that are answered together


@dataclass(frozen=True, kw_only=True)
class Text:
    """A prompt with an answer.

    Attributes:
        tokens: [n] int64.
        prompt: the number of tokens of the prompt.
    """

    tokens: Tensor
    prompt: int

    def __len__(self) -> int:
        return len(self.tokens)


def write(
    model: PreTrainedModel, prompts: Sequence[Prompt], tokens: int, ends: Collection[int], temperature: float, seed: int
) -> list[Text]:
    """Let a model answer prompts. Several processes share them, and each returns the answers of all.

    Prompts are answered in the same groups, whatever the number of processes is. So it does not change the answers.

    Args:
        model: who answers.
        prompts: the prompts.
        tokens: of an answer at most.
        ends: the tokens that end one.
        temperature: of the samples; 0 is greedy.
        seed: of the samples.
    """
    rounds = []
    for start in processes.share(range(0, len(prompts), ROUND)):
        part = [prompt.tokens for prompt in prompts[start : start + ROUND]]
        answers = answer(
            model, part, count=tokens, ends=ends, temperatures=[temperature] * len(part), seed=seed + start
        )
        rounds.append([(one.tokens, one.prompt) for one in answers])
    texts = itertools.chain.from_iterable(processes.gather(rounds))
    return [Text(tokens=torch.tensor(whole), prompt=prompt) for whole, prompt in texts if len(whole) > prompt]


class Distiller(TextTrainer[Text]):
    """A training of a draft model.

    Args:
        draft: the draft model.
        model: the model that verifies.
        divergence: the loss.
        own: the share of text that the draft writes itself, from 0 to 1.
        options: of the loop.
        checkpoint: the file of the state.
        settings: what a training that resumes must have in common with this one.
        online: learn from tokens alone that the draft did not foresee, and change matrices alone.
        exits: the number of layers before each exit. The loss is the mean of theirs. None are all layers, once.
    """

    def __init__(
        self,
        draft: PreTrainedModel,
        model: PreTrainedModel,
        divergence: Divergence,
        own: float,
        options: TrainerOptions,
        checkpoint: Path,
        settings: dict[str, Any],
        online: bool = False,
        exits: Sequence[int] = (),
    ) -> None:
        self.draft, self.model, self.divergence, self.own, self.online = draft, model, divergence, own, online
        layers = layers_of(draft)
        self.exits = tuple(exits) or (len(layers),)
        draft.requires_grad_(False)
        for parameter in layers.parameters():
            parameter.requires_grad_(parameter.ndim > 1 or not online)
        super().__init__(layers, options, checkpoint, settings)
        self.answers: Sequence[Text] = ()
        self.prompts: Sequence[Prompt] = ()
        self.tokens, self.ends = 0, frozenset[int]()

    def run(
        self,
        answers: Sequence[Text],
        prompts: Sequence[Prompt],
        tokens: int,
        ends: Collection[int],
        show: Callable[[float, float], None] = lambda part, loss: None,
    ) -> Progress:
        """Train until the time or the updates are over.

        Args:
            answers: those of the model.
            prompts: what the draft answers.
            tokens: of an answer at most.
            ends: the tokens that end an answer.
            show: called after each update with the part of the training that is done, and the recent mean loss.

        Raises:
            HeadError: see `train`.
        """
        self.answers, self.prompts, self.tokens, self.ends = answers, prompts, tokens, frozenset(ends)
        return self.train(show)

    def mode(self, is_training: bool) -> None:
        """See `TextTrainer`."""
        self.draft.train(is_training)

    def texts(self, number: int) -> list[Text]:
        """Return the text of a round: answers of the model, and what the draft writes now."""
        count = round(ROUND * self.own)
        texts = list(itertools.islice(_from(self.answers, number * (ROUND - count)), ROUND - count))
        if count:
            part = list(itertools.islice(_from(self.prompts, number * count), count))
            seed = (self.options.seed + 1) * 1009 + number * ROUND
            texts += write(self.draft, part, self.tokens, self.ends, temperature=1.0, seed=seed)
        return texts

    def loss(self, group: Sequence[Text]) -> Tensor:
        """Return the mean loss of the exits, each in the rows that it learns from."""
        by_exit, model_logits = logits_by_exit(self.draft, self.model, group, self.exits)
        losses = []
        for logits in by_exit:
            learned: Any = slice(None)
            if self.online:
                corrected = logits.argmax(-1) != torch.cat([text.tokens[text.prompt :] for text in group])
                learned = corrected if corrected.any() else learned
            losses.append(self.divergence(logits[learned], model_logits[learned]))
        return torch.stack(losses).mean()


def both_logits(draft: PreTrainedModel, model: PreTrainedModel, group: Sequence[Text]) -> tuple[Tensor, Tensor]:
    """Return the logits of a draft and of its model in all rows that foretell tokens of answers, [M, V] each."""
    by_exit, model_logits = logits_by_exit(draft, model, group, [len(layers_of(draft))])
    return by_exit[0], model_logits


def logits_by_exit(
    draft: PreTrainedModel, model: PreTrainedModel, group: Sequence[Text], exits: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return the logits of a draft at each exit, [E, M, V], and those of its model, [M, V].

    The rows are all that foretell tokens of answers.
    """
    tokens = padded([text.tokens for text in group])
    columns = torch.arange(tokens.shape[1] - 1)
    rows = torch.stack([(columns >= text.prompt - 1) & (columns < len(text) - 1) for text in group])
    for each in (draft, model):
        each.set_attn_implementation("sdpa")
    logits = exit_logits(draft, tokens[:, :-1], rows, exits)
    with torch.no_grad():
        model_logits = model(input_ids=tokens[:, :-1], use_cache=False).logits[rows]
    return logits.float(), model_logits.float()


def alphas(draft: PreTrainedModel, model: PreTrainedModel, texts: Sequence[Text]) -> list[float]:
    """Return for each text how often speculative sampling accepts a token of the draft, in the mean over its answer."""
    means: list[float] = exit_alphas(draft, model, texts, [len(layers_of(draft))])[0].tolist()
    return means


@torch.no_grad()
def exit_alphas(
    draft: PreTrainedModel, model: PreTrainedModel, texts: Sequence[Text], exits: Sequence[int]
) -> np.ndarray:
    """Return how often speculative sampling accepts a token of each exit, in the mean over the answer, [E, texts]."""
    draft.train(False)
    columns = []
    for text in texts:
        by_exit, model_logits = logits_by_exit(draft, model, [text], exits)
        check_logits(by_exit)
        columns.append([float(acceptance_rates(logits, model_logits).mean()) for logits in by_exit])
    return np.array(columns).T


@torch.no_grad()
def ranks(
    draft: PreTrainedModel, model: PreTrainedModel, texts: Sequence[Text], depths: int, exit_after: int | None = None
) -> list[np.ndarray]:
    """Return the rank of the text's token among the draft's choices, [depths, R] for each text.

    Column r is the draft whose root is the token before token r + 1 of the answer. The draft reads the text itself, so
    its rank at a depth is that of the first depth, as many rows later.

    Args:
        draft: the draft model.
        model: the model.
        texts: its answers.
        depths: of drafts.
        exit_after: the draft's layers that draft; None for all.
    """
    draft.train(False)
    exits = [exit_after or len(layers_of(draft))]
    results = []
    for text in texts:
        (logits,), _ = logits_by_exit(draft, model, [text], exits)
        check_logits(logits)
        scores = logits.gather(1, text.tokens[text.prompt :, None])
        rank = (logits > scores).sum(-1)
        shifted = [torch.nn.functional.pad(rank[depth:], (0, min(depth, len(rank)))) for depth in range(depths)]
        results.append(torch.stack(shifted).cpu().numpy())
    return results


def _from(items: Sequence[T], start: int) -> Iterator[T]:
    """Yield items in circles, from the item of a number on."""
    return (items[(start + index) % len(items)] for index in itertools.count())
