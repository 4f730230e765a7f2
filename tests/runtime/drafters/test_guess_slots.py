"""Drafts from slots of the target's own run: which guesses become which tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toys import World, prompts, successors

from specc.exactness.divergence import compare_texts
from specc.recipes.guess_slots import PPD
from specc.recipes.guess_trees import state_trees
from specc.runtime.block import Block, GuessTree
from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.drafters.guess_slots import GuessSlots, ends_twice
from specc.runtime.engine import Engine
from specc.runtime.errors import RecipeError
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Sequence
from specc.runtime.tree import Tree

PROMPT = prompts(3)[2]
SIZE: dict[str, Any] = {"num_speculative_tokens": 6, "guess_slots": 9}


def topology_of(engine: Engine) -> GuessTree:
    topology = engine.block.topology
    assert isinstance(topology, GuessTree)
    return topology


def test_the_next_step_has_the_state_of_as_many_guesses_as_the_accepted_token_had() -> None:
    """Parallel Prompt Decoding's states."""
    world = World()
    decoder = world.method("ppd", **SIZE)
    seq, state, states = Sequence(list(PROMPT), world.caches), 0, set()
    for (draft, accepted), _ in zip(decoder.steps(seq), range(60), strict=False):
        engine = decoder.drafter.steps[state][0]
        assert draft.by is engine and engine is not None and draft.tree == topology_of(engine).token_tree
        state = len(topology_of(engine).guesses[accepted.slots[-1]])
        states.add(state)
    assert len(states) > 2


def test_a_child_gets_the_token_of_its_rank_of_the_guess_for_its_level() -> None:
    """A guess of the toy finds the successors of the likeliest successor likeliest, and so on."""
    ranked = (-successors(24)).argsort(-1, kind="stable")
    drafts = 0
    world = World()
    decoder = world.method("ppd", **SIZE)
    seq = Sequence(list(PROMPT), world.caches)
    last = None
    for (draft, accepted), _ in zip(decoder.steps(seq), range(30), strict=False):
        if last is not None and draft.tree.slots > 1:
            guess = ranked[last][0]
            for slot in range(1, draft.tree.slots):
                stem = guess
                for _ in range(int(draft.tree.depth[slot]) - 1):
                    stem = ranked[stem][0]
                # Noise moves the ranks of the toy's guesses a little.
                assert draft.tokens[slot] in ranked[stem][: draft.tree.rank[slot] + 5]
            drafts += 1
        last = draft.tokens[accepted.slots[-1]]
    assert drafts > 10


def test_a_draft_ends_before_a_guess_of_little_probability() -> None:
    lengths = {}
    for threshold in (0.0, 0.6, 1.0):
        decoder = World().method("lexical-units", assistant_confidence_threshold=threshold)
        lengths[threshold] = [draft.tree.slots - 1 for draft, _ in decoder.drafts(PROMPT, steps=30)]
    assert set(lengths[0.0][1:]) == {3} and set(lengths[1.0]) == {0}
    assert 0 < sum(lengths[0.6]) < sum(lengths[0.0])


def test_confident_guesses_kept_unverified_diverge_more_the_lower_the_threshold() -> None:
    """Lexical Unit Decoding by its own rule; where it drafts nothing, it is plain decoding."""
    plain = World().method("plain")
    shares = []
    for threshold in (1.0, 0.6, 0.0):
        decoder = World().method("lexical-units-unverified", confidence_threshold=threshold)
        pairs = [(decoder.run(prompt, 60)[0], plain.run(prompt, 60)[0]) for prompt in prompts(3)]
        shares.append(sum(compare_texts(*pair).changed for pair in pairs) / len(pairs))
    print(f"changed tokens at the thresholds 1, 0.6 and 0: {shares}")
    assert shares[0] == 0 < shares[1] <= shares[2]


def test_no_unverified_guess_repeats_the_tokens_right_before_it_unless_the_control_is_off() -> None:
    """On a toy whose guesses all repeat one token, and then two in turn."""
    for period in (1, 2):
        repeated = {}
        for control in (0, 1, 2, 3):
            world = World()
            decoder = world.method("lexical-units-unverified", confidence_threshold=0.0, longest_repeat=control)
            drafting = decoder.drafter.open(Sequence([3, 9, 4, 5], world.caches))
            engine, topology = decoder.drafter.steps[0]
            slots = topology.slots
            top = np.array([[5 + slot % period] * 8 for slot in range(slots)])
            sure = np.zeros((slots, 8), np.float32)
            outputs = Outputs(np.zeros(slots, np.int64).data, np.ones((slots, 24)), top, sure)
            draft = Draft((4,), topology.token_tree, by=engine)  # The target's token is 5.
            drafting.observe(draft, Verified(outputs, Sampling()), Accepted((0,), 5))
            repeated[control] = len(drafting.guesses)
        assert repeated == ({0: 3, 1: 0, 2: 0, 3: 0} if period == 1 else {0: 3, 1: 3, 2: 2, 3: 2})


