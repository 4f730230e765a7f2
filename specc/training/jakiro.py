"""Train EAGLE's layer with two experts (Jakiro, Huang et al. 2025, arXiv:2502.06282).

States and probabilities are compared, as in EAGLE's training (specc/training/eagle.py): those of the first expert, and
those of the guess one place further. Drafts stand on drafts, as in EAGLE-3's; the paper trains two steps.

The paper gives both experts one aim. Here the other expert learns the model's probabilities without the first expert's
token, since its tokens count only where that one is wrong. A draft stands on the state of the expert whose token the
text has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads import Head
from specc.heads.head import parts
from specc.heads.jakiro import Jakiro
from specc.training import eagle
from specc.training.acceptance import CHAIN
from specc.training.batches import Batch, fill_up
from specc.training.course import Course
from specc.training.eagle3 import layer_settings
from specc.training.shards import Recording
from specc.training.teacher import Teacher
from specc.training.unroll import HIDDEN, DraftAttention, later


def _settings(config: Any) -> dict[str, float]:
    return {**layer_settings(config), "mlp_size": 0, "expert_size": config.hidden_size, "final_norm": 0}


@torch.no_grad()
def _start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start as EAGLE's layer does, with experts that add nothing."""
    assert isinstance(head, Jakiro)
    eagle.start(head, teacher, recordings)
    for expert in (head.one, head.two):
        nn.init.zeros_(expert.down.weight)


def unroll(head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run the layer on the model's states, then on the head's own. The last depth comes from the call before it.

    Returns:
        What makes the logits at each depth, [B, N, 2 * D]: the first expert's and the other's. The last depth has one
        guess, twice.
    """
    assert isinstance(head, Jakiro)
    tokens, positions = batch.tokens[:, 1:], torch.arange(batch.slots)[None]
    attention: list[Any] = [DraftAttention() for _ in head.layers]
    state, ahead = head.fuse(batch.states[:, :-1].float()), torch.zeros(())
    pairs: list[Tensor] = []
    for step in range(max(1, steps - 1)):
        if step:
            state = later(head.next_state(_followed(head, batch, pairs[-1])), 1)
        first, other, ahead = head.features(head.run_layers(tokens, positions, state, attention))
        pairs.append(torch.cat([first, other], -1))
    return [*pairs, later(torch.cat([ahead, ahead], -1), 1)] if steps > 1 else pairs


def _followed(head: Jakiro, batch: Batch, pair: Tensor) -> Tensor:
    """Return the state [B, N, D] of the expert that has drafted the text's next token."""
    first, other = parts(pair, 2)
    with torch.no_grad():
        choices = head.logits(first[:, :-1]).argmax(-1)
        choices = choices if head.vocabulary is None else head.vocabulary[choices]
    is_first = functional.pad(choices == batch.tokens[:, 2:], (0, 1))
    return torch.where(is_first[..., None], first, other)


def product(head: Head, depth: int, rows: Tensor) -> Tensor:
    """Return logits [M, V'] from rows [M, 2 * D] of what `unroll` returned.

    In training they are the first expert's. In evaluation their order is that of a draft's siblings: the first expert's
    token, and then those of the other one.
    """
    assert isinstance(head, Jakiro)
    first, other = parts(rows, 2)
    logits = head.logits(first)
    if head.training:
        return logits
    siblings = head.logits(other)
    return siblings.scatter(-1, logits.argmax(-1, keepdim=True), siblings.max(-1, keepdim=True).values + 1)


def sibling_loss(head: Jakiro, batch: Batch, pair: Tensor, depth: int) -> Tensor:
    """Return how far the other expert is from the model's probabilities where the first expert's token is wrong.

    It is the cross-entropy of both distributions without that token, weighted by the chance that it is wrong.

    Args:
        head: the head.
        batch: recorded text.
        pair: [B, N, 2 * D]: both experts' states at a depth.
        depth: the depth.
    """
    assert head.product is not None, "no table was attached"
    rows = batch.rows(depth)
    first, other = parts(fill_up(pair[rows]), 2)
    with torch.no_grad():
        choice = head.logits(first).argmax(-1, keepdim=True)
        model_logits = functional.linear(fill_up(batch.final[:, 1:][rows].float()), head.product)
        wrong = 1 - model_logits.softmax(-1).gather(-1, choice)[:, 0]
        probs = model_logits.scatter(-1, choice, HIDDEN).softmax(-1)
    logprobs = head.logits(other).float().scatter(-1, choice, HIDDEN).log_softmax(-1)
    return (wrong * -(probs * logprobs).sum(-1))[: int(rows.sum())].mean()


def _besides(head: Head, batch: Batch, pairs: list[Tensor]) -> Tensor:
    assert isinstance(head, Jakiro)
    features = [eagle.feature_loss(parts(pair, 2)[0], batch, depth) for depth, pair in enumerate(pairs)]
    siblings = [sibling_loss(head, batch, pair, depth) for depth, pair in enumerate(pairs[:-1])]
    return torch.stack(features).mean() + torch.stack(siblings).mean()


COURSE = Course(
    architecture="jakiro",
    taps=eagle.EAGLE.taps,
    settings=_settings,
    start=_start,
    unroll=unroll,
    product=product,
    steps=CHAIN,
    recurrent=True,
    rates={"fc": 0.15},
    besides=_besides,
)
