"""A description of how an architecture is trained. Each architecture has a file with one value of `Course`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from specc.heads import Head
from specc.training.batches import Batch
from specc.training.shards import Recording
from specc.training.teacher import Teacher

DEEPER = 0.8  # The loss of a depth counts this many times as much as the loss one depth before.


@dataclass(frozen=True, kw_only=True)
class Course:
    """A way to train heads of one architecture.

    Attributes:
        architecture: a key of `specc.heads.ARCHITECTURES`.
        taps: the layers that the head reads, by the number of layers of the model.
        settings: the numbers of the architecture, by the model's configuration.
        start: sets the weights before the first update, from the model's tables and recorded text.
        unroll: runs the head on a batch, so that drafts stand on drafts. It returns a list of [B, N, D]: what the last
            product reads at each depth. Depth k in row i is made without anything that the model said of the last k
            tokens before and in row i. Its logits are of the token after that in row i. Rows before k hold nothing.
        product: makes logits [M, V'] at a depth from rows [M, D] of what `unroll` returned.
        steps: the depths that are trained.
        recurrent: whether drafts may be deeper than that.
        rates: a factor of the learning rate for parameters whose names begin with the key.
        in_model: binds the course to a model, for heads whose guesses are slots of the model's own run. They know all
            tokens of the model.
        from_model: binds the start to a model, from whose layers the head begins. It copies what it needs, so that the
            model can be freed.
        besides: a loss that is added to the comparison with the model's probabilities, from what `unroll` returned.
    """

    architecture: str
    taps: Callable[[int], tuple[int, ...]]
    settings: Callable[[Any], dict[str, float]]
    start: Callable[[Head, Teacher, Sequence[Recording]], None]
    unroll: Callable[[Head, Batch, int], list[Tensor]]
    product: Callable[[Head, int, Tensor], Tensor]
    steps: int
    recurrent: bool
    rates: Mapping[str, float] = field(default_factory=dict)
    besides: Callable[[Head, Batch, list[Tensor]], Tensor] | None = None
    in_model: Callable[[Course, PreTrainedModel], Course] | None = None
    from_model: Callable[[Course, PreTrainedModel], Course] | None = None
