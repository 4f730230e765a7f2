"""Train a model together with a head whose guesses are slots of the model's own run.

Lexical Unit Decoding (Sun et al. 2024, arXiv:2405.15208) trains all layers, and the padding token whose slots guess.
Lexical units are the longest spans of an answer of which the untrained model is sure: it gives each of their tokens a
probability of SURE or more. Slots learn to emit the rest of the unit that begins behind their token. It departs from
the paper in one point: slots outside of a unit learn too, with the weight OUTSIDE. So their probabilities say that they
are not sure, and a draft ends before them.

Speculative Streaming (Bhendawade et al. 2024, arXiv:2402.11131) trains adapters of low rank in the layers in which the
streams run, and the head of the streams. The loss is the cross entropy with the next token, and with those further
ahead by their streams, whose weight falls by DEEPER from stream to stream. The adapters become a part of the matrices.

Both learn from greedy answers of the model, in the place of a data set's. Tables and the last norm stay as they are.

B  sequences      N  tokens of a sequence      K  guesses      M  rows      V  tokens      D  hidden size
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel

from specc.heads.guess_slots import SlotHead
from specc.training.adapters import add_adapters, merge_adapters
from specc.training.batches import fill_up, padded
from specc.training.course import DEEPER
from specc.training.distil import Text
from specc.training.guess_slots import TABLE_RATE, at_places, backbone, run_slots, starts_of
from specc.training.lane_attention import ATTENTION
from specc.training.model_training import ModelTraining, side_by_side
from specc.training.states import layers_of, run_with_cache

SURE = 0.8  # A token belongs to a lexical unit if its probability is at least this.
OUTSIDE = 0.1  # A guess has this weight in the loss if its token belongs to no lexical unit.
ADAPTER_RANK = 8
ADAPTER_RATE = 4.0  # times the learning rate of layers: an adapter starts at zero


@dataclass(frozen=True, kw_only=True)
class MarkedText(Text):
    """A text in which lexical units are marked.

    Attributes:
        sure: [n] bool: of which tokens the untrained model is sure.
    """

    sure: Tensor


class SlotTraining(ModelTraining):
    """A training of a model with a head of slots.

    Args:
        model: the model.
        head: the head.
    """

    depths_title = "right guesses"
    head: SlotHead

    def __init__(self, model: PreTrainedModel, head: SlotHead) -> None:
        model.requires_grad_(False)
        model.set_attn_implementation(ATTENTION)
        self.model, self.head = model, head

    @abstractmethod
    def weights(self, group: Sequence[Text], in_answer: Tensor) -> Tensor:
        """Return how much each guess counts, [B, N, K].

        Args:
            group: texts that `mark` returned.
            in_answer: [B, N, K] bool: the guesses that foretell tokens of answers.
        """

    def begin(self, texts: Sequence[Text]) -> None:
        """Set the weights of the head before training, by the longest text."""
        with torch.no_grad(), at_places(self.model, self.head) as states:
            backbone(self.model)(input_ids=max(texts, key=len).tokens[None])
        self.head.begin(states[0].flatten(0, 1).float())

    def loss(self, group: Sequence[Text], seed: int) -> Tensor:
        """Return the cross entropy with the next tokens, and the weighted one of the guesses."""
        tokens, rows = side_by_side(group)
        plain, guesses = self._run(tokens[:, :-1])
        next_tokens = functional.cross_entropy(self._logits(plain[rows]), tokens[:, 1:][rows])
        in_answer, truths = _targets(tokens, rows, self.head.count)
        if not in_answer.any():
            return next_tokens
        weights = self.weights(group, in_answer)[in_answer]
        each = functional.cross_entropy(self._logits(guesses[in_answer]), truths[in_answer], reduction="none")
        return next_tokens + (weights * each).sum() / weights.sum()

    @torch.no_grad()
    def rates(self, texts: Sequence[Text]) -> tuple[float, ...]:
        """Return how often the likeliest token of each guess is the text's."""
        right = tried = torch.zeros(self.head.count)
        for text in texts:
            tokens, rows = side_by_side([text])
            in_answer, truths = _targets(tokens, rows, self.head.count)
            _, guesses = self._run(tokens[:, :-1])
            hits = (self._logits(guesses).argmax(-1) == truths) & in_answer
            right, tried = right + hits.sum((0, 1)), tried + in_answer.sum((0, 1))
        return tuple(round(float(rate), 4) for rate in right / tried.clamp(min=1))

    def _run(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the last product reads of tokens [B, N], and of the slots behind them, [B, N, K, D]."""
        cache: Any = DynamicCache()
        with at_places(self.model, self.head) as states:
            plain = run_with_cache(backbone(self.model), cache, input_ids=tokens).last_hidden_state
        return plain, run_slots(self.model, starts_of(self.head, states), cache)

    def _logits(self, rows: Tensor) -> Tensor:
        """Return the logits [..., V] of rows [..., D] by the model's last product."""
        untyped: Any = self.model  # transformers declares no type for `get_output_embeddings`
        flat = rows.reshape(-1, rows.shape[-1])
        logits: Tensor = untyped.get_output_embeddings()(fill_up(flat))[: len(flat)].float()
        return logits.reshape(*rows.shape[:-1], -1)


class LexicalUnitTraining(SlotTraining):
    """A training of all layers on lexical units."""

    rates_by_name: ClassVar[Mapping[str, float]] = {"head.table": TABLE_RATE}

    def __init__(self, model: PreTrainedModel, head: SlotHead) -> None:
        super().__init__(model, head)
        self.modules = nn.ModuleDict({"layers": layers_of(model).requires_grad_(True), "head": head})

    @torch.no_grad()
    def mark(self, texts: Sequence[Text]) -> list[Text]:
        """Note of which tokens the untrained model is sure."""
        marked: list[Text] = []
        for text in texts:
            probs = self.model(input_ids=text.tokens[None, :-1], use_cache=False).logits[0].float().softmax(-1)
            sure = probs.gather(1, text.tokens[1:, None])[:, 0] >= SURE
            marked.append(MarkedText(tokens=text.tokens, prompt=text.prompt, sure=functional.pad(sure, (1, 0))))
        return marked

    def weights(self, group: Sequence[Text], in_answer: Tensor) -> Tensor:
        """Return 1 where all tokens up to a guess's, from the next one on, are of one unit; OUTSIDE elsewhere."""
        sure = padded([text.sure for text in group if isinstance(text, MarkedText)])
        inside, columns = sure[:, 1:], []
        for depth in range(in_answer.shape[2]):
            ahead = functional.pad(sure, (0, depth + 2))[:, depth + 2 : depth + 1 + sure.shape[1]]
            inside = inside & ahead
            columns.append(inside)
        return torch.where(torch.stack(columns, 2), 1.0, OUTSIDE)


class StreamTraining(SlotTraining):
    """A training of streams, and of adapters of the layers in which they run."""

    rates_by_name: ClassVar[Mapping[str, float]] = {"head.table": TABLE_RATE, "adapters": ADAPTER_RATE}

    def __init__(self, model: PreTrainedModel, head: SlotHead) -> None:
        super().__init__(model, head)
        first = 0 if head.after is None else head.after + 1
        adapters = add_adapters(layers_of(model), first, ADAPTER_RANK)
        self.modules = nn.ModuleDict({"adapters": adapters, "head": head})

    def weights(self, group: Sequence[Text], in_answer: Tensor) -> Tensor:
        """Return a weight that falls from stream to stream."""
        return (DEEPER ** torch.arange(in_answer.shape[2])).expand(in_answer.shape)

    def finish(self) -> None:
        """Add the adapters to the matrices."""
        merge_adapters(layers_of(self.model))


def _targets(tokens: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return which guesses foretell tokens of answers, and these tokens.

    Guess k behind token i foretells token i + 2 + k.

    Args:
        tokens: [B, N + 1].
        rows: [B, N] bool: those that foretell tokens of answers.
        count: K.

    Returns:
        [B, N, K] bool, and [B, N, K].
    """
    in_answer, truths = [], []
    for depth in range(count):
        in_answer.append(functional.pad(rows, (0, depth + 1))[:, depth + 1 :] & rows)
        truths.append(functional.pad(tokens, (0, depth + 1))[:, depth + 2 :])
    return torch.stack(in_answer, 2), torch.stack(truths, 2)
