"""A search over trigrams: the table, the tree, and the honest test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from host_time import measure_least
from toys import LAYERS, VOCABULARY, Circle, Decoder, ToyKV, World, corpus, prompts, propose, write_corpus

from specc.recipes import METHODS, Facts
from specc.runtime.corpus_index import CorpusIndex
from specc.runtime.drafters.trigram_search import CAP, Node, Search, Trigrams, TrigramSearch, likeliest, merged
from specc.runtime.method import load_acceptance
from specc.runtime.sequence import Cache, Sequence
from specc.runtime.tree import Tree

SEARCHES = pytest.mark.parametrize("iterations", [0, 150])


def sequence(text: list[int], limit: int = 10**6) -> Sequence:
    return Sequence(text, {"target": Cache(ToyKV(), text[:-1])}, limit=limit)


def test_an_occurrence_counts_one_and_a_recent_one_a_little_more_up_to_a_cap() -> None:
    text = [1, 2, 3, 1, 2, 4, 1, 2, 3]
    table = Trigrams(text)
    table.update()
    assert table.weights[1, 2] == pytest.approx({3: 2.08, 4: 1.04})
    table.update()
    assert table.weights[1, 2] == pytest.approx({3: 2.16, 4: 1.08})
    assert dict(table.after(1, 2)) == pytest.approx({3: 2 / 3, 4: 1 / 3})
    for _ in range(50):
        table.update()
    assert table.weights[1, 2][3] == CAP
    text += [9] * 20
    table.update()
    before = dict(table.weights[1, 2])
    table.update()
    assert table.weights[1, 2] == before and table.after(7, 7) == []


def test_a_table_keeps_the_twelve_likeliest_successors() -> None:
    text = [token for last in [*range(20), *range(10, 20)] for token in (50, 51, last)]
    table = Trigrams(text)
    table.update()
    after = table.after(50, 51)
    assert len(after) == 12 and {token for token, _ in after} > set(range(10, 20))
    assert sum(share for _, share in after) == pytest.approx(1)


def test_a_search_visits_likely_continuations_most() -> None:
    table = Trigrams([1, 2, 3, 5, 1, 2, 3, 5, 1, 2, 3, 5, 1, 2, 4, 6, 1, 2])
    table.update()
    root, search = Node(2, 1.0), Search(table, Random(0))
    for _ in range(100):
        search.descend(root, 1, 3)
    assert root.visits == 100 and root.children is not None
    visits = {child.token: child.visits for child in root.children}
    assert sum(visits.values()) == 99 and visits[3] > 2 * visits[4] > 0
    assert {tuple(node.token for node in path) for path in root.paths()} == {(3, 5, 1), (4, 6, 1)}


@SEARCHES
def test_each_path_of_the_tree_is_a_text_of_known_trigrams_one_longer_than_the_search(iterations: int) -> None:
    drafter = TrigramSearch(max_depth=2, search_iterations=iterations)
    draft = propose(drafter.open(sequence([1, 2, 3, 5, 7, 1, 2, 4, 6, 8, 1, 2])))
    paths = [[draft.tokens[slot] for slot in path] for path in leaves(draft.tree)]
    assert sorted(paths) == [[2, 3, 5, 7], [2, 4, 6, 8]]


def path_to(tree: Tree, slot: int) -> list[int]:
    """Return the slots from slot 0 to a slot."""
    path = [slot]
    while path[0]:
        path.insert(0, tree.parents[path[0]])
    return path


def leaves(tree: Tree) -> list[list[int]]:
    """Return the path from slot 0 to each slot without children."""
    return [path_to(tree, slot) for slot in range(tree.slots) if not tree.children[slot]]


@SEARCHES
def test_no_more_is_drafted_than_the_nodes_and_the_room_allow(iterations: int) -> None:
    rng = Random(0)
    options: dict[str, Any] = {"search_iterations": iterations}
    text = [rng.randrange(3) for _ in range(200)]
    assert propose(TrigramSearch(7, **options).open(sequence(text))).tree.slots == 8
    assert propose(TrigramSearch(60, **options).open(sequence(text, limit=len(text) + 3))).tree.depth.max() == 2
    assert propose(TrigramSearch(**options).open(sequence(text, limit=len(text) + 1))).tree.slots == 1


def random_text(branching: int, count: int = 4000) -> list[int]:
    """Return a text in which each of 200 tokens has some followers, the first ones more often."""
    rng, text = Random(0), [0]
    followers = [[rng.randrange(200) for _ in range(branching)] for _ in range(200)]
    while len(text) < count:
        text.append(rng.choice(followers[text[-1]]))
    return text


@pytest.mark.parametrize("branching", [2, 4])
def test_the_nodes_of_the_most_probable_texts_are_drafted(branching: int) -> None:
    """The reference goes through all texts of three tokens, and of four whose last one is the likeliest."""
    text = random_text(branching)
    table = Trigrams(text)
    table.update()
    chances: list[float] = []

    def visit(a: int, b: int, chance: float, levels: int) -> None:
        after = table.after(a, b)
        for token, probability in after if levels > 1 else after[:1]:
            chances.append(chance * probability)
            if levels > 1:
                visit(b, token, chance * probability, levels - 1)

    visit(text[-2], text[-1], 1.0, 4)
    draft = likeliest(table, text, 3, 50, 23)
    drafted = [1.0]
    for slot in range(1, draft.tree.slots):
        tokens = [text[-2], *(draft.tokens[each] for each in path_to(draft.tree, slot))]
        drafted.append(drafted[draft.tree.parents[slot]] * dict(table.after(*tokens[-3:-1]))[tokens[-1]])
    assert drafted[1:] == pytest.approx(sorted(chances, reverse=True)[:23])


@pytest.mark.parametrize("branching", [2, 4])
def test_by_the_trigrams_more_tokens_are_accepted_than_of_the_papers_search(branching: int) -> None:
    """The sum of the probabilities of a tree's nodes is how many tokens are accepted, if the trigrams are right."""
    text, sums = random_text(branching), {0: 0.0, 150: 0.0}
    for end in range(3900, 3940):
        for iterations in sums:
            drafting = TrigramSearch(search_iterations=iterations).open(sequence(text[:end]))
            draft = propose(drafting)
            chances = [1.0]
            for slot in range(1, draft.tree.slots):
                tokens = [text[end - 2], *(draft.tokens[each] for each in path_to(draft.tree, slot))]
                chance = dict(drafting.table.after(*tokens[-3:-1]))[tokens[-1]]
                chances.append(chances[draft.tree.parents[slot]] * chance)
            sums[iterations] += sum(chances[1:])
    assert sums[150] < sums[0] < 1.5 * sums[150]


