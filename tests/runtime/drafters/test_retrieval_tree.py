"""RASD: what followed in a corpus, fused with the draft model's tree."""

from __future__ import annotations

from pathlib import Path

from toys import World, prompts, propose, write_corpus

from specc.runtime.drafters.retrieval_tree import RetrievalTree, frequent, fused
from specc.runtime.sequence import Cache, Sequence

CORPUS = [1, 2, 3, 4, 5, 9, 2, 3, 4, 6, 9, 2, 3, 7, 8]


def test_the_longest_end_that_occurs_decides_and_frequent_nodes_come_first(tmp_path: Path) -> None:
    drafter = RetrievalTree(write_corpus(CORPUS, tmp_path), 10, num_speculative_tokens=9, max_depth=2)
    for text, paths in (([8, 2, 3], [[4], [4, 5], [4, 6], [7], [7, 8]]), ([0, 9, 2, 3], [[4], [4, 6], [7], [7, 8]])):
        cache = Cache(World().cache.store, text[:-1])
        drafting = drafter.open(Sequence(list(text), {"target": cache}))
        assert sorted(drafter.retrieval.paths(text, 2)) == sorted(paths)
    assert drafter.retrieval.paths(text, 0) == [] and propose(drafting).tokens[0] == 3


def test_what_never_occurs_gives_no_draft(tmp_path: Path) -> None:
    drafter = RetrievalTree(write_corpus(CORPUS, tmp_path), 100)
    text = [50, 51]
    draft = propose(drafter.open(Sequence(text, {"target": Cache(World().cache.store, text[:-1])})))
    assert draft.tokens == (51,)


def test_a_beginning_comes_before_what_is_longer() -> None:
    assert frequent([(1, 2), (1, 3), (4, 5)]) == [[1], [4], [1, 2], [1, 3], [4, 5]]


def test_the_fused_tree_has_both_trees_without_unlikely_branches_in_its_budget() -> None:
    drafted = ([0, 1, 2, 3], [-1, 0, 0, 1], [1.0, 0.6, 0.3, 0.5])
    draft = fused([[1], [1, 8], [9], [9, 9]], *drafted, retrieved=3, nodes=9)
    assert (draft.tokens, draft.tree.parents) == ((0, 1, 8, 3, 2), (-1, 0, 1, 1, 0))  # [9] is no child of the draft's
    assert fused([[1], [1, 8]], *drafted, retrieved=3, nodes=2).tree.slots == 3


def test_both_together_accept_as_much_as_each_alone_where_the_corpus_has_the_text() -> None:
    """Tokens of the same prompts: with retrieval alone, with the draft model alone, and fused."""
    texts = prompts(4, seed=9)
    accepted = {
        "retrieval": sum(World().method("rasd").run(text, 60)[1] for text in texts),
        "draft": sum(
            World().method("dynamic-depth", assistant=True, max_depth=5, mass_threshold=0).run(text, 60)[1]
            for text in texts
        ),
        "fused": sum(
            World().method("rasd", assistant=True, num_speculative_tokens=19, retrieved_tokens=8).run(text, 60)[1]
            for text in texts
        ),
    }
    assert accepted["fused"] >= max(accepted["retrieval"], accepted["draft"]) and accepted["retrieval"] > 0
