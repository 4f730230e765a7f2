"""What a request does with logits: its processors in order, the cut of drafts, and what is left to choose from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from language import Language, deviation, language, path_to, sampled_chain, sampled_tree
from thorough import sample
from toys import World

from specc.runtime.acceptance.match import match
from specc.runtime.acceptance.recursive import recursive
from specc.runtime.acceptance.speculative import speculative
from specc.runtime.block import Block, Parents
from specc.runtime.draft import Draft, Outputs
from specc.runtime.engine import Engine
from specc.runtime.errors import PromptError
from specc.runtime.processors import Processing, Processor
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree

TREE = Tree.from_paths([(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)])


class Recorder(Processor):
    """A processor that adds a number to all logits, and keeps what it is called with."""

    option = "recorder"

    def __init__(self, number: float) -> None:
        self.number = number
        self.paths: list[list[int]] = []
        self.tokens: list[int] = []

    def __call__(self, path: Sequence[int], logits_V: np.ndarray) -> None:
        self.paths.append(list(path))
        logits_V += self.number

    def commit(self, tokens: Sequence[int]) -> None:
        self.tokens += tokens


class Only(Processor):
    """A processor that admits some tokens, and forces one if there is no other."""

    option, looks_ahead = "only", True

    def __init__(self, *tokens: int) -> None:
        self.tokens = tokens

    def __call__(self, path: Sequence[int], logits_V: np.ndarray) -> None:
        logits_V[[t for t in range(len(logits_V)) if t not in self.tokens]] = -np.inf

    def truncate(self, tokens: Sequence[int]) -> int:
        return next((i for i, token in enumerate(tokens) if token not in self.tokens), len(tokens))

    def forced(self) -> Sequence[int]:
        return self.tokens if len(self.tokens) == 1 else ()


class Speaks(Processor):
    """A processor that refuses what a language gives no probability."""

    option, looks_ahead = "speaks", True

    def __init__(self, target: Language) -> None:
        self.target = target

    def __call__(self, path: Sequence[int], logits_V: np.ndarray) -> None:
        raise NotImplementedError

    def truncate(self, tokens: Sequence[int]) -> int:
        return next((i for i in range(len(tokens)) if not self.target(tuple(tokens[:i]))[tokens[i]]), len(tokens))


def outputs(slots: int, size: int = 6) -> Outputs:
    logits_NV = np.random.default_rng(0).normal(size=(slots, size)).astype(np.float32)
    return Outputs(logits_NV.argmax(-1).data, logits_NV)


def engines(*topologies: Tree | Parents) -> list[Engine]:
    world = World()
    return [world.engine(Block(topology)) for topology in topologies]


def test_processors_run_in_order_on_a_copy_of_the_row_with_the_path_to_the_slot() -> None:
    first, second = Recorder(1.0), Recorder(2.0)
    rows, draft = outputs(TREE.slots), Draft((0, 1, 2, 3, 4, 5, 1), TREE)
    before = np.array(rows.logits_NV)
    processing = Processing(6, [first, second])
    processed = processing.of(rows, draft)
    assert processed is not None
    for slot in range(TREE.slots):
        assert processed.logits(slot) == pytest.approx(before[slot] + 3.0)
    assert first.paths == second.paths == [list(path_to(draft, slot)) for slot in range(TREE.slots)]
    assert rows.logits_NV is not None and np.array_equal(rows.logits_NV, before)


def test_each_processor_gets_the_new_tokens() -> None:
    first, second = Recorder(0.0), Recorder(0.0)
    processing = Processing(6, [first, second])
    processing.commit(outputs(3), (0, 1), [4, 5])
    processing.commit(outputs(3), (0,), [1])
    assert first.tokens == second.tokens == [4, 5, 1]


def test_if_no_token_is_left_the_options_are_named() -> None:
    processing = Processing(6, [Only(1), Only(2)])
    processing.commit(outputs(1), (0,), [1])
    message = "no token is left after 2 new tokens, by the options only, only; relax one"
    processed = processing.of(outputs(2), Draft.chain([0, 1]))
    assert processed is not None
    for choose in (processed.logits, processed.likeliest):
        with pytest.raises(PromptError, match=message):
            choose(1)


def test_without_processors_nothing_is_processed() -> None:
    assert Processing(6, []).of(outputs(1), Draft.chain([0])) is None


class Allows(Only):
    """A processor that says what it allows, and counts its calls."""

    calls = 0

    def __call__(self, path: Sequence[int], logits_V: np.ndarray) -> None:
        self.calls += 1
        super().__call__(path, logits_V)

    def allows(self, path: Sequence[int], token: int) -> bool:
        return token in self.tokens


@pytest.mark.parametrize("others", [[], [Recorder(1.0)]])
def test_the_likeliest_token_is_the_argmax_and_the_last_processor_runs_only_if_it_refuses_one(
    others: list[Processor],
) -> None:
    rows, draft = outputs(40), Draft.chain([0] * 40)
    last = Allows(0, 1, 2, 3)
    processed, reference = (Processing(6, [*others, p]).of(rows, draft) for p in (last, Only(0, 1, 2, 3)))
    assert processed is not None and reference is not None and rows.logits_NV is not None
    before = rows.logits_NV.copy()
    refused = 0
    for slot in range(40):
        assert processed.likeliest(slot) == reference.likeliest(slot) == int(reference.logits(slot).argmax())
        refused += rows.ids_N[slot] > 3
    assert last.calls == refused and 0 < refused < 40
    assert np.array_equal(rows.logits_NV, before)


def test_a_chain_ends_before_its_first_refused_token_if_a_narrower_engine_runs_it() -> None:
    processing, verifiers = Processing(6, [Only(1, 2)]), engines(Tree.chain(1), Tree.chain(3), Tree.chain(6))
    assert processing.cut(Draft.chain([0, 1, 2, 5, 1, 2]), verifiers) == Draft.chain([0, 1, 2])
    assert processing.cut(Draft.chain([0, 5, 1, 1, 1, 1]), verifiers) == Draft.chain([0])
    for tokens in ([0, 1, 2, 2, 5, 1], [0, 1, 2, 2, 1, 1], [0]):
        assert processing.cut(Draft.chain(tokens), verifiers) == Draft.chain(tokens)


def test_refused_branches_of_a_tree_go_with_all_below_them() -> None:
    processing = Processing(6, [Only(1, 2)])
    draft = Draft((0, 1, 5, 1, 5, 2, 2), TREE)
    assert processing.admitted(draft) == [0, 1, 3, 6]
    assert processing.cut(draft, engines(Parents(8))) == Draft.chain([0, 1, 1, 2])
    sibling = Draft((0, 1, 2, 5, 1, 2, 2), TREE)
    rest = processing.cut(sibling, engines(Parents(8)))
    assert rest == Draft((0, 1, 2, 1, 2), Tree((-1, 0, 0, 1, 2)))


def test_a_tree_that_an_engine_has_baked_in_stays_unless_nothing_is_left_of_it() -> None:
    processing, verifiers = Processing(6, [Only(1, 2)]), engines(Tree.chain(1), TREE)
    draft = Draft((0, 1, 5, 1, 5, 2, 2), TREE)
    assert processing.cut(draft, verifiers) is draft
    assert processing.cut(Draft((0, 5, 5, 1, 5, 2, 2), TREE), verifiers) == Draft.chain([0])


def test_without_a_processor_that_looks_ahead_a_draft_stays() -> None:
    draft = Draft.chain([0, 1, 2])
    assert Processing(6, [Recorder(0.0)]).cut(draft, engines(Tree.chain(1), Tree.chain(3))) is draft


def test_a_sampled_token_that_is_refused_stays_and_what_follows_it_goes() -> None:
    processing, verifiers = Processing(6, [Only(1, 2)]), engines(Tree.chain(1), Tree.chain(3), Tree.chain(6))
    probs = {slot: np.ones(6) / 6 for slot in range(5)}
    rest = processing.cut(Draft.chain([0, 1, 5, 1, 1, 1], probs), verifiers)
    assert rest.tokens == (0, 1, 5) and rest.tree == Tree.chain(3) and rest.probs.keys() == {0, 1, 2}


@pytest.mark.parametrize("seed", sample(range(8), 2))
@pytest.mark.parametrize("kind", ["chain", "tree"])
def test_what_is_left_of_a_sampled_draft_keeps_the_distribution(kind: str, seed: int) -> None:
    target, q = language(seed, sparse=True), language(100 + seed)
    processing = Processing(4, [Speaks(target)])
    whole = sampled_chain(3, q) if kind == "chain" else sampled_tree(Tree((-1, 0, 0, 1)), q)

    def cut(sampling: Sampling) -> Draft:
        draft = whole(sampling)
        return draft.only(processing.admitted(draft))

    for accept in (match, speculative if kind == "chain" else recursive):
        assert deviation(accept, cut, target) < 1e-12


def test_without_the_refused_token_the_distribution_changes() -> None:
    """The control of the test above: why a sampled token stays."""
    worst = 0.0
    for seed in range(8):
        target, q = language(seed, sparse=True), language(100 + seed)

        def cut(sampling: Sampling, target: Language = target, q: Language = q) -> Draft:
            draft = sampled_chain(3, q)(sampling)
            return draft.only(range(1 + Speaks(target).truncate(draft.tokens[1:])))

        worst = max(worst, deviation(speculative, cut, target))
    assert worst > 0.01
