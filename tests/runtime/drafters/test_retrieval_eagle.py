"""RASD over EAGLE-2's head: what followed in a corpus, fused with the head's tree."""

from __future__ import annotations

from typing import Any

from toys import World, prompts, propose

from specc.runtime.drafters import Drafting
from specc.runtime.drafters.retrieval_eagle import RetrievalEagle
from specc.runtime.sequence import Sequence


def test_both_trees_of_rasd_together_accept_as_much_as_each_alone_where_the_corpus_has_the_text() -> None:
    """The fused tree has room for the head's whole tree and for the retrieved nodes."""
    texts = prompts(4, seed=9)
    recipes: dict[str, tuple[str, dict[str, Any]]] = {
        "retrieval": ("rasd", {}),
        "draft": ("eagle2", {"num_speculative_tokens": 11, "step_costs": []}),
        "fused": ("rasd-eagle2", {"num_speculative_tokens": 19, "retrieved_tokens": 8}),
    }
    accepted = {
        kind: sum(World().method(name, **values).run(text, 60)[1] for text in texts)
        for kind, (name, values) in recipes.items()
    }
    assert accepted["fused"] >= max(accepted["retrieval"], accepted["draft"]) and accepted["retrieval"] > 0
    assert accepted["fused"] > min(accepted["retrieval"], accepted["draft"])


def test_the_tree_has_the_budget_and_only_branches_that_the_head_finds_likely() -> None:
    world = World()
    decoder = world.method("rasd-eagle2", num_speculative_tokens=9, retrieved_tokens=8)
    (text,) = prompts(1, seed=9)
    seq = Sequence(list(text), world.caches)
    world.prefill.extend(seq.cache, seq.cache.sync(seq.tokens[:-1]))
    drafter = decoder.drafter
    assert isinstance(drafter, RetrievalEagle)
    drafting: Drafting[RetrievalEagle] = drafter.open(seq)
    draft = propose(drafting)
    assert draft.tree.slots == 10
    head = propose(world.method("eagle2", num_speculative_tokens=64, max_depth=1, step_costs=[]).drafter.open(seq))
    first_tokens = {token for token, parent in zip(draft.tokens, draft.tree.parents, strict=True) if parent == 0}
    assert first_tokens <= set(head.tokens[1:])


def test_a_text_without_a_state_has_the_retrieved_tree_alone() -> None:
    world = World()
    drafter = world.method("rasd-eagle2", retrieved_tokens=1).drafter
    token = next(token for token in range(world.vocabulary) if drafter.retrieval.paths([token], 8))
    draft = propose(drafter.open(Sequence([token], world.caches)))
    paths = drafter.retrieval.paths([token], 8)
    assert draft.tree.slots > 2  # The head drops none, so more than one is left.
    assert {path[0] for path in paths} >= {
        token for token, parent in zip(draft.tokens, draft.tree.parents, strict=True) if parent == 0
    }
