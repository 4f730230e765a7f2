"""Train layers that guess a block of tokens in one call (DFlash, Chen et al. 2026, arXiv:2602.06036).

Every token of the text is the pending one of a block; the paper draws some, which saves time for long text. The loss of
a later slot counts less, as in the paper, by the factor that all courses share.

B  sequences      N  slots of the text      S  slots of a block      H  heads      G  key heads      C  size of a head
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from specc.heads import Head
from specc.heads.dflash import Dflash
from specc.heads.eagle3 import normed_taps
from specc.runtime.drafters.dflash import PENDING
from specc.training.batches import Batch
from specc.training.closed_form import solve, zero_layers
from specc.training.course import Course
from specc.training.eagle3 import RATES, layer_settings, taps_of
from specc.training.shards import Recording
from specc.training.teacher import Teacher
from specc.training.unroll import later, layer_logits

TOGETHER = 16  # blocks that attend in one call, so that the scores of all are never there at once
GUESSES = 7
LAYERS = 2


def _settings(config: Any) -> dict[str, float]:
    return layer_settings(config) | {"layers": LAYERS, "guesses": GUESSES}


@torch.no_grad()
def _start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start the first guess as the best linear one, the mask as the mean embedding, and the layers at zero."""
    assert isinstance(head, Dflash) and head.norm is not None and head.mask is not None
    assert head.token is not None and head.last is not None
    fit = solve(recordings, teacher.embedding, len(head.taps), head.eps)
    head.fc.weight.copy_(fit.taps)
    head.token.weight.copy_(fit.token)
    head.norm.fill_(fit.scale)
    head.mask.copy_(teacher.embedding.mean(0))
    # States are normed behind `fc`, so that `last` restores their size.
    joined = head.fc(normed_taps(recordings[0].states.float(), len(head.taps), head.tap_norm, head.eps))
    torch.nn.init.eye_(head.last.weight).mul_(joined.pow(2).mean().sqrt())
    zero_layers(head)


def _unroll(head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run a block behind each token of the text."""
    assert isinstance(head, Dflash)
    state = head.fuse(batch.states[:, :-1].float())
    slots, block = batch.slots, 1 + steps
    places = torch.arange(PENDING, PENDING + block, dtype=state.dtype).repeat(slots)[:, None]
    last = state[..., :-1].repeat_interleave(block, 1)
    tokens = batch.tokens[:, 1:]
    rows = torch.arange(slots)
    x = head.run_layers(
        torch.cat([tokens, tokens.repeat_interleave(block, 1)], 1),
        torch.cat([rows, (rows[:, None] + 1 + torch.arange(block)).flatten()])[None],
        torch.cat([state, torch.cat([last, places.expand(len(last), -1, -1)], -1)], 1),
        [BlockAttention(slots, block)] * len(head.layers),
    )
    blocks = torch.unflatten(x[:, slots:], 1, (slots, block))
    return [later(blocks[:, :, 1 + depth], depth) for depth in range(steps)]


class BlockAttention:
    """Attention of a block behind each token of a text, for all of them at once.

    A slot of the block behind token s sees the rows of the text up to s, and all slots of its block.

    Args:
        slots: of the text, N. They come first.
        block: slots of a block, S.
    """

    def __init__(self, slots: int, block: int) -> None:
        self.slots, self.block = slots, block
        self.masks: list[Tensor] = []  # of the blocks that attend in one call, [TOGETHER * S, N + TOGETHER * S]
        for visible in torch.split(sees_text(slots), TOGETHER):
            same = torch.eye(len(visible), dtype=torch.bool).repeat_interleave(block, 1)
            self.masks.append(torch.cat([visible, same], 1).repeat_interleave(block, 0))

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend. The text's own slots attend to nothing, since only their keys and values are read.

        Args:
            query: [B, H, N + N * S, C].
            key: [B, G, N + N * S, C].
            value: [B, G, N + N * S, C].

        Returns:
            [B, H, N + N * S, C].
        """
        groups = query.shape[1] // key.shape[1]
        key, value = (rows.to(query.dtype).repeat_interleave(groups, 1) for rows in (key, value))
        attended = [torch.zeros_like(query[:, :, : self.slots])]
        start = self.slots
        for mask in self.masks:
            own = slice(start, start + len(mask))
            keys, values = (torch.cat([rows[:, :, : self.slots], rows[:, :, own]], 2) for rows in (key, value))
            attended.append(functional.scaled_dot_product_attention(query[:, :, own], keys, values, mask))
            start += len(mask)
        return torch.cat(attended, 2)


def sees_text(slots: int) -> Tensor:
    """Return which rows of a text a block sees, [N, N] bool: that behind token s sees the rows up to s."""
    return torch.ones(slots, slots, dtype=torch.bool).tril()


COURSE = Course(
    architecture="dflash",
    taps=taps_of,
    settings=_settings,
    start=_start,
    unroll=_unroll,
    product=layer_logits,
    steps=GUESSES,
    recurrent=False,
    rates=RATES | {"last": RATES["token"]},
)
