"""The papers' own claims, on the demo model: heads of decoder layers, trained for a minute each on one recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from demo_text import Text, train_head
from torch import Tensor

from specc.heads import Head
from specc.heads.adaeagle import AdaEagle
from specc.heads.head import rms_norm
from specc.heads.tandem import Tandem
from specc.training.acceptance import CHAIN, Acceptance, measure
from specc.training.adaeagle import accepted_lengths
from specc.training.batches import Batch, collate
from specc.training.courses import COURSES
from specc.training.trainer import TrainerOptions
from specc.training.unroll import DraftAttention, later

pytestmark = [pytest.mark.torch, pytest.mark.slow]
OPTIONS = TrainerOptions(updates=120, evaluations=3, every=1e9)


@pytest.fixture(scope="module")
def trained(demo_text: Text) -> Callable[[str], tuple[Head, Acceptance, float]]:
    """A function that trains the head of a recipe once, and returns it, its acceptance, and its chain untrained."""

    @cache
    def train(name: str) -> tuple[Head, Acceptance, float]:
        course = COURSES[name]
        text = demo_text.of(course)
        head, progress = train_head(text, course, name, OPTIONS)
        return head, measure(head, course, text.held_out, CHAIN), progress.acceptances["0"]

    return train


@pytest.mark.parametrize("name", ["eagle", "mtp", "peagle", "falcon", "tandem"])
def test_training_makes_more_tokens_a_step_than_the_closed_form(
    name: str, trained: Callable[[str], tuple[Head, Acceptance, float]]
) -> None:
    _, acceptance, before = trained(name)
    assert acceptance.chain > before + 0.02


def test_a_tree_takes_more_than_a_chain(trained: Callable[[str], tuple[Head, Acceptance, float]]) -> None:
    """EAGLE-2's claim over EAGLE's chain."""
    _, acceptance, _ = trained("eagle")
    assert acceptance.tree > acceptance.chain


def test_fspad_takes_no_fewer_tokens_than_eagle(trained: Callable[[str], tuple[Head, Acceptance, float]]) -> None:
    assert trained("fspad")[1].chain >= trained("eagle")[1].chain


@torch.no_grad()
def test_guessed_lengths_are_nearer_than_the_best_fixed_one(
    demo_text: Text, trained: Callable[[str], tuple[Head, Acceptance, float]]
) -> None:
    head, *_ = trained("adaeagle")
    assert isinstance(head, AdaEagle)
    truths: list[Tensor] = []
    guesses: list[Tensor] = []
    for one in demo_text.of(COURSES["adaeagle"]).held_out:
        batch = collate([one])
        truth = accepted_lengths(head, batch, COURSES["adaeagle"].unroll(head, batch, CHAIN))
        roots = truth.shape[1]
        lengths = head.lengths(batch.tokens[:, 1 : 1 + roots], head.fuse(batch.states[:, :roots].float()))
        truths.append(truth[0, one.prompt :])
        guesses.append(lengths[0, one.prompt :, 0].round().clamp(0, CHAIN))
    truth, guess = torch.cat(truths).float(), torch.cat(guesses)
    fixed = min(float((truth - length).abs().mean()) for length in range(CHAIN + 1))
    assert float((truth - guess).abs().mean()) < fixed
    wasted, wasted_by_all = (guess - truth).clamp(min=0).mean(), (CHAIN - truth).mean()
    assert wasted < 0.7 * wasted_by_all


def unroll_alone(head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run the small model of a tandem alone: keys and values from its own residual stream of the tokens before."""
    assert isinstance(head, Tandem) and head.embedding is not None
    x, positions = rms_norm(head.embedding[batch.tokens], None, head.eps), torch.arange(batch.tokens.shape[1])[None]
    for layer in head.decoder_layers():
        x = layer(later(x, 1), x, positions, DraftAttention())
    return [x[:, 1:]] * steps


def test_a_small_model_is_right_more_often_if_it_reads_the_large_one(
    demo_text: Text, trained: Callable[[str], tuple[Head, Acceptance, float]]
) -> None:
    """Tandem's claim. Both small models have one shape, and are trained on one text for as many updates."""
    course = replace(COURSES["tandem"], unroll=unroll_alone, steps=1)
    text = demo_text.of(course)
    head, _ = train_head(text, course, "alone", OPTIONS)
    alone, tandem = measure(head, course, text.held_out, CHAIN), trained("tandem")[1]
    print(f"tandem {tandem.by_depth}, {tandem.chain} tokens a step; alone {alone.by_depth}, {alone.chain}")
    assert tandem.by_depth[0] > alone.by_depth[0] and tandem.chain > alone.chain
