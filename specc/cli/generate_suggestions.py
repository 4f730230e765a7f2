"""Several short texts that may follow a prompt: `specc generate --suggestions`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specc.cli import console

if TYPE_CHECKING:
    from specc.runtime.session import Session
    from specc.runtime.text import Prompt


def show_suggestions(
    session: Session, prompt: Prompt, count: int, max_new_tokens: int, recipe: str | None, *, json: bool
) -> None:
    """Print the likeliest texts, or JSON. A line holds one text, whose own line breaks are escaped.

    Args:
        session: the conversation.
        prompt: the prompt.
        count: how many texts at most.
        max_new_tokens: tokens of a text at most.
        recipe: a recipe that suggests; None is the first one of the bundle.
        json: whether to print JSON.
    """
    ends = session.bundle.manifest.model.eos_token_ids
    rows = []
    for suggestion in session.suggest(prompt, max_new_tokens, recipe=recipe)[:count]:
        end = next((place for place, token in enumerate(suggestion.tokens) if token in ends), len(suggestion.tokens))
        tokens = suggestion.tokens[:end]
        rows.append(
            {"text": session.text.decode(tokens), "token_ids": list(tokens), "score": round(suggestion.score, 4)}
        )
    if json:
        console.emit({"suggestions": rows, "lossless": False})
        return
    for row in rows:
        print(str(row["text"]).replace("\n", "\\n"))
