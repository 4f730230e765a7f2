"""Train a model with noise in its input, so that it answers well behind wrong tokens.

Make Some Noise (Wang et al. 2024, arXiv:2406.17404). In answers, SPAN tokens in a row are replaced by tokens that stand
before them, which are drawn at random. The loss is the cross entropy with the true tokens, in all rows of the answer.
So a row that reads noise learns to foretell what the text goes on with. TR-Jacobi drafts by such rows.

It departs from the paper in three points. Answers are the model's own greedy ones, in the place of a data set's. There
is such a span in each EVERY tokens of an answer, in the place of one, since the training is short. Tables and the last
norm stay as they are.

B  sequences      N  tokens of a sequence
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from specc.training.batches import padded
from specc.training.device import generator
from specc.training.distil import Text
from specc.training.model_training import ModelTraining, side_by_side
from specc.training.states import layers_of

SPAN = 5  # tokens that are replaced, the paper's L
EVERY = 16  # tokens of an answer of which SPAN are noise
TRIES = 4  # spans of noise that are measured in each text


class NoiseTraining(ModelTraining):
    """A training with noise.

    Args:
        model: the model, whose layers are trained.
    """

    depths_title = "right behind noise"

    def __init__(self, model: PreTrainedModel) -> None:
        model.requires_grad_(False)
        self.model, self.modules = model, layers_of(model).requires_grad_(True)

    def loss(self, group: Sequence[Text], seed: int) -> Tensor:
        """Return the cross entropy with the true tokens of answers, whose input has noise."""
        tokens, rows = side_by_side(group)
        random = generator(seed)
        noisy = padded([with_noise(text, random) for text in group])
        logits = self.model(input_ids=noisy[:, :-1], use_cache=False).logits[rows]
        return functional.cross_entropy(logits.float(), tokens[:, 1:][rows])

    @torch.no_grad()
    def rates(self, texts: Sequence[Text]) -> tuple[float, ...]:
        """Return how often the row of the first, second, … token of noise foretells the text's token."""
        right, tried, random = [0] * SPAN, [0] * SPAN, generator(0)
        for text in texts:
            pairs = [with_span(text, text.prompt, len(text), random) for _ in range(TRIES)]
            logits = self.model(input_ids=torch.stack([noisy for noisy, _ in pairs]), use_cache=False).logits
            for row, (_, start) in zip(logits.argmax(-1), pairs, strict=True):
                for depth in range(min(SPAN, len(text) - 1 - start)):
                    right[depth] += int(row[start + depth] == text.tokens[start + depth + 1])
                    tried[depth] += 1
        return tuple(round(hits / max(1, tries), 4) for hits, tries in zip(right, tried, strict=True))


def with_noise(text: Text, random: torch.Generator) -> Tensor:
    """Return the tokens of a text, [n], with a span of noise in each EVERY tokens of its answer.

    Args:
        text: the text.
        random: where the places and the tokens are drawn from.
    """
    for first in range(text.prompt, len(text), EVERY):
        tokens, _ = with_span(text, first, min(first + EVERY, len(text)), random)
        text = Text(tokens=tokens, prompt=text.prompt)
    return text.tokens


def with_span(text: Text, first: int, last: int, random: torch.Generator) -> tuple[Tensor, int]:
    """Replace tokens in a row by earlier tokens.

    Args:
        text: the text.
        first: the first token that may be replaced. The text's own first one stays.
        last: the token after the last one that may be. Of few tokens fewer than SPAN are replaced.
        random: where the place and the tokens are drawn from.

    Returns:
        The tokens with noise, [n], and the place of the first one that was replaced.
    """
    first = max(1, first)  # No token stands before the first one, so nothing could replace it.
    count = min(SPAN, last - first)
    start = int(torch.randint(first, last - count + 1, (1,), generator=random))
    noisy = text.tokens.clone()
    noisy[start : start + count] = text.tokens[torch.randint(0, start, (count,), generator=random)]
    return noisy, start
