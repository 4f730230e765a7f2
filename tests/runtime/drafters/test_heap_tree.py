"""DySpec: the tree has the likeliest nodes, and as many of them are accepted as their values say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from toys import World, prompts, propose

from specc.recipes.blocks import RANKED_OUTPUTS, prefill
from specc.runtime.block import Block, Frontier
from specc.runtime.draft import Draft
from specc.runtime.drafters.dynamic_tree import DynamicTree
from specc.runtime.drafters.heap_tree import HeapTree
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Sequence

PROMPTS = prompts(40, seed=8)


def twin(
    world: World, drafter: type[DynamicTree] = HeapTree, width: int = 1, nodes: int = 7, **more: Any
) -> DynamicTree:
    """Make a drafter over a draft model that is the target itself."""
    draft = world.engine(Block(Frontier(width, 5 + nodes), RANKED_OUTPUTS, cache="twin"))
    reader = world.engine(replace(prefill(), cache="twin"))
    return drafter(draft, reader, num_speculative_tokens=nodes, **more)


def reach(world: World, text: list[int], draft: Draft) -> list[float]:
    """Return the target's probability to go from the end of a text to each slot of a draft, at temperature 1."""
    values = [1.0]
    paths: list[list[int]] = [[]]
    for slot in range(1, draft.tree.slots):
        parent = draft.tree.parents[slot]
        world.cache.sync([])
        world.prefill.extend(world.cache, [*text, *paths[parent]])
        assert world.prefill.outputs.logits_NV is not None
        probs_V = Sampling(1.0).probs(world.prefill.outputs.logits_NV[0])
        values.append(values[parent] * float(probs_V[draft.tokens[slot]]))
        paths.append([*paths[parent], draft.tokens[slot]])
    return values


def test_as_much_of_dyspec_is_accepted_as_the_values_of_its_nodes_say_if_the_draft_is_the_target() -> None:
    """By match at temperature 1: a node is accepted as often as its text comes."""
    world, expected, accepted, variance = World(6), 0.0, 0, 0.0
    decoder = World(6).method("dyspec", assistant=True, acceptance="match")
    decoder.drafter = twin(decoder.world, max_depth=3)
    for seed, prompt in enumerate(PROMPTS):
        text = [token % 6 for token in prompt]
        seq = Sequence(list(text), decoder.world.caches, Sampling(1.0, rng=SeededRng(seed)))
        draft, result = next(decoder.steps(seq))
        values = reach(world, text, draft)[1:]
        expected += sum(values)
        accepted += len(result.slots) - 1
        variance += 3**2 / 4  # of a number from 0 to 3, at most
    assert abs(accepted - expected) < 3 * variance**0.5 and expected > len(PROMPTS)


def test_a_node_costs_a_call_at_most_and_the_threshold_variant_one_a_level() -> None:
    for name, most in (("dyspec", 11), ("dyspec-threshold", 5)):
        decoder = World().method(name, assistant=True)
        calls = [count for _, count in decoder.drafts(PROMPTS[1], 20)]
        assert max(calls) <= 1 + most and np.mean(calls) > 1


def test_a_heap_is_at_least_as_good_as_levels_by_a_threshold() -> None:
    """Both with 7 nodes and the target as draft, by the values of their nodes."""
    totals = {}
    for drafter, width in ((HeapTree, 1), (DynamicTree, 4)):
        world, other, total = World(6), World(6), 0.0
        drafts = twin(world, drafter, width, max_depth=3)
        for prompt in PROMPTS[:8]:
            text = [token % 6 for token in prompt]
            world.prefill.extend(world.cache, world.cache.sync(text[:-1]))
            total += sum(reach(other, text, propose(drafts.open(Sequence(text, world.caches)))))
        totals[drafter] = total
    assert totals[HeapTree] >= totals[DynamicTree]
