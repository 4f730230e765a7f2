"""The words of the axes with what each means and what goes with it, for users who write a recipe file. No torch."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from specc.recipes.axes import LENGTHS, RULES, SCHEDULES, TOPOLOGIES, drafters, lengths_for, rules_for, topologies
from specc.recipes.entry import Method
from specc.runtime.method import load_acceptance, load_drafter


@dataclass(frozen=True)
class Word:
    """A word of an axis.

    Attributes:
        name: the word.
        help: what it means, in one sentence or a part of one.
        goes_with: what a recipe may have beside it, by kind: `topologies`, `lengths`, `rules`, `parameters`,
            `drafters`, `recipes`.
    """

    name: str
    help: str
    goes_with: Mapping[str, tuple[str, ...]]


def axis_words(methods: Mapping[str, Method]) -> dict[str, list[Word]]:
    """Return the words of each axis.

    A word goes with another one if a recipe of the table has both, or if a recipe file may choose both.

    Args:
        methods: the table.

    Returns:
        The words of `drafters`, `topologies`, `lengths`, `acceptance rules` and `schedules`.
    """
    groups = drafters(methods)
    shapes = {name: tuple(topologies(methods, name)) for name in groups}
    lengths = {name: _each(lengths_for(m) for m in group) for name, group in groups.items()}
    rules = {name: _each(rules_for(m, methods) for m in group) for name, group in groups.items()}
    return {
        "drafters": [
            Word(
                name,
                _first_line(load_drafter(name)),
                {
                    "topologies": shapes[name],
                    "lengths": lengths[name],
                    "rules": rules[name],
                    "recipes": tuple(m.name for m in group),
                },
            )
            for name, group in groups.items()
        ],
        "topologies": [Word(name, text, {"drafters": _having(shapes, name)}) for name, text in TOPOLOGIES.items()],
        "lengths": [
            Word(name, axis.help, {"parameters": tuple(axis.parameters or ()), "drafters": _having(lengths, name)})
            for name, axis in LENGTHS.items()
        ],
        "acceptance rules": [
            Word(name, _first_line(rule), {"parameters": tuple(rule.ranges), "drafters": _having(rules, name)})
            for name, rule in ((name, load_acceptance(name)) for name in RULES)
        ],
        "schedules": [
            Word(name, text, {"recipes": tuple(m.name for m in methods.values() if m.schedule == name)})
            for name, text in SCHEDULES.items()
        ],
    }


def _having(words: Mapping[str, tuple[str, ...]], word: str) -> tuple[str, ...]:
    """Return the drafters among whose words is one."""
    return tuple(drafter for drafter, each in words.items() if word in each)


def _each(lists: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Return the words of some lists, each once."""
    return tuple(dict.fromkeys(word for words in lists for word in words))


def _first_line(code: object) -> str:
    """Return the first line of a docstring, without its full stop."""
    return (inspect.getdoc(code) or "").partition("\n")[0].removesuffix(".")
