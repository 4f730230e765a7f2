"""A session whose answers are written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from specc.runtime.sampling_defaults import PLAIN_GREEDY
from specc.runtime.stats import Stats
from specc.runtime.stream import Generation


class SessionOfAnswers:
    """A session that decodes nothing: it looks its answers up, and notes what it is asked for.

    Args:
        answers: tokens by recipe and prompt.
        stats: fields of every answer's `Stats`.
    """

    def __init__(self, answers: Mapping[str, Mapping[Any, list[int]]], **stats: Any) -> None:
        self.answers, self.stats = answers, stats
        self.requests: list[tuple[tuple[int, ...], int, str, bool]] = []

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        *,
        recipe: str,
        guard: bool = True,
        exact: bool | str = False,
        **choice: Any,
    ) -> Generation:
        """Return the answer of this recipe to this prompt. A plain answer through a width is that of `plain/WIDTH`.

        What is written down is greedy, by the model's own logits: the model's defaults must be off.
        """
        assert choice == PLAIN_GREEDY
        recipe = f"{recipe}/{exact}" if isinstance(exact, str) else recipe
        self.requests.append((tuple(prompt), max_new_tokens, recipe, guard))
        tokens = self.answers[recipe][tuple(prompt)]
        stats = Stats(recipe=recipe, new_tokens=len(tokens), **self.stats)
        return Generation(text="", token_ids=tokens, finish_reason="length", stats=stats)
