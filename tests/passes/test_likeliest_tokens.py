"""LikeliestTokens: which tokens of a tree go on, against a reference in plain Python."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import small
from torch import Tensor
from toys import likeliest

from specc.passes.find import outputs, placeholder, set_outputs
from specc.passes.likeliest_tokens import LikeliestTokens
from specc.recipes.guess_trees import StateTree
from specc.runtime.block import GuessTree
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

VOCABULARY, GUESSES = 6, 2


def chosen(topology: GuessTree, count: int, ids: Tensor, logits: Tensor) -> dict[str, list[int]]:
    """Run the choice in a graph; return the slots of tokens, those of all that is kept, and the place of each slot.

    Args:
        topology: the tree.
        count: how many tokens are kept.
        ids: the tokens in the slots, [1, slots] int64.
        logits: early logits of all tokens' slots, [tokens, VOCABULARY].
    """
    graph = small(lambda ids, logits: logits + ids.sum(), input_ids=ids, early=logits[None])
    tokens = LikeliestTokens(graph, topology, count)
    with graph.graph.inserting_before(graph.graph.output_node()):
        node = tokens.choose(placeholder(graph, "early"))
        named = {"kept": node, "slots": tokens.slots(node), "places": tokens.places(node)}
    set_outputs(graph, outputs(graph) | named)
    graph.recompile()
    result = graph(ids, logits[None, tokens.parents])
    return {name: result[name].tolist() for name in named}


@st.composite
def parents(draw: st.DrawFn) -> tuple[int, ...]:
    return (-1, *(draw(st.integers(0, slot - 1)) for slot in range(1, draw(st.integers(2, 9)))))


# Few levels of logits, so that there are ties. -1e4 gives log-probabilities beside which others are rounded away.
LEVELS = st.sampled_from([0.0, 0.0, 1.0, 2.5, -1e4, 1e4])


@given(st.data())
def test_the_kept_tokens_are_those_of_the_reference_with_all_their_ancestors(data: st.DataObject) -> None:
    tree = Tree(data.draw(parents()))
    count = data.draw(st.integers(1, tree.slots))
    topology = StateTree(tree, (GUESSES,) * tree.slots).topology("guess")
    rows = [data.draw(st.lists(LEVELS, min_size=VOCABULARY, max_size=VOCABULARY)) for _ in range(tree.slots)]
    tokens = [data.draw(st.integers(0, VOCABULARY - 1)) for _ in range(topology.slots)]
    logits, ids = torch.tensor(rows), torch.tensor([tokens])
    result = chosen(topology, count, ids, logits)
    logprobs = logits.log_softmax(-1)
    own = [0.0, *(float(logprobs[tree.parents[slot], tokens[slot]]) for slot in range(1, tree.slots))]
    slots = result["kept"]
    assert slots == likeliest(tree.parents, own, count) and len(slots) == count
    assert slots[0] == 0 and all(tree.parents[slot] in slots for slot in slots[1:])
    left = [*slots, *(guess for slot in slots for guess in topology.guesses[slot])]
    assert result["slots"] == left
    assert [result["places"][slot] for slot in left] == list(range(len(left)))
    assert len(result["places"]) == topology.slots and set(result["places"]) <= set(range(len(left)))


def test_at_a_tie_the_first_tokens_are_kept() -> None:
    """All tokens are as likely, so that no score but that of the depth counts."""
    topology = StateTree(Tree((-1, 0, 0, 0, 2, 1)), (GUESSES,) * 6).topology("guess")
    ids = torch.zeros(1, topology.slots, dtype=torch.long)
    even = torch.zeros(6, VOCABULARY)
    assert [chosen(topology, count, ids, even)["kept"] for count in (2, 3, 5)] == [[0, 1], [0, 1, 2], [0, 1, 2, 3, 4]]


def test_the_reference_depends_on_the_scores_and_on_the_path() -> None:
    """A control: a likely token behind an unlikely one is dropped, and kept if what stands before it is likely."""
    tree = (-1, 0, 0, 1, 2)
    assert likeliest(tree, [0.0, -9.0, -1.0, -0.1, -2.0], 3) == [0, 2, 4]
    assert likeliest(tree, [0.0, -1.0, -9.0, -0.1, -2.0], 3) == [0, 1, 3]
