"""Train a head that makes two tokens a call (Falcon, Gao et al. 2024, arXiv:2412.12639).

States and probabilities are compared, as in EAGLE's training (specc/training/eagle.py), for all tokens of a draft. The
training is the paper's coupled sequential glancing distillation. A first pass guesses. In a second pass the head reads
its own guesses, states and tokens together. Some of them are replaced by the truth, as many as λ times the mistakes of
the first pass. λ falls from 0.6 to 0.25 over the training.

Both passes are trained here, since the first call of a draft reads the truth alone. The second one is the second call
of a draft from each slot. The probabilities are those of temperature 1; the paper's loss has 0.95 and a tenth of the
cross entropy of the tokens.

B  sequences      N  slots      D  hidden size
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads import Head
from specc.heads.falcon import BLOCK, Falcon, gates_from
from specc.passes.cell_operators import run_cells
from specc.training import eagle
from specc.training.batches import Batch
from specc.training.course import Course
from specc.training.device import generator
from specc.training.shards import Recording
from specc.training.teacher import Teacher
from specc.training.unroll import DraftAttention, later, layer_logits

GLANCING = 0.6, 0.25  # λ at the start and at the end
STEPS = 2 * BLOCK  # depths that are trained: those of two calls


@torch.no_grad()
def _start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start both guesses from closed forms, and what corrects them at zero."""
    assert isinstance(head, Falcon)
    eagle.start(head, teacher, recordings)
    for product in (head.block_layer.output, head.block_layer.down):  # The correction behind them is zero already.
        nn.init.normal_(product.weight, std=0.02)
    head.second.weight.copy_(eagle.fit(head, teacher, recordings, ahead=BLOCK)[0])
    nn.init.zeros_(head.correction.weight)


@dataclass(frozen=True)
class _Slots:
    """The tokens and the states that slots read, for B drafts.

    Attributes:
        tokens: [B, N] int64.
        states: [B, N, D].
    """

    tokens: Tensor
    states: Tensor


def unroll(head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run the head on the model's states, then two slots a call on the head's own. In training it glances at the truth.

    See `Course.unroll`.
    """
    assert isinstance(head, Falcon)
    truth = _Slots(batch.tokens[:, 1:], batch.states[:, :-1].float())
    positions, attention = torch.arange(batch.slots)[None], DraftAttention()
    x = head.beside(truth.tokens, truth.states)
    memory, block = _over_text(head, x)
    guesses, features = head.guess(x, block, positions, attention), list[Tensor]()
    while True:
        features += [later(guesses[:, :, number], number) for number in range(BLOCK)]
        if len(features) >= steps:
            return features[:steps]
        for slots in _next_slots(head, guesses, truth, batch):
            x = head.beside(slots.tokens, slots.states)
            memory, block = _one_slot(head, x, later(memory, 1))
            guesses = head.guess(x, block, positions, attention)  # Those of the last slot are the call's.


def _over_text(head: Falcon, x: Tensor) -> tuple[Tensor, Tensor]:
    """Run the LSTM layers over whole texts, by torch's own. The arguments and results are those of `Falcon.remember`.

    What they remember has no slopes, so that cells, which torch does not return, cost little.
    """
    inputs, behind = head.lstm_inputs(x), list[Tensor]()
    before = inputs
    for layer in head.lstm:
        outputs: Tensor = layer(inputs)[0]
        before = later(outputs, 1)
        with torch.no_grad():
            gates = gates_from(layer, inputs) + functional.linear(before, layer.get_parameter("weight_hh_l0"))
            enter, keep, new, _ = torch.split(gates, head.size, -1)
            news, keeps, cells = torch.sigmoid(enter) * torch.tanh(new), torch.sigmoid(keep), list[Tensor]()
            cell = torch.zeros_like(news[:, 0])
            for more, share in zip(news.unbind(1), keeps.unbind(1), strict=True):
                cell = torch.addcmul(more, share, cell)
                cells.append(cell)
            behind += [outputs, torch.stack(cells, 1)]
        inputs = outputs
    return torch.cat(behind, -1).detach(), torch.stack([before, inputs], 2)


def _one_slot(head: Falcon, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Run the LSTM layers for one more slot of each draft. The arguments and results are those of `Falcon.remember`."""
    lanes, slots, _ = x.shape
    rows, before = (part.flatten(0, 1)[:, None] for part in (x, memory))
    behind, block = head.remember(rows, before, torch.ones_like(rows[..., :1]), run_cells)
    return behind.view(lanes, slots, -1), block.view(lanes, slots, BLOCK, -1)


def _next_slots(head: Falcon, guesses: Tensor, truth: _Slots, batch: Batch) -> list[_Slots]:
    """Return the two slots of the next call of each draft, in the rows of their tokens.

    Args:
        head: the head. In training its slots have guessed tokens, or the truth where it glances.
        guesses: [B, N, 2, D]: what the last call guessed, in the rows of its last slots.
        truth: what the text has in each slot.
        batch: the text.
    """
    own = [later(guesses[:, :, number], 1 + number) for number in range(BLOCK)]
    if not head.training:
        return [_Slots(truth.tokens, states) for states in own]
    with torch.no_grad():
        drafted = [head.logits(states).argmax(-1) for states in own]
        if head.vocabulary is not None:
            drafted = [head.vocabulary[tokens] for tokens in drafted]
    # The guess behind slot i is that of token i + 1, which slot i reads beside the state behind token i.
    valid = torch.stack([batch.rows(1 + number) for number in range(BLOCK)], -1)
    wrong = torch.stack([tokens != truth.tokens for tokens in drafted], -1) & valid
    glanced = glances(wrong, valid, batch).unbind(-1)
    return [
        _Slots(torch.where(glance, truth.tokens, tokens), torch.where(glance[..., None], truth.states, states))
        for glance, tokens, states in zip(glanced, drafted, own, strict=True)
    ]


def glances(wrong: Tensor, valid: Tensor, batch: Batch) -> Tensor:
    """Choose the slots that read the truth: λ times as many of a sequence as it has mistakes, anywhere in it.

    Args:
        wrong: [B, N, 2] bool: the mistakes.
        valid: [B, N, 2] bool: the slots that may be chosen.
        batch: the text, which the choice depends on.

    Returns:
        [B, N, 2] bool.
    """
    first, last = GLANCING
    count = ((first + (last - first) * batch.part) * wrong.flatten(1).sum(1)).round().long()
    seed = generator(int(batch.tokens.sum()) + int(batch.part * 1e6))
    numbers = torch.rand(valid.shape, generator=seed).masked_fill(~valid, 2.0).flatten(1)
    places = numbers.argsort(1).argsort(1)
    return (places < count[:, None]).view_as(valid) & valid


def _feature_loss(head: Head, batch: Batch, features: list[Tensor]) -> Tensor:
    losses = [eagle.feature_loss(states, batch, depth) for depth, states in enumerate(features)]
    return torch.stack(losses).mean()


COURSE = Course(
    architecture="falcon",
    taps=eagle.EAGLE.taps,
    settings=eagle.EAGLE.settings,
    start=_start,
    unroll=unroll,
    product=layer_logits,
    steps=STEPS,
    recurrent=True,
    rates={"fc": 0.15, "second": 0.15},
    besides=_feature_loss,
)