def test_paths_share_their_beginnings_and_later_ones_are_left_out() -> None:
    draft = merged(9, [[1, 2], [1, 3], [4, 5, 6]], 4)
    assert draft.tokens == (9, 1, 2, 3, 4) and draft.tree.parents == (-1, 0, 1, 1, 0)


def test_text_that_is_new_is_decoded_plainly() -> None:
    assert propose(TrigramSearch().open(sequence([1, 2, 3, 4]))).tokens == (4,)
    assert propose(TrigramSearch().open(sequence([1]))).tokens == (1,)


def test_a_text_that_repeats_takes_more_than_two_tokens_a_step_without_a_corpus() -> None:
    """The honest test of methods.md, which asks for more than one."""
    tokens, accepted = World(runner=Circle).method("adaptix").run([3, 4], 200)
    assert len(tokens) / (len(tokens) - accepted) > 2


@pytest.mark.parametrize("branching", [1, 2, 4, 12])
def test_a_search_takes_less_than_five_percent_of_a_verify_step(branching: int) -> None:
    """The step is a short one of the demo model, 2.5 ms in docs/measurements.md; the search fills 24 slots."""
    following = random_text(branching, 4040)[4000:]

    def prepare() -> Callable[[], None]:
        text = random_text(branching)
        seq = sequence(text)
        drafting = TrigramSearch().open(seq)
        drafting.draft(50)  # It counts the prompt.

        def work() -> None:
            for token in following:
                seq.cache.tokens.append(text[-1])
                text.append(token)
                drafting.draft(50)

        return work

    assert measure_least(prepare) / len(following) < 0.05 * 0.0025


def test_aded_begins_with_the_trigrams_of_its_corpus_and_adapts_them_to_the_text(tmp_path: Path) -> None:
    index = CorpusIndex(write_corpus([1, 2, 3, 1, 2, 3, 1, 2, 4, 1, 2, 3], tmp_path), 10)
    tokens = [8, 1, 2]
    table = Trigrams(tokens, index)
    table.update()
    assert dict(table.after(1, 2)) == pytest.approx({3: 0.75, 4: 0.25})
    assert table.after(9, 9) == []
    tokens += [5, 8, 1, 2, 5, 8, 1, 2]
    for _ in range(3):
        table.update()
    assert table.after(1, 2)[0][0] == 5  # the text's own weighs more, and the corpus stays
    assert {3, 4, 5} == {token for token, _ in table.after(1, 2)}


def test_aded_takes_more_tokens_a_step_with_a_corpus_of_such_text_than_without() -> None:
    """And without one more than 1 on a text that repeats itself."""
    method, accepted = METHODS["adaptix"], {}
    for has_corpus in (True, False):
        blocks = method.plan(method.settle({}), Facts(LAYERS, VOCABULARY, corpus=has_corpus))
        arguments = dict(blocks.arguments) | ({"corpus": corpus(VOCABULARY)} if has_corpus else {})
        world = World()
        engines = [world.engine(block) for block in blocks.verify]
        decoder = Decoder(world, TrigramSearch(**arguments), engines, load_acceptance("match"))
        accepted[has_corpus] = sum(decoder.run(prompt, 40)[1] for prompt in prompts(3, seed=7))
        if not has_corpus:
            decoder = Decoder(World(9, Circle), decoder.drafter, [], decoder.accept)
            decoder.verifiers = [decoder.world.engine(block) for block in blocks.verify]
            assert decoder.run([*range(9)] * 2, 40)[1] > 20
    assert accepted[True] > accepted[False]
