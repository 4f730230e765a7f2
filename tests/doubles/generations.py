"""A session whose answers are written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
        temperature: float,
        guard: bool = True,
        exact: bool | str = False,
    ) -> Generation:
        """Return the answer of this recipe to this prompt. A plain answer through a width is that of `plain/WIDTH`.

        What is written down is greedy.
        """
        assert temperature == 0
        recipe = f"{recipe}/{exact}" if isinstance(exact, str) else recipe
        self.requests.append((tuple(prompt), max_new_tokens, recipe, guard))
        tokens = self.answers[recipe][tuple(prompt)]
        stats = Stats(recipe=recipe, new_tokens=len(tokens), **self.stats)
        return Generation(text="", token_ids=tokens, finish_reason="length", stats=stats)