def test_a_text_ends_twice_if_its_last_tokens_stand_before_them_too() -> None:
    assert ends_twice([7, 7], 1) and ends_twice([1, 2, 3, 2, 3], 2) and ends_twice([1, 2, 3, 1, 2, 3], 3)
    assert not ends_twice([1, 2, 3, 2, 3], 1) and not ends_twice([7, 7], 0) and not ends_twice([7], 3)


def test_guesses_are_dropped_once_the_text_has_grown_without_them() -> None:
    world = World()
    decoder = world.method("ppd", **SIZE)
    seq = Sequence(list(PROMPT), world.caches)
    steps = decoder.steps(seq)
    for _ in range(3):
        next(steps)
    drafting = decoder.drafter.open(seq)
    drafting.guesses = [[1] * 8, [2] * 8]
    assert drafting.draft(9).tree.slots > 1
    seq.cache.commit([seq.pending], [0])
    seq.tokens.append(5)
    assert drafting.draft(9).tokens == (5,)


def test_pruned_trees_of_speculative_streaming_keep_so_many_nodes_and_the_tokens_of_plain_decoding() -> None:
    """Greedy and sampled; some drafts are accepted, and some nodes are dropped."""
    plain, dropped, accepted_tokens = World().method("plain"), 0, 0
    for kept_nodes in (1, 2, 4):
        for temperature in (0.0, 0.8):
            world, sampling = World(), Sampling(temperature, rng=SeededRng(3))
            decoder = world.method("speculative-streaming", num_speculative_tokens=6, kept_nodes=kept_nodes)
            tokens, hits = decoder.run(PROMPT, 60, sampling)
            assert tokens == plain.run(PROMPT, 60, sampling)[0]
            accepted_tokens += hits
            for draft, _ in decoder.drafts(PROMPT, steps=30, sampling=sampling):
                assert draft.by is not None
                nodes = topology_of(draft.by).tokens - 1
                assert draft.tree.slots - 1 == min(kept_nodes, nodes)
                dropped += nodes > kept_nodes
    assert accepted_tokens > 60 and dropped > 60


def test_a_pruned_tree_accepts_at_most_what_the_whole_tree_accepts_and_more_the_more_it_keeps() -> None:
    """The toy keeps tokens by what its target says next, so few accepted tokens are lost."""
    steps: dict[int, int] = {}
    for kept_nodes in (0, 2, 5):
        decoder = World().method("speculative-streaming", num_speculative_tokens=6, kept_nodes=kept_nodes)
        steps[kept_nodes] = decoder.run(PROMPT, 60)[1]
    print(f"accepted tokens of 60 by how many nodes are kept: {steps}")
    assert steps[0] >= steps[5] >= steps[2] > 0.5 * steps[0]


def test_guesses_of_a_pruned_step_are_those_behind_the_last_accepted_token() -> None:
    """The rows of a pruned step are those of the tokens that are left, and then those of the guesses behind each."""
    world = World()
    decoder = world.method("speculative-streaming", num_speculative_tokens=6, kept_nodes=2)
    drafting = decoder.drafter.open(Sequence(list(PROMPT), world.caches))
    engine, topology = decoder.drafter.steps[-1]
    count, rows = 3, 3 * (1 + len(topology.guesses[0]))
    top = np.arange(rows)[:, None] * 8 + np.arange(8)
    outputs = Outputs(
        np.zeros(rows, np.int64).data, None, top, np.zeros((rows, 8), np.float32), kept_slots=np.array([0, 2, 5])
    )
    draft = outputs.kept_of(Draft((4,) * topology.tokens, topology.token_tree, by=engine))
    for slot in range(count):
        drafting.observe(draft, Verified(outputs, Sampling()), Accepted((slot,), 5))
        first = count + slot * len(topology.guesses[0])
        assert [guess[0] // 8 for guess in drafting.guesses] == [first, first + 1, first + 2]


def test_engines_without_guesses_or_with_other_names_are_refused() -> None:
    world = World()
    plain = world.engine(Block(Tree.chain(1)))
    with pytest.raises(RecipeError, match=r"the engines are none; give step_0, step_1 and so on"):
        GuessSlots()
    with pytest.raises(RecipeError, match=r"the engines are step_1; give step_0, step_1 and so on"):
        GuessSlots(step_1=plain)
    with pytest.raises(RecipeError, match="engine target has no slots for guesses; compile the bundle again"):
        GuessSlots(step_0=plain)


def test_the_engines_of_a_recipe_are_those_of_its_states() -> None:
    trees = state_trees([[0.5], [0.5]], 2, 4)
    assert [tree.topology("ppd").tokens for tree in trees] == [1, 2, 3]
    assert PPD.drafter == "guess-slots"
