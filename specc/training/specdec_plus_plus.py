"""Train the head that foresees whether drafted tokens are accepted (SpecDec++, Huang et al. 2024, arXiv:2405.19715).

The loss is the paper's: a binary cross-entropy in which a rejection weighs six times as much as an acceptance.

It departs from the paper in two points. Its text is the model's own, and behind each place stands the token that the
draft model finds likeliest there: so each state is one that a draft meets if all of its tokens before were accepted.
The paper replaces most tokens of a text by sampled ones of the draft model, and later states stand on them. And the
weight is taken out of the head's bias in the end, so that the head's numbers are probabilities.

n  tokens of a text      A  tokens of its answer      N  drafted tokens      D  hidden size of the draft model
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from math import inf, log
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel

from specc.heads.specdec_plus_plus import AcceptanceHead
from specc.runtime.errors import HeadError
from specc.training.checkpoint import Progress
from specc.training.device import generator
from specc.training.distil import Text
from specc.training.states import layers_of, run_with_cache, tapped
from specc.training.trainer import TrainerOptions

REJECTION = 6.0  # A rejection weighs so many times as much as an acceptance.
BATCH = 512  # tokens of an update
LEAST = 1e-6  # standard deviation of a state by which it is divided
BINS = 10  # of probabilities, in which estimates are compared with what came true


@torch.no_grad()
def drafted(draft: PreTrainedModel, texts: Sequence[Text]) -> tuple[Tensor, Tensor, Tensor]:
    """Let a draft model draft one token at each place of answers, and look whether the model wrote it there.

    Args:
        draft: the draft model.
        texts: greedy answers of the model.

    Returns:
        The states [N, D] of the draft model after its tokens, whether the model's token is the same [N] bool, and the
        draft model's own probabilities of its tokens [N].
    """
    draft.set_attn_implementation("sdpa")
    layers, parts = len(layers_of(draft)), []
    for text in texts:
        cache: Any = DynamicCache()
        with tapped(draft, (layers,)) as values:
            logits = run_with_cache(draft, cache, input_ids=text.tokens[None]).logits[0]
            probs, tokens = logits[text.prompt - 1 : -1].float().softmax(-1).max(-1)
            _run_beside(draft, tokens, text, cache)
            parts.append((values["final"][0].float(), tokens == text.tokens[text.prompt :], probs))
    states, accepted, own = (torch.cat(column) for column in zip(*parts, strict=True))
    return states, accepted, own


def _run_beside(draft: PreTrainedModel, tokens: Tensor, text: Text, cache: Any) -> None:
    """Run a token in the place of each of an answer's, which sees the text before that place and itself.

    Args:
        draft: the draft model.
        tokens: [A]: the tokens.
        text: the text, which has run.
        cache: its keys and values. It gets those of the tokens, too.
    """
    places = torch.arange(text.prompt, len(text))
    before = torch.arange(len(text)) < places[:, None]
    visible = torch.cat([before, torch.eye(len(places), dtype=torch.bool)], 1)
    run_with_cache(
        draft,
        cache,
        input_ids=tokens[None],
        position_ids=places[None],
        attention_mask=visible[None, None],
    )


def weighted_loss(logits: Tensor, accepted: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits [N] with what came true [N], in which rejections weigh more."""
    weights = torch.where(accepted, 1.0, REJECTION)
    return functional.binary_cross_entropy_with_logits(logits, accepted.float(), weights)


def fit(
    head: AcceptanceHead,
    text: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    options: TrainerOptions,
    show: Callable[[float, float], None] = lambda part, loss: None,
) -> Progress:
    """Train a head until its loss on held-out text no longer falls, and leave the best weights in it.

    Args:
        head: the head, with random weights.
        text: states [N, D] and what came true [N], to train on.
        held_out: those to measure on.
        options: of the loop.
        show: called after each epoch with the part of the training that is done, and the held-out loss.

    Raises:
        HeadError: the loss is not a number.
    """
    (states, accepted), progress, failed, begin = text, Progress(), 0, time.monotonic()
    head.mean.copy_(states.mean(0))
    head.scale.copy_(states.std(0).clamp(min=LEAST))
    optimizer = torch.optim.AdamW(head.parameters(), lr=options.learning_rate, weight_decay=options.decay)
    random = generator(options.seed)
    best, weights = inf, copy.deepcopy(head.state_dict())
    while options.part(progress) < 1 and failed < options.patience:
        for rows in torch.split(torch.randperm(len(states), generator=random), BATCH):
            if options.part(progress) >= 1:
                break
            _update(optimizer, weighted_loss(head.fuse(states[rows])[:, 0], accepted[rows]))
            progress.updates, progress.tokens = progress.updates + 1, progress.tokens + len(rows)
            progress.seconds = time.monotonic() - begin
        progress.epoch += 1
        with torch.no_grad():
            held_out_loss = weighted_loss(head.fuse(held_out[0])[:, 0], held_out[1])
        if not torch.isfinite(held_out_loss):
            raise _not_finite(held_out_loss)
        value = float(held_out_loss)
        failed = 0 if value < best else failed + 1
        if value < best:
            best, weights = value, copy.deepcopy(head.state_dict())
        show(options.part(progress), value)
    head.load_state_dict(weights)
    with torch.no_grad():  # The loss made rejections likelier by their weight.
        head.score.bias.add_(log(REJECTION))
    return progress


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Change the weights once. Raises HeadError if the loss is not a number."""
    if not torch.isfinite(loss):
        raise _not_finite(loss)
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()


def _not_finite(loss: Tensor) -> HeadError:
    return HeadError(f"the loss is {float(loss.detach())}; train again with a lower --learning-rate")


def calibration_error(estimates: Tensor, accepted: Tensor) -> float:
    """Return how far estimated probabilities [N] are from how often they came true.

    It is the mean over BINS bins of estimates, weighted by their size (expected calibration error, Guo et al. 2017,
    arXiv:1706.04599).
    """
    places = (estimates * BINS).long().clamp(max=BINS - 1)
    error = 0.0
    for place in range(BINS):
        rows = places == place
        if rows.any():
            error += float((estimates[rows].mean() - accepted[rows].float().mean()).abs()) * int(rows.sum())
    return error / len(estimates)
