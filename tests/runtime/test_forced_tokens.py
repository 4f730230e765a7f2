"""The drafter of forced tokens: chains, trees, the room that is left, and who observes."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from typing import Any

import numpy as np
import pytest
from toys import World
from toys import propose as next_draft

from specc.runtime.acceptance.recursive import recursive
from specc.runtime.acceptance.speculative import speculative
from specc.runtime.block import Block, Parents
from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.drafters import Drafting
from specc.runtime.drafters.plain import Plain
from specc.runtime.engine import Engine
from specc.runtime.forced_tokens import ForcedTokens
from specc.runtime.processors import Processing, Processor
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Cache, Sequence
from specc.runtime.tree import Tree

TREE = Tree.from_paths([(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)])
SIZE = 24


class Inner(Drafting[Any]):
    """A drafting of one token, which counts what it observes."""

    observed = 0

    def draft(self, room: int) -> Draft:
        return Draft.chain([self.seq.pending, 20])

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        self.observed += 1


class Forces(Processor):
    """A processor that forces the tokens that it has."""

    option, looks_ahead = "forces", True

    def __init__(self, *tokens: int) -> None:
        self.tokens = tokens

    def __call__(self, path: Tokens[int], logits_V: np.ndarray) -> None: ...

    def forced(self) -> Tokens[int]:
        return self.tokens


def engines(*topologies: Tree | Parents) -> list[Engine]:
    world = World()
    return [world.engine(Block(topology)) for topology in topologies]


def propose(
    verifiers: list[Engine], *tokens: int, limit: int = 99, sample: bool = False, temperature: float = 0.0
) -> Draft:
    cache = Cache(World().cache.store, [1, 2])
    processing = Processing(SIZE, [Forces(*tokens)])
    seq = Sequence([1, 2, 3], {"target": cache}, Sampling(temperature), limit, processing)
    return next_draft(ForcedTokens(Inner(Plain(), seq), verifiers, sample))


def test_forced_tokens_are_a_chain_that_the_widest_engine_holds() -> None:
    verifiers = engines(Tree.chain(1), Tree.chain(3), Tree.chain(5))
    assert propose(verifiers, 7, 8) == Draft.chain([3, 7, 8])
    assert propose(verifiers, 7, 8, 9, 10, 11, 12) == Draft.chain([3, 7, 8, 9, 10])
    assert propose(engines(Tree.chain(1), Parents(4)), 7, 8, 9, 10) == Draft.chain([3, 7, 8, 9])


def test_no_more_are_drafted_than_there_is_room_for() -> None:
    assert propose(engines(Tree.chain(8)), 7, 8, 9, limit=6) == Draft.chain([3, 7, 8])


def test_where_nothing_is_forced_or_no_token_fits_the_drafter_drafts() -> None:
    assert propose(engines(Tree.chain(8))) == Draft.chain([3, 20])
    assert propose(engines(Tree.chain(8)), 7, limit=4) == Draft.chain([3, 20])


def test_the_slots_of_a_baked_tree_get_the_token_of_their_depth() -> None:
    verifiers = engines(Tree.chain(1), TREE)
    assert propose(verifiers, 7, 8, 9) == Draft((3, 7, 7, 8, 8, 8, 9), TREE)
    assert propose(verifiers, 7) == Draft((3, 7, 7, 3, 3, 3, 3), TREE)


@pytest.mark.parametrize("topology", [Tree.chain(4), TREE])
def test_a_rule_that_compares_distributions_gets_one_that_is_certain(topology: Tree) -> None:
    assert propose(engines(topology), 7, 8, sample=True).probs == {}
    draft = propose(engines(topology), 7, 8, sample=True, temperature=1.0)
    for slot, children in enumerate(draft.tree.children):
        assert all(draft.probs[slot][draft.tokens[child]] == 1.0 for child in children)
    assert all(probs_V.sum() == 1.0 for probs_V in draft.probs.values())


@pytest.mark.parametrize(("topology", "accept"), [(Tree.chain(3), speculative), (TREE, recursive)])
def test_the_rules_accept_what_the_target_is_certain_of(topology: Tree, accept: Any) -> None:
    draft = propose(engines(topology), 7, 8, sample=True, temperature=1.0)
    logits_NV = np.full((draft.tree.slots, SIZE), -np.inf, np.float32)
    for slot, depth in enumerate(draft.tree.depth.tolist()):
        logits_NV[slot, [7, 8, 9, 10][depth]] = 0.0
    accepted = accept(draft, Verified(Outputs(logits_NV.argmax(-1).data, logits_NV), Sampling(1.0), draft.tree))
    assert [draft.tokens[slot] for slot in accepted.slots] == [3, 7, 8] and accepted.token == 9


def test_the_drafter_observes_its_own_drafts_alone() -> None:
    processor, cache = Forces(7), Cache(World().cache.store, [1, 2])
    seq = Sequence([1, 2, 3], {"target": cache}, processing=Processing(SIZE, [processor]))
    inner = Inner(Plain(), seq)
    drafting = ForcedTokens(inner, engines(Tree.chain(4)))
    verified = Verified(Outputs(np.zeros(4, np.int64).data), Sampling())
    for count, tokens in enumerate([(), (7,), ()]):
        processor.tokens = tokens
        draft = next_draft(drafting)
        drafting.observe(draft, verified, Accepted((0,), 1))
        assert inner.observed == [1, 1, 2][count]
