"""Heads that are trained on the demo model: what the papers claim of each kind, on held-out text of the model.

Each head makes equally many updates.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from demo_text import Text, train_head
from torch import Tensor
from torch.nn.functional import cross_entropy

from specc.heads import Head
from specc.heads.amphista import Amphista
from specc.training.acceptance import measure, ranks
from specc.training.batches import Batch, collate
from specc.training.course import Course
from specc.training.courses import COURSES
from specc.training.shards import Recording
from specc.training.trainer import TrainerOptions

pytestmark = [pytest.mark.torch, pytest.mark.model, pytest.mark.slow]
DEPTHS = 4
OPTIONS = TrainerOptions(updates=150, evaluations=3, every=1e9, learning_rate=2e-3)


@pytest.fixture(scope="module")
def text(demo_text: Text) -> Text:
    return demo_text.of(COURSES["medusa"])


@pytest.fixture(scope="module")
def trained(text: Text) -> Callable[[str], Head]:
    """Return a function that trains the head of a recipe, once."""
    return cache(lambda name: train_head(text, COURSES[name], name, OPTIONS)[0])


def chain(text: Text, name: str, head: Head) -> float:
    """Return the tokens that a step of greedy decoding gives with a chain of DEPTHS drafted tokens."""
    return measure(head, COURSES[name], text.held_out, DEPTHS).chain


def rates(text: Text, name: str, head: Head) -> list[float]:
    """Return how often the first choice at each depth is the model's token, whatever the tokens before were."""
    texts = ranks(head, COURSES[name], text.held_out, DEPTHS)
    return [
        float(np.concatenate([ranked[depth, : -depth or None] == 0 for ranked in texts]).mean())
        for depth in range(DEPTHS)
    ]


def unigram(text: Text) -> float:
    """Return how often the most frequent token of the training text is right in the held-out answers."""
    best = torch.cat([recording.tokens for recording in text.train]).bincount().argmax()
    answers = torch.cat([recording.tokens[recording.prompt :] for recording in text.held_out])
    return float((answers == best).float().mean())


def test_blockwise_guesses_get_worse_with_depth_and_save_a_sixth_of_the_passes(
    text: Text, trained: Callable[[str], Head]
) -> None:
    head = trained("blockwise")
    by_depth = rates(text, "blockwise", head)
    assert by_depth == sorted(by_depth, reverse=True) and by_depth[0] > by_depth[-1]
    assert min(by_depth[:2]) > unigram(text)
    assert chain(text, "blockwise", head) > 1.2  # tokens a pass


@pytest.mark.parametrize("name", ["hydra", "hydra-plus-plus", "recurrent-drafter", "clover", "clover-2"])
def test_heads_that_read_drafted_tokens_beat_medusas(name: str, text: Text, trained: Callable[[str], Head]) -> None:
    assert chain(text, name, trained(name)) > chain(text, "medusa", trained("medusa"))


@pytest.mark.parametrize("name", ["clover", "clover-2", "hydra"])
def test_the_second_guess_needs_the_first_token(name: str, text: Text, trained: Callable[[str], Head]) -> None:
    """With shuffled tokens in the draft, the second guess is right less often."""
    head, course = trained(name), COURSES[name]
    right, wrong = (second_guess(head, course, text.held_out, shuffle) for shuffle in (False, True))
    assert right > 1.2 * wrong


@torch.no_grad()
def second_guess(head: Head, course: Course, texts: list[Recording], shuffle: bool) -> float:
    """Return how often the second guess is the text's token, with the text's token or another one drafted before it."""
    generator = torch.Generator().manual_seed(0)
    hits: list[Tensor] = []
    for recording in texts:
        batch = collate([recording])
        tokens = (
            batch.tokens[:, torch.randperm(batch.tokens.shape[1], generator=generator)] if shuffle else batch.tokens
        )
        rows = unroll_with(head, course, batch, tokens)[0, recording.prompt : len(recording) - 2]
        hits.append(course.product(head, 1, rows).argmax(-1) == recording.tokens[recording.prompt + 2 :])
    return float(torch.cat(hits).float().mean())


def unroll_with(head: Head, course: Course, batch: Batch, tokens: Tensor) -> Tensor:
    """Return what the second guess reads, [1, N, D], if the first guess saw the text and `tokens` were drafted."""
    from specc.heads.sequential import Sequential
    from specc.training.unroll import DraftAttention

    assert isinstance(head, Sequential)
    positions = torch.arange(batch.slots)[None]
    attention = [DraftAttention() for _ in head.layers]
    state = head.run_layers(positions, head.fuse(batch.states[:, :-1].float()), [*attention])
    _, state = head.step(batch.tokens[:, 1:], state)
    later = torch.nn.functional.pad(state[:, :-1], (0, 0, 1, 0))
    x, _ = head.step(tokens[:, 1:], later)
    return x


def test_amphistas_guesses_get_worse_if_later_slots_are_hidden(text: Text, trained: Callable[[str], Head]) -> None:
    """The trained head uses later slots. One that is trained without them is as good, as docs/measurements.md says."""
    head = trained("amphista")
    assert isinstance(head, Amphista)
    right, losses = sum(rates(text, "amphista", head)), surprise(text, "amphista", head)
    head.causal = True
    hidden_right, hidden_losses = sum(rates(text, "amphista", head)), surprise(text, "amphista", head)
    head.causal = False
    assert hidden_right < right and np.mean(hidden_losses.mean(1) > losses.mean(1)) > 0.75
    assert np.allclose(hidden_losses[:, -1], losses[:, -1]), "the last slot has no later one"


@torch.no_grad()
def surprise(text: Text, name: str, head: Head) -> np.ndarray:
    """Return the negative logarithm of the probability of each text's tokens, means of [texts, DEPTHS]."""
    course, means = COURSES[name], []
    for recording in text.held_out:
        for depth, rows in enumerate(course.unroll(head, collate([recording]), DEPTHS)):
            start = recording.prompt + depth  # row i foretells token i + 2
            logits = course.product(head, depth, rows[0, start : len(recording) - 2])
            means.append(float(cross_entropy(logits, recording.tokens[start + 2 :])))
    return np.array(means).reshape(-1, DEPTHS)
