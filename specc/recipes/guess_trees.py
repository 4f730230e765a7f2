"""Trees for slots that guess: which tokens are drafted, and how many guesses stand behind each of them.

A step drafts as many levels as the accepted slot of the step before had guesses. That number is the state of the step,
and each state has a tree of its own. The states are a Markov chain, whose stationary distribution tells how many tokens
a step gives. The algorithm is that of Parallel Prompt Decoding (Chen et al. 2024, arXiv:2405.18628).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from specc.runtime.block import GuessTree
from specc.runtime.tree import Tree

Rates = Sequence[Sequence[float]]  # By depth and rank, how often a guess is the model's token if the path before is.
ROUNDS = 200  # of the Markov chain, from which its distribution no longer changes


@dataclass(frozen=True)
class StateTree:
    """The tree of a state.

    Attributes:
        tree: the tokens.
        guesses: by token, how many guesses stand behind it.
    """

    tree: Tree
    guesses: tuple[int, ...]

    def topology(self, head: str) -> GuessTree:
        """Return the topology of the engine that runs this tree."""
        parents = list(self.tree.parents)
        for token, count in enumerate(self.guesses):
            last = token
            for _ in range(count):
                parents.append(last)
                last = len(parents) - 1
        return GuessTree(tuple(parents), self.tree.slots, head)

    def last(self, rates: Rates) -> list[float]:
        """Return for each token the chance that it is the last one to be accepted."""
        reach = reaches(self.tree, rates)
        return [
            chance - sum(reach[child] for child in children)
            for chance, children in zip(reach, self.tree.children, strict=True)
        ]


def reaches(tree: Tree, rates: Rates) -> list[float]:
    """Return for each slot of a tree the chance that it is accepted."""
    chances = [1.0]
    for slot in range(1, tree.slots):
        depth, rank = int(tree.depth[slot]) - 1, tree.rank[slot]
        chances.append(chances[tree.parents[slot]] * rates[depth][rank])
    return chances


def state_trees(rates: Rates, nodes: int, guess_slots: int) -> list[StateTree]:
    """Return the tree of each state: of no guess, of one, and so on.

    First all tokens have all guesses. Then the guess goes whose loss is the least, until so many are left: the chance
    that its token is the last to be accepted, times the tokens that the deeper tree of the next step would give more.

    Args:
        rates: of the guesses.
        nodes: tokens of a tree at most, the pending one not counted.
        guess_slots: guesses of a tree at most.
    """
    depth = len(rates)
    trees = [Tree.by_depth(rates[:state], 1 + nodes) for state in range(1 + depth)]
    gains = [sum(reaches(tree, rates)) for tree in trees]
    states = []
    for tree in trees:
        guesses = [depth] * tree.slots
        last = StateTree(tree, tuple(guesses)).last(rates)
        while sum(guesses) > max(guess_slots, 1):
            losses = [
                (last[token] * (gains[count] - gains[count - 1]), -token)
                for token, count in enumerate(guesses)
                if count
            ]
            guesses[-min(losses)[1]] -= 1
        states.append(StateTree(tree, tuple(guesses)))
    return states


def expected(states: Sequence[StateTree], rates: Rates) -> float:
    """Return the tokens that a step gives in the long run, the model's own included."""
    lasts = [state.last(rates) for state in states]
    share = [1.0, *[0.0] * (len(states) - 1)]
    for _ in range(ROUNDS):
        following = [0.0] * len(states)
        for weight, state, last in zip(share, states, lasts, strict=True):
            for guesses, chance in zip(state.guesses, last, strict=True):
                following[guesses] += weight * chance
        share = following
    return sum(
        weight * chance * (1 + int(state.tree.depth[token]))
        for weight, state, last in zip(share, states, lasts, strict=True)
        for token, chance in enumerate(last)
    )
