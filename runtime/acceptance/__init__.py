"""Acceptance rules: each decides which slots of a draft to commit. One rule a file, one function a rule.

All randomness of a rule comes from `verified.rng` and `verified.choose`, so a test can enumerate every outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import partial, update_wrapper
from typing import Any, Protocol, cast, runtime_checkable

from ..draft import Accepted, Draft, Verified
from ..errors import RecipeError, nearest
from ..tree import Tree

Range = tuple[float, float]  # The least and the largest value of a parameter.


class Keeps(StrEnum):
    """A promise of an acceptance rule: what its output shares with plain decoding of one request, for any drafts."""

    TOKENS = "tokens"  # Greedy and sampled answers have the tokens of plain decoding.
    DISTRIBUTION = "distribution"  # Samples have the distribution of plain decoding; greedy answers have its tokens.
    NOTHING = "nothing"  # Answers may differ from those of plain decoding.


@runtime_checkable
class Acceptance(Protocol):
    """A function that decides which slots of a draft to commit, marked by `rule`.

    Attributes:
        needs_draft_probs: whether the rule reads `draft.probs`, the distributions that the draft was sampled from.
            Such a rule needs a drafter that can sample.
        needs_draft_logits: whether it reads `draft.logits`, those of the drafter's model after each slot. Such a rule
            needs a drafter that can keep them.
        needs_all_logits: whether it reads those after every slot, also after the last one.
        needs_draft_difference: whether it reads, of the last slot, the logits of one model less those of another.
        needs_replacement: whether it needs siblings that were drawn independently, with replacement. Rules that read
            `draft.probs` otherwise need siblings that were drawn without it.
        needs_chain: whether it is for chains alone, and refuses trees.
        needs_head: the trained head whose states it reads; empty for none.
        keeps: what it keeps of plain decoding.
        obeys_processors: whether it accepts no token that a processor forbids, such as a grammar.
        matches_if_greedy: whether it is `match` at temperature 0, so that it then keeps the tokens of plain decoding.
        ranges: the rule's parameters: keyword arguments of the function that are numbers, and their ranges.
    """

    __name__: str
    needs_draft_probs: bool
    needs_draft_logits: bool
    needs_all_logits: bool
    needs_draft_difference: bool
    needs_replacement: bool
    needs_chain: bool
    needs_head: str
    keeps: Keeps
    obeys_processors: bool
    matches_if_greedy: bool
    ranges: Mapping[str, Range]

    def __call__(self, draft: Draft, verified: Verified) -> Accepted:
        """Return a path of the draft's tree from slot 0, and the token that the target chose after it."""


def rule(
    *,
    needs_draft_probs: bool = False,
    needs_draft_logits: bool = False,
    needs_all_logits: bool = False,
    needs_draft_difference: bool = False,
    needs_replacement: bool = False,
    needs_chain: bool = False,
    needs_head: str = "",
    keeps: Keeps = Keeps.NOTHING,
    obeys_processors: bool = True,
    matches_if_greedy: bool = False,
    **ranges: Range,
) -> Callable[[Callable[..., Accepted]], Acceptance]:
    """Return a decorator that marks a function as an acceptance rule.

    Args:
        needs_draft_probs: whether the function reads `draft.probs`.
        needs_draft_logits: whether it reads `draft.logits`.
        needs_all_logits: whether it reads those after every slot, also after the last one.
        needs_draft_difference: whether it reads, of the last slot, the logits of one model less those of another.
        needs_replacement: whether it needs siblings that were drawn with replacement.
        needs_chain: whether it is for chains alone, and refuses trees.
        needs_head: the trained head whose states it reads; empty for none.
        keeps: what it keeps of plain decoding. A rule that says nothing keeps nothing.
        obeys_processors: whether it accepts no token that a processor forbids.
        matches_if_greedy: whether it is `match` at temperature 0.
        ranges: the range of each keyword argument that a recipe may set. The function has a default for each.
    """

    def mark(function: Callable[..., Accepted]) -> Acceptance:
        acceptance = cast(Acceptance, function)
        acceptance.needs_draft_probs, acceptance.needs_draft_logits = needs_draft_probs, needs_draft_logits
        acceptance.needs_draft_difference = needs_draft_difference
        acceptance.needs_replacement, acceptance.needs_chain = needs_replacement, needs_chain
        acceptance.needs_all_logits, acceptance.needs_head = needs_all_logits, needs_head
        acceptance.keeps, acceptance.ranges = keeps, ranges
        acceptance.obeys_processors, acceptance.matches_if_greedy = obeys_processors, matches_if_greedy
        return acceptance

    return mark


def longest_path(tree: Tree, takes: Callable[[int, tuple[int, ...]], Iterable[int]]) -> tuple[int, ...]:
    """Return the longest path of a tree from slot 0 on; of several with one length, the first.

    Args:
        tree: the tree.
        takes: returns those children of a slot by which a path may go on. It is called with the slot and its children.
    """
    paths: list[tuple[int, ...]] = [(0,)]
    children = tree.children
    while True:
        ends = [path for path in paths if children[path[-1]]]
        longer = [(*path, child) for path in ends for child in takes(path[-1], children[path[-1]])]
        if not longer:
            return paths[0]
        paths = longer


def with_parameters(acceptance: Acceptance, parameters: Mapping[str, Any]) -> Acceptance:
    """Return a rule with values of its parameters. A manifest gives them, which a stranger may have written.

    Raises:
        RecipeError: the rule has no such parameter, or a value is not a number in its range.
    """
    for name, value in parameters.items():
        if name not in acceptance.ranges:
            remedy = nearest(name, acceptance.ranges, f"it has {', '.join(acceptance.ranges) or 'none'}")
            raise RecipeError(f"acceptance {acceptance.__name__} has no parameter {name!r}; {remedy}")
        least, most = acceptance.ranges[name]
        if type(value) not in (int, float) or not least <= value <= most:
            raise RecipeError(f"{name} of acceptance {acceptance.__name__} is {value!r}; give {least:g} to {most:g}")
    if not parameters:
        return acceptance
    bound = partial(acceptance, **parameters)
    update_wrapper(bound, acceptance)  # It copies the name and the marks.
    return cast(Acceptance, bound)
