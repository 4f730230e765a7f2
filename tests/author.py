"""A double of `specc.training.answers.answer` that writes sentences of random words."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from specc.training.answers import Answer

WORDS = ["why", "how", "tree", "house", "river", "stone", "green", "quick", "seven", "write", "list", "sort", "read"]


class Author:
    """An author of turns. It takes the arguments of `answer`.

    Attributes:
        words: what its turns are made of.
        tail: comes behind the words.
        end: the tokens behind each turn.
        calls: how often it was asked.
        starts: the text of each prompt that it got.
        texts: for each call, the tokens of the longest prompt, and those that may stand behind a prompt.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.words, self.tail, self.end, self.calls = WORDS, "", [0], 0
        self.starts: list[str] = []
        self.texts: list[tuple[int, int]] = []

    def __call__(
        self, model: Any, prompts: Sequence[Sequence[int]], *, seed: int, count: int, **others: Any
    ) -> list[Answer]:
        self.calls += 1
        self.texts.append((max(map(len, prompts)), count))
        rng = random.Random(seed)
        return [self._answer(prompt, rng) for prompt in prompts]

    def _answer(self, prompt: Sequence[int], rng: random.Random) -> Answer:
        self.starts.append(self.tokenizer.decode(prompt))
        text = " " + " ".join(rng.choices(self.words, k=9)) + self.tail
        tokens = [*prompt, *self.tokenizer(text, add_special_tokens=False)["input_ids"], *self.end]
        return Answer(tokens=tokens, prompt=len(prompt), states=torch.zeros(0, 0), final=torch.zeros(0, 0))
