"""How many tokens a head's drafts give, from held-out text.

At depth k a head drafts from its own states of the k tokens before. If the tokens of a path are the model's, these
states are what they are in a real draft. So the rank of the model's token at each depth tells which drafts would be
accepted by greedy decoding.

R  rows, each the root of a draft      K  depths
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from specc.heads import Head
from specc.runtime.tree import Tree
from specc.training import processes
from specc.training.batches import collate, epoch, fill_up
from specc.training.course import Course
from specc.training.finite import check_logits
from specc.training.shards import Recording

UNKNOWN = 1 << 20  # stands for the rank of a token outside the head's vocabulary
RANKS = 8
CHAIN, TREE = 4, 12  # drafted tokens of the chain, and slots of the tree, that a card tells
TOKENS = 2048  # of a batch


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """The acceptance of a head on held-out answers.

    Attributes:
        tokens: the roots of drafts that were counted.
        by_depth: how often the first choice is the model's token at each depth, given that those before were.
        by_rank: how often the token of rank 0, 1, … at depth 0 is the model's.
        chain: tokens that a step gives with a chain of CHAIN drafted tokens, the model's own included.
        tree: tokens that a step gives with the best static tree of TREE slots, the pending token's included.
        unknown: the share of tokens outside the head's vocabulary.
        rates: how often the token of rank 0, 1, … is the model's at each depth, whatever those before are.
    """

    tokens: int
    by_depth: tuple[float, ...]
    by_rank: tuple[float, ...]
    chain: float
    tree: float
    unknown: float
    rates: tuple[tuple[float, ...], ...] = ()


@torch.no_grad()
def ranks(head: Head, course: Course, recordings: Sequence[Recording], depths: int) -> list[np.ndarray]:
    """Return the rank of the text's token among the head's choices, [K, R] for each recording.

    Column r is the draft whose root is token r of the answer. Its first column is the answer's first token.

    Raises:
        HeadError: a logit is not a finite number.
    """
    head.eval()
    position = None
    if head.vocabulary is not None:
        position = torch.full((head.config.target.vocab_size,), -1)
        position[head.vocabulary] = torch.arange(len(head.vocabulary))
    results: list[np.ndarray] = []
    for group in epoch(recordings, TOKENS, seed=0):
        batch = collate(group)
        aligned = torch.full((depths, *batch.tokens.shape), UNKNOWN)
        for depth, features in enumerate(course.unroll(head, batch, depths)):
            # Row i of this depth foretells token i + 2, and its draft's root is token i + 1 - depth.
            for index in range(len(group)):
                rows = features[index, depth : len(group[index]) - 2]
                wanted_tokens = batch.tokens[index, depth + 2 : len(group[index])]
                places = wanted_tokens if position is None else position[wanted_tokens]
                logits = course.product(head, depth, fill_up(rows))[: len(rows)].float()
                check_logits(logits)
                scores = logits.gather(1, places.clamp(min=0)[:, None])
                rank = (logits > scores).sum(-1).masked_fill(places < 0, UNKNOWN)
                aligned[depth, index, : len(rank)] = rank
        for index, recording in enumerate(group):
            first = max(0, recording.prompt - 1)
            results.append(aligned[:, index, first : len(recording) - 2].cpu().numpy())
    return results


def shared_ranks(head: Head, course: Course, recordings: Sequence[Recording], depths: int) -> list[np.ndarray]:
    """Return what `ranks` does, in an order of its own. Each process measures its share of the recordings."""
    return processes.gather(ranks(head, course, processes.share(recordings), depths))


def measure(head: Head, course: Course, recordings: Sequence[Recording], depths: int) -> Acceptance:
    """Measure the acceptance of a head.

    Raises:
        ValueError: no answer is long enough.
    """
    return summary(ranks(head, course, recordings, depths))


def summary(ranked: Sequence[np.ndarray]) -> Acceptance:
    """Sum up the ranks of texts, [K, R] each.

    Raises:
        ValueError: no answer is long enough.
    """
    texts = [text for text in ranked if text.shape[1]]
    if not texts:
        raise ValueError("no held-out answer has a token to draft")
    everything = np.concatenate(texts, 1)
    depths = len(everything)
    return Acceptance(
        tokens=everything.shape[1],
        by_depth=tuple(_given_the_path(texts, depth) for depth in range(depths)),
        by_rank=tuple(float((everything[0] == rank).mean()) for rank in range(RANKS)),
        chain=tokens_per_step(texts, Tree.chain(min(CHAIN, depths) + 1)),
        tree=_tree_of_other_half(texts),
        unknown=float((everything[0] == UNKNOWN).mean()),
        rates=tuple(_by_rank(texts, depth) for depth in range(depths)),
    )


def _given_the_path(texts: Sequence[np.ndarray], depth: int) -> float:
    """Return how often the first choice at a depth is right if those before were."""
    tried = right = 0
    for text in texts:
        whole = text[:, : max(0, text.shape[1] - depth)]
        path = (whole[:depth] == 0).all(0)
        tried += int(path.sum())
        right += int((path & (whole[depth] == 0)).sum())
    return right / max(1, tried)


def _by_rank(texts: Sequence[np.ndarray], depth: int) -> tuple[float, ...]:
    """Return how often the token of each rank is right at a depth. The last roots of a text have none so deep."""
    choices = np.concatenate([text[depth, : max(0, text.shape[1] - depth)] for text in texts])
    return tuple(round(float((choices == rank).mean()), 4) if len(choices) else 0.0 for rank in range(RANKS))


def tokens_per_step(texts: Sequence[np.ndarray], tree: Tree) -> float:
    """Return the tokens that a step gives if a tree is drafted from each pending token, and greedy decoding decides."""
    steps = tokens = 0
    for text in texts:
        start, roots = 0, text.shape[1]
        while start < roots:
            slot = depth = 0
            while depth < len(text) and start + depth < roots and text[depth, start] < len(tree.children[slot]):
                slot = tree.children[slot][text[depth, start]]
                depth += 1
            steps += 1
            tokens += min(depth + 1, roots - start)
            start += depth + 1
    return tokens / steps


def _tree_of_other_half(texts: Sequence[np.ndarray]) -> float:
    """Choose a tree by one half of the texts and measure it on the other, both ways."""
    halves = [texts[::2], texts[1::2] or texts[::2]]
    values = []
    for ours, theirs in (halves, halves[::-1]):
        rates = [_by_rank(theirs, depth) for depth in range(len(theirs[0]))]
        values.append(tokens_per_step(ours, Tree.by_depth(rates, TREE)))
    return sum(values) / len(values)
