"""Measure what a grammar costs in each step, as a share of the step's processor time.

    python benchmarks/bench_grammar.py build/demo.specc                    # every recipe that verifies several slots
    python benchmarks/bench_grammar.py build/demo.specc --recipe cascade

Each recipe answers by one JSON schema, several times. The processor time inside the request's processors is compared
with all processor time of the request, from the first token on, in one run. So another process on the machine changes
neither. The first answer is left out: llguidance fills its caches with it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import specc
from specc.runtime.model import Model
from specc.runtime.processors import ProcessedDraft, Processing

PROMPT = "def describe_person(name, age, city):\n    return "
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z][a-z]{2,9} [A-Z][a-z]{2,9}$"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{2,9}$"}, "minItems": 2, "maxItems": 4},
        "city": {"enum": ["Paris", "London", "Tokyo"]},
        "active": {"type": "boolean"},
    },
    "required": ["name", "age", "tags", "city", "active"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}
TIMED = {ProcessedDraft: ("logits", "likeliest"), Processing: ("of", "commit", "cut", "forced")}


class Clock:
    """A clock of the processor time inside the methods of `Processing`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def watch(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method with its time counted."""

        def timed(*arguments: Any) -> Any:
            start = time.process_time()
            try:
                return method(*arguments)
            finally:
                self.seconds += time.process_time() - start

        return timed


def measure(session: Model, recipe: str, rounds: int, clock: Clock, temperature: float) -> str:
    """Answer `rounds` times by a recipe, and describe what the grammar took.

    Args:
        session: the bundle, loaded.
        recipe: the recipe.
        rounds: how many answers count.
        clock: the clock of the processors.
        temperature: of the answers; 0 is greedy.
    """
    inside = whole = 0.0
    steps = tokens = 0
    for i in range(1 + rounds):
        stream = session.stream(
            PROMPT, 120, recipe=recipe, json_schema=SCHEMA, guard=False, temperature=temperature, seed=i
        )
        next(stream)
        clock.seconds, start = 0.0, time.process_time()
        stats = stream.rest().stats
        if i:
            whole += time.process_time() - start
            inside += clock.seconds
            steps, tokens = steps + stats.target_calls, tokens + stats.new_tokens
    share, each = inside / whole, 1e6 * inside / steps
    return f"{recipe:22}{share:6.1%}{each:7.0f} us of {1e3 * whole / steps:5.2f} ms a step{tokens / steps:6.2f} tokens"


def main() -> None:
    """Print a line for each recipe."""
    parser = argparse.ArgumentParser(description="what a grammar costs in each step")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--recipe", action="append", help="a recipe; may be repeated (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=0.0, help="of the answers (default: 0, greedy)")
    options = parser.parse_args()
    clock = Clock()
    for owner, names in TIMED.items():
        for name in names:
            setattr(owner, name, clock.watch(getattr(owner, name)))
    with specc.load(options.bundle, threads=1) as session:
        for recipe in options.recipe or [r.name for r in session.bundle.manifest.recipes]:
            print(measure(session, recipe, options.rounds, clock, options.temperature), flush=True)


if __name__ == "__main__":
    main()
