"""Trees of a head with two experts, in one call less than they have levels."""

from __future__ import annotations

import numpy as np
import pytest
from toys import World, prompts

from specc.runtime.call import Call
from specc.runtime.draft import Draft, Outputs
from specc.runtime.drafters.jakiro import ExpertNodes
from specc.runtime.node_budget import NodeBudget
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Sequence

TEXT = prompts(1, seed=3)[0] * 2


def calls_of_a_draft(depth: int) -> tuple[Draft, list[Call]]:
    """Return the first draft of a text whose tokens the head has run but the last, and its calls."""
    world = World()
    decoder = world.method("jakiro", num_speculative_tokens=60, max_depth=depth, step_costs=[])
    seq = Sequence(list(TEXT), world.caches, Sampling())
    next(decoder.steps(seq))
    proposal, calls = decoder.open(seq).drafting.propose(seq.room), []
    try:
        call = next(proposal)
        while True:
            calls.append(call)
            call = proposal.send(call.run())
    except StopIteration as stop:
        return stop.value, calls


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_a_tree_takes_one_call_less_than_it_has_levels(depth: int) -> None:
    """The call that runs the accepted tokens is among them."""
    draft, calls = calls_of_a_draft(depth)
    assert len(calls) == depth - 1
    assert int(draft.tree.depth.max()) == depth


def test_a_tree_of_one_level_has_no_guess_one_place_further() -> None:
    draft, calls = calls_of_a_draft(1)
    assert len(calls) == 1 and int(draft.tree.depth.max()) == 1


def outputs(*rows: tuple[dict[int, float], ...]) -> Outputs:
    """Return outputs with three guesses a row, each with two likeliest tokens, and states that name the row."""
    ids = np.array([[[*guess] for guess in row] for row in rows])
    logprobs = np.log(np.array([[[*guess.values()] for guess in row] for row in rows], np.float32))
    states = np.array([[10.0 * row, 10.0 * row + 1] for row in range(len(rows))], np.float32)
    return Outputs(ids[:, 0, 0].copy().data, None, ids, logprobs, next_state_NS=states)


def test_siblings_are_the_other_experts_and_read_its_state() -> None:
    nodes = ExpertNodes(9, NodeBudget(8))
    nodes.add_experts([0], outputs(({1: 0.6, 2: 0.2}, {1: 0.5, 3: 0.25}, {4: 0.9, 5: 0.1})))
    assert (nodes.tokens, nodes.parents) == ([9, 1, 3], [-1, 0, 0])
    assert nodes.values[1:] == pytest.approx([0.6, 0.4 * 0.5])
    assert nodes.read_states[1].tolist() == [0, 0] and nodes.read_states[2].tolist() == [1, 0]


def test_experts_that_are_sure_of_one_token_leave_nothing_to_its_siblings() -> None:
    nodes = ExpertNodes(9, NodeBudget(8))
    nodes.add_experts([0], outputs(({1: 1.0, 2: 1e-30}, {1: 1.0, 3: 1e-30}, {4: 0.9, 5: 0.1})))
    assert nodes.tokens == [9, 1, 3] and nodes.values[1:] == [1.0, 0.0]


def test_the_guess_one_place_further_stands_below_all_nodes_of_the_last_level() -> None:
    nodes = ExpertNodes(9, NodeBudget(8))
    guesses = outputs(({1: 0.6, 2: 0.2}, {1: 0.5, 3: 0.25}, {4: 0.9, 5: 0.1}))
    nodes.add_experts([0], guesses)
    nodes.add_ahead([0], guesses)
    assert nodes.parents == [-1, 0, 0, 1, 1, 2, 2] and nodes.tokens[3:] == [4, 5, 4, 5]
    assert nodes.values[3:] == pytest.approx([0.54, 0.06, 0.18, 0.02])


def test_a_text_of_one_token_has_no_draft() -> None:
    (draft, calls), *_ = World().method("jakiro").drafts([3], steps=1)
    assert len(draft.tokens) == 1 and calls == 0
