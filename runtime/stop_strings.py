"""Find strings in a text that grows, at a cost for each character that does not depend on the strings.

The algorithm is that of Aho & Corasick 1975, "Efficient string matching": a tree of all beginnings of the strings, in
which each node knows the longest other beginning that ends like it.
"""

from __future__ import annotations

from collections.abc import Sequence

from .errors import PromptError, check_unicode

MOST_STRINGS, MOST_CHARACTERS = 1000, 100_000  # of a request. A tree of all takes 30 MB while it is made.


def check_stop_strings(stops: Sequence[str]) -> None:
    """Check the stop strings of a request.

    Raises:
        PromptError: there are too many, all together are too long, or one is empty or not text.
    """
    if len(stops) > MOST_STRINGS:
        raise PromptError(f"there are {len(stops)} stop strings; give at most {MOST_STRINGS}")
    for stop in stops:
        if not isinstance(stop, str):
            raise PromptError(f"the stop string {stop!r} is not text; give text, or stop_token_ids")
        if not stop:
            raise PromptError("a stop string is empty; leave it out")
        check_unicode(stop, "a stop string")
    characters = sum(map(len, stops))
    if characters > MOST_CHARACTERS:
        raise PromptError(f"the stop strings have {characters} characters; give at most {MOST_CHARACTERS} in all")


class StopStrings:
    """The stop strings of an answer, and how much of one the end of its text is.

    Attributes:
        strings: the stop strings.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        """Build the tree. Node 0 is the empty beginning."""
        self.strings = strings
        self._children: dict[tuple[int, str], int] = {}
        self._depth, self._ends, self._shorter = [0], [False], [0]
        self._node = 0  # The text ends with this beginning of a stop string, and with no longer one.
        parents = [(0, "")]  # of each node, with the character between
        for string in strings:
            node = 0
            for depth, character in enumerate(string, 1):
                child = self._children.get((node, character))
                if child is None:
                    child = self._children[node, character] = len(self._depth)
                    self._depth.append(depth)
                    self._ends.append(False)
                    parents.append((node, character))
                node = child
            self._ends[node] = True
        self._shorter *= len(parents)
        for node in sorted(range(1, len(parents)), key=self._depth.__getitem__):
            parent, character = parents[node]
            if parent:
                self._shorter[node] = self._follow(self._shorter[parent], character)
            self._ends[node] |= self._ends[self._shorter[node]]

    @property
    def overlap(self) -> int:
        """How many characters at the end of the text are the beginning of a stop string."""
        return self._depth[self._node]

    def add(self, text: str) -> bool:
        """Add a piece to the text, and tell whether a stop string ends in it. Then no other piece may follow."""
        for character in text:
            self._node = self._follow(self._node, character)
            if self._ends[self._node]:
                return True
        return False

    def first(self, text: str) -> tuple[int, str]:
        """Return where the first stop string of a text begins, and which one: the shortest one that begins there."""
        return min((text.index(string), string) for string in self.strings if string in text)

    def _follow(self, node: int, character: str) -> int:
        """Return the longest beginning that a node's text and a character end with."""
        child = self._children.get((node, character))
        while child is None and node:
            node = self._shorter[node]
            child = self._children.get((node, character))
        return child or 0
