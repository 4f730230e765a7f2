"""A static tree by a recurrent head: a level a call, and the tokens before each slot in its state."""

from __future__ import annotations

import numpy as np
import pytest
from toys import World, prompts

from specc.recipes import METHODS, Facts
from specc.runtime.call import Call
from specc.runtime.draft import Draft
from specc.runtime.drafters import Proposal
from specc.runtime.drafters.chimera import BASE, DIGITS, Chimera, digits_of, with_tokens
from specc.runtime.errors import RecipeError, TreeError
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Sequence
from specc.runtime.tree import Tree

TEXT = prompts(1, seed=3)[0] * 2
PATHS = [(0,), (1,), (2,), (0, 0), (0, 1), (1, 0), (2, 0), (0, 0, 0), (1, 0, 0)]


def test_every_draft_fills_the_tree_in_a_call_a_level_but_the_first_and_the_last() -> None:
    """The first level comes with the call that runs the accepted tokens, and the last one is not run."""
    decoder = World().method("chimera", tree=PATHS)
    drafts = list(decoder.drafts(TEXT, steps=12))[1:]
    assert {draft.tree for draft, _ in drafts} == {Tree.from_paths(PATHS)}
    assert {calls for _, calls in drafts} <= {2, 3}  # A call may also run the accepted token alone.
    for draft, _ in drafts:
        siblings = list(zip(draft.tree.parents, draft.tokens, strict=True))
        assert len(set(siblings)) == len(siblings)


def test_a_level_with_more_parents_than_slots_takes_two_calls() -> None:
    paths = [(rank,) for rank in range(6)] + [(rank, 0) for rank in range(6)]
    drafts = list(World().method("chimera", tree=paths).drafts(TEXT, steps=12))[1:]
    assert min(calls for _, calls in drafts) == 2


def test_a_text_of_one_token_has_no_draft() -> None:
    (draft, calls), *_ = World().method("chimera").drafts([3], steps=1)
    assert len(draft.tokens) == 1 and calls == 0


def test_a_tree_that_is_none_is_refused_before_the_engines_are_looked_at() -> None:
    engine = World().prefill
    with pytest.raises(TreeError, match="not a tree"):
        Chimera(engine, engine, engine, [0, 1])


@pytest.mark.parametrize("tree", [[(8,)], [(0,), (0, 9)]])
def test_a_rank_that_the_head_does_not_return_is_refused(tree: list[tuple[int, ...]]) -> None:
    method, paths = METHODS["chimera"], [(rank,) for rank in range(9)]
    with pytest.raises((RecipeError, TreeError)):
        method.plan(method.settle({"tree": tree}), Facts(4, 24))
    with pytest.raises(RecipeError, match="rank 8; chimera has 8"):
        method.plan(method.settle({"tree": paths}), Facts(4, 24))


def test_a_token_is_what_its_digits_say() -> None:
    tokens = np.array([0, 1, 127, 128, 300_000, BASE**DIGITS - 1])
    digits = digits_of(tokens)
    assert digits.max() < BASE and (digits @ BASE ** np.arange(DIGITS) == tokens).all()
    assert with_tokens(np.ones((1, 8), np.float32), [(130, 5)]).tolist() == [[1, 1, 2, 1, 0, 5, 0, 0]]


def test_the_state_of_every_slot_names_the_two_tokens_before_its_own() -> None:
    """A drafted slot names its parent and its parent's parent. A row of the text names the two tokens before it."""
    world = World()
    decoder = world.method("chimera", tree=PATHS)
    seq = Sequence(list(TEXT), world.caches, Sampling())
    next(decoder.steps(seq))
    text = list(seq.tokens)
    calls, draft = run(decoder.open(seq).drafting.propose(seq.room))
    rows = len(calls[0].tokens)
    assert trigrams_of(calls[0]) == [tuple(text[end - 3 : end]) for end in range(len(text) - rows + 1, len(text) + 1)]
    paths = [[draft.tokens[above] for above in np.flatnonzero(row)] for row in draft.tree.mask]
    right = {tuple([*text[:-1], *path][-3:]) for path in paths}
    drafted = [trigram for call in calls[1:] for trigram in trigrams_of(call)]
    assert len(drafted) > 2 and set(drafted) <= right


def trigrams_of(call: Call) -> list[tuple[int, ...]]:
    """Return what a call's slots read: the second token before, the last one, and the slot's own."""
    digits = call.inputs["state"][:, -2 * DIGITS :].reshape(-1, 2, DIGITS)
    before = (digits @ BASE ** np.arange(DIGITS)).astype(int).tolist()
    return [(second, last, token) for token, (last, second) in zip(call.tokens, before, strict=True)]


def run(proposal: Proposal) -> tuple[list[Call], Draft]:
    """Run the calls of a proposal. Return them, and the draft."""
    calls: list[Call] = []
    try:
        call = next(proposal)
        while True:
            calls.append(call)
            call = proposal.send(call.run())
    except StopIteration as stop:
        return calls, stop.value
