"""TR-Jacobi: the answers of the last step fill the tree, and one branch is copied."""

from __future__ import annotations

import numpy as np
import pytest
from toys import Circle, World, prompts, propose

from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.drafters.tr_jacobi import TrJacobi, with_chain
from specc.runtime.errors import RecipeError
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Cache, Sequence

TREE = with_chain((-1, 0, 0, 1), 3)  # two children, one grandchild, and a chain of three


def test_the_branch_that_tr_jacobi_retrieves_is_accepted_alone_on_text_that_repeats() -> None:
    """With a tree of guesses that is as small as can be."""
    decoder = World(9, Circle).method("tr-jacobi", num_speculative_tokens=1, retrieved_tokens=5)
    tokens, accepted = decoder.run([*range(9), *range(4)], 40)
    assert tokens == [(4 + i) % 9 for i in range(40)] and accepted >= 5 * (40 // 6 - 1)


def test_without_a_match_guesses_are_accepted_too() -> None:
    decoder = World().method("tr-jacobi")
    assert sum(decoder.run(prompt, 100)[1] for prompt in prompts(4, seed=2)) > 20


def test_the_chain_is_what_followed_and_the_tree_what_the_target_answered() -> None:
    tokens = [4, 5, 6, 7, 8, 4, 5]
    seq = Sequence(tokens, {"target": Cache(World().cache.store, tokens[:-1])})
    drafting = TrJacobi(TREE, retrieved_tokens=3).open(seq)
    draft = propose(drafting)
    assert draft.tree.parents == TREE == (-1, 0, 0, 1, 0, 4, 5)
    assert draft.tokens[4:] == (6, 7, 8) and set(draft.tokens[1:4]) <= set(tokens)
    drafting.answers = [[1, 2], [3]]
    assert propose(drafting).tokens == (5, 1, 2, 3, 6, 7, 8)


def test_a_step_on_an_engine_without_ranks_leaves_no_answers() -> None:
    """The guard's narrow engine runs a draft of which a grammar left one slot."""
    drafting = TrJacobi(TREE, retrieved_tokens=3).open(Sequence([4], {"target": Cache(World().cache.store)}))
    drafting.answers = [[1, 2], [3]]
    drafting.observe(Draft.chain([4]), Verified(Outputs(np.array([5]).data), Sampling()), Accepted((0,), 5))
    assert drafting.answers == []


def test_a_tree_that_ends_otherwise_is_refused() -> None:
    for tree, chain in (((-1, 0, 1), 3), ((-1, 0, 0, 1, 2), 2)):
        with pytest.raises(RecipeError, match=f"template does not end with a chain of {chain} slots"):
            TrJacobi(tree, retrieved_tokens=chain)
