"""Train the head of S3D: a mask token, and an MLP in the place of the middle layers (see `specc.heads.s3d`).

The model stays as it is. Its first and last layers run on each token of recorded text with masks behind it, over the
keys and values that the whole model made of the tokens before. That is what a draft reads. The slopes go through these
layers to the mask and to the MLP. The loss is that of all heads.

B  sequences      N  tokens of a sequence      K  masks      D  hidden size
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from specc.heads import Head
from specc.heads.s3d import S3D
from specc.runtime.errors import HeadError
from specc.training.batches import Batch
from specc.training.course import Course
from specc.training.guess_slots import TABLE_RATE, Start, at_layer, begin, fixed, product, read, run_slots, unbound
from specc.training.unroll import later

MASKS = 3  # so a draft has four tokens, as many as were best in the paper
SKIPPED = 0.5  # share of the layers that are left out, in the middle


def settings(config: Any) -> dict[str, float]:
    """Return the settings for a model.

    Raises:
        HeadError: the model has one layer.
    """
    layers: int = config.num_hidden_layers
    if layers < 2:
        raise HeadError(f"the model has {layers} layer, and S3D leaves some out; train it for a model of 2 or more")
    skipped = max(1, int(SKIPPED * layers))
    return {
        "guesses": MASKS,
        "shared": 1,
        "first_skipped": max(1, (layers - skipped) // 2),
        "skipped": skipped,
        "mlp_size": max(1, config.hidden_size // 2),
        "eps": float(getattr(config, "rms_norm_eps", 1e-6)),
    }


def in_model(course: Course, model: PreTrainedModel) -> Course:
    """Return the course whose heads run in a model, which stays as it is."""
    return replace(course, unroll=partial(_unroll, fixed(model)), start=partial(begin, model))


def _unroll(model: PreTrainedModel, head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run each token but the first one with masks behind it. Return what the last product reads of each, [B, N, D].

    Depth 0 is the token's own slot, which stands on nothing that the model said of that token.
    """
    assert isinstance(head, S3D)
    with torch.no_grad():
        cache, (states,) = read(model, batch.tokens, head)
        cache.crop(-1)
    own = states[:, 1:]
    starts = torch.cat([own[:, :, None], head.starts(own.float()).to(own.dtype)], 2)
    with _skeleton(model, head):
        rows = run_slots(model, [Start(None, 0, starts)], cache)
    return [later(rows[:, :, depth], depth) for depth in range(min(steps, 1 + head.count))]


@contextmanager
def _skeleton(model: PreTrainedModel, head: S3D) -> Iterator[None]:
    """Let the head's bridge stand in the place of the layers that it skips.

    These layers run, and what they return is replaced, since models differ in what else a layer returns.
    """
    bridged: list[Tensor] = []

    def cross(states: Tensor) -> None:
        bridged.append(head.bridge(states.float()).to(states.dtype))

    with ExitStack() as stack:
        stack.enter_context(at_layer(model, head.bridge_taps[-1], cross))
        stack.enter_context(at_layer(model, head.skipped[-1], lambda states: bridged[0]))
        yield


COURSE = Course(
    architecture="s3d",
    taps=lambda layers: (),
    settings=settings,
    start=unbound,
    unroll=unbound,
    product=product,
    steps=1 + MASKS,
    recurrent=False,
    rates={"table": TABLE_RATE},
    in_model=in_model,
)
