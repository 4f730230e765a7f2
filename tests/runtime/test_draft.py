"""Drafts, outputs, and what the target says of a draft."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from specc.runtime.draft import Draft, Outputs, Verified
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree

LOGITS = np.log(np.array([[0.5, 0.25, 0.25], [0.0625, 0.0625, 0.875]])).astype(np.float32)


def outputs() -> Outputs:
    ids, top = np.array([0, 2]), np.array([[0, 1], [2, 0]])
    return Outputs(ids.data, LOGITS, top, np.take_along_axis(LOGITS, top, -1))


def test_a_chain_has_a_slot_a_token() -> None:
    probs = {0: np.ones(3) / 3}
    assert Draft.chain([4, 5, 6], probs) == Draft((4, 5, 6), Tree.chain(3), probs)
    assert Draft.chain([4]).probs == {}


def test_the_likeliest_tokens_of_a_row_come_with_their_probabilities() -> None:
    tokens, probs = outputs().top(1)
    assert tokens.tolist() == [2, 0]
    assert probs == pytest.approx([0.875, 0.0625])
    ranks, ids, logprobs = outputs().ranked()
    assert ranks == 2
    assert [ids[1, rank] for rank in range(ranks)] == [2, 0]
    assert np.exp(logprobs[0, 0]) == pytest.approx(0.5)


def test_a_greedy_request_chooses_the_argmax() -> None:
    verified = Verified(outputs(), Sampling())
    assert [verified.choose(slot) for slot in (0, 1)] == [0, 2]


def test_a_sampling_request_samples_from_the_slots_distribution() -> None:
    chain = Tree.chain(2)
    rows = [Verified(outputs(), Sampling(1.0, rng=SeededRng(seed)), chain) for seed in range(2000)]
    assert rows[0].probs(1) == pytest.approx([0.0625, 0.0625, 0.875])
    choices = [verified.choose(1) for verified in rows]
    assert choices.count(2) / 2000 == pytest.approx(0.875, abs=0.03) and set(choices) == {0, 1, 2}


def test_what_a_slot_samples_depends_on_its_place_in_the_text_and_not_on_its_tree() -> None:
    """Slot 1 of a draft after 6 tokens, and slot 0 one step later; a sibling is at one place with the first."""
    row = Outputs(np.zeros(3, np.int64).data, np.zeros((3, 50), np.float32))
    for seed in range(20):
        sampling = Sampling(1.0, rng=SeededRng(seed))
        early = Verified(row, sampling, Tree.chain(3), 6)
        assert early.choose(1) == Verified(row, sampling, Tree.chain(1), 7).choose(0)
        assert early.choose(1) == Verified(row, sampling, Tree((-1, 0, 0)), 6).choose(2)
        assert early.choose(1) == early.choose(1)


def test_some_slots_of_a_chain_or_a_tree_are_a_draft() -> None:
    probs = {slot: np.full(3, slot / 10) for slot in (0, 1, 2)}
    chain = Draft.chain([4, 5, 6, 7], probs).only([0, 1])
    assert chain == Draft.chain([4, 5], {0: probs[0], 1: probs[1]}) and chain.tree is Tree.chain(2)
    tree = Draft((4, 5, 6, 7, 8), Tree((-1, 0, 0, 2, 2)), {0: probs[0], 2: probs[2]})
    assert tree.only([0, 2, 4]) == Draft.chain([4, 6, 8], {0: probs[0], 1: probs[2]})
    assert tree.only([0, 2, 3, 4]).tree == Tree((-1, 0, 1, 1))
    assert tree.only(range(5)) == tree


def test_the_outputs_of_one_row_are_those_of_an_engine_of_one_slot() -> None:
    whole = replace(outputs(), hidden={"hidden": np.array([[1.0], [2.0]])})
    row = whole.only(1)
    assert row.ids_N.tolist() == [2] and row.logits_NV is not None and row.logits_NV.tolist() == LOGITS[1:].tolist()
    assert row.top(0)[0].tolist() == [2, 0] and row.hidden["hidden"].tolist() == [[2.0]]
    assert Outputs(whole.ids_N).only(0) == Outputs(whole.ids_N[:1])


def test_with_processors_tokens_are_chosen_by_the_processed_logits_of_the_slots_that_are_asked_for() -> None:

    class Adds:
        """Logits of which that of token 1 is larger by 9."""

        def __init__(self) -> None:
            self.slots: list[int] = []

        def logits(self, slot: int) -> np.ndarray:
            self.slots.append(slot)
            row: np.ndarray = LOGITS[slot] + np.array([0, 9, 0], np.float32)
            return row

        def likeliest(self, slot: int) -> int:
            return int(self.logits(slot).argmax())

    adds = Adds()
    greedy = Verified(outputs(), Sampling(), Tree.chain(2), processed=adds)
    assert (greedy.choose(1), adds.slots) == (1, [1])
    assert greedy.logits(0).tolist() == Adds().logits(0).tolist()
    sampled = Verified(outputs(), Sampling(1.0), Tree.chain(2), processed=adds)
    assert sampled.probs(0)[1] > 0.99 and sampled.choose(0) == 1


def test_without_processors_the_logits_are_the_targets_own_and_greedy_choices_need_none() -> None:
    assert np.shares_memory(Verified(outputs(), Sampling()).logits(1), LOGITS)
    assert Verified(Outputs(np.array([7]).data), Sampling()).choose(0) == 7


def test_states_are_found_by_the_name_of_their_head() -> None:
    arrays = {"ids": np.arange(2), "state_eagle3": np.ones((2, 3)), "next_state": np.zeros((2, 3)), "state": np.ones(1)}
    values = Outputs.of(arrays)
    assert list(values.states) == ["eagle3"] and values.next_state_NS is arrays["next_state"] and not values.hidden


def test_one_row_of_the_outputs_goes_with_the_states_of_its_slot() -> None:
    """An engine for prompts returns one row of ids, and the states of all slots."""
    values = Outputs(np.array([7]).data, states={"a": np.arange(4.0)[:, None]}, next_state_NS=np.arange(5.0)[1:, None])
    one = values.only(0, 3)
    assert (one.ids_N[0], one.states["a"].tolist()) == (7, [[3.0]])
    assert one.next_state_NS is not None and one.next_state_NS.tolist() == [[4.0]]
    assert values.only(0).states["a"].tolist() == [[0.0]]


def test_a_copy_of_the_outputs_has_states_of_its_own() -> None:
    values = Outputs(np.array([7]).data, states={"a": np.ones((1, 2))}, next_state_NS=np.ones((1, 2)))
    twin = values.copy()
    values.states["a"][:] = 0
    assert values.next_state_NS is not None and twin.next_state_NS is not None
    values.next_state_NS[:] = 0
    assert twin.states["a"].all() and twin.next_state_NS.all()


def test_some_slots_of_a_draft_keep_what_they_read_besides_tokens() -> None:
    states = np.arange(6.0).reshape(3, 2)
    draft = Draft.chain([4, 5, 6])._replace(inputs={"hidden": states})
    assert np.array_equal(draft.only([0, 1]).inputs["hidden"], states[:2])
    assert not Draft.chain([4, 5]).only([0]).inputs


def test_a_draft_loses_the_slots_that_its_engine_dropped() -> None:
    """Row i of the outputs is that of slot i then. Slots behind a shorter draft hold no token of it."""
    draft = Draft((4, 5, 6, 7, 8), Tree((-1, 0, 0, 1, 2)), values=(1.0, 0.5, 0.4, 0.3, 0.2))
    pruned = replace(outputs(), kept_slots=np.array([0, 2, 4]))
    rest = pruned.kept_of(draft)
    assert (rest.tokens, rest.tree.parents, rest.values) == ((4, 6, 8), (-1, 0, 1), (1.0, 0.4, 0.2))
    assert pruned.kept_of(draft.only([0, 1, 2])).tokens == (4, 6)
    assert outputs().kept_of(draft) is draft


def test_the_kept_slots_are_copied_with_the_other_outputs() -> None:
    kept_slots = np.array([0, 2])
    copied = replace(outputs(), kept_slots=kept_slots).copy()
    kept_slots[:] = 9
    assert copied.kept_slots is not None and copied.kept_slots.tolist() == [0, 2]
