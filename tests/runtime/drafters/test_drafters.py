"""Every method of the table, by its own blocks and drafter, against plain decoding on the toy model."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from toys import LAYERS, Toy, ToyKV, World, cases, prompts

from specc.recipes import METHODS
from specc.runtime.block import Parents
from specc.runtime.sampling import Sampling, SeededRng
from specc.runtime.tree import Tree

PROMPTS = prompts(36)
PROMPTS += [PROMPTS[-1], PROMPTS[-1][:2], PROMPTS[-1] + [1, 2], PROMPTS[0]]  # a session's cache holds some of these
TREES = [name for name, m in METHODS.items() if "tree" in m.topology]


@cache
def plain(count: int, temperature: float = 0.0) -> list[list[int]]:
    decoder = World().method("plain")
    return [decoder.run(p, count, Sampling(temperature, rng=SeededRng(i)))[0] for i, p in enumerate(PROMPTS)]


@pytest.mark.parametrize("case", cases().values(), ids=cases())
def test_greedy_tokens_are_those_of_plain_decoding(case):
    """40 prompts of 150 tokens; every method but plain has drafts accepted, and the rows left are plain's own."""
    world, reference = World(), World()
    decoder, accepted = world.method(**case), 0
    for prompt, want in zip(PROMPTS, plain(150), strict=True):
        got, kept = decoder.run(prompt, 150)
        assert got == want
        accepted += kept
    assert (accepted > 0.05 * 150 * len(PROMPTS)) == (case["name"] != "plain")
    rows = len(world.cache)
    reference.prefill.extend(reference.cache, world.cache.tokens)
    assert np.array_equal(
        world.stores["target"].rows_LC[:, :rows], reference.stores["target"].rows_LC[:, :rows]
    )  # fmt: skip


@pytest.mark.parametrize("case", cases().values(), ids=cases())
def test_sampled_tokens_are_those_of_plain_decoding(case):
    """`match` draws one sample a token, in order, so the same seed gives the same tokens."""
    decoder = World().method(**case)
    for i, (prompt, want) in enumerate(zip(PROMPTS[:12], plain(80, 0.8), strict=False)):
        assert decoder.run(prompt, 80, Sampling(0.8, rng=SeededRng(i)))[0] == want


@pytest.mark.parametrize("case", cases().values(), ids=cases())
def test_what_a_session_learnt_changes_no_token(case):
    """The same prompt twice: a draft's cache may then hold every token but those to come."""
    decoder = World().method(**case)
    first, second = (decoder.run(PROMPTS[3], 150) for _ in range(2))
    assert first[0] == second[0]
    assert second[1] >= first[1]


class Unmoved(ToyKV):
    """A commit that leaves the accepted rows where they were run."""

    def move(self, start: int, rows: list[int]) -> None:
        pass


class Neighbours(ToyKV):
    """A commit of the slots before the accepted ones."""

    def move(self, start: int, rows: list[int]) -> None:
        super().move(start, [row - 1 for row in rows])


class Causal(Toy):
    """Slots that see every slot before them, at the right positions."""

    def topology(self):
        mask_NT, depth_N = super().topology()
        return np.tril(np.ones_like(mask_NT)), depth_N


class Flat(Toy):
    """The right mask, at positions that count slots."""

    def topology(self):
        mask_NT, _ = super().topology()
        return mask_NT, np.arange(len(mask_NT))


class Forgetful(Toy):
    """An engine that leaves the last layer's rows as they were."""

    def run(self):
        before = self.rows.rows_LC[LAYERS - 1].copy()
        super().run()
        self.rows.rows_LC[LAYERS - 1] = before


@pytest.mark.parametrize("wrong", [Unmoved, Neighbours, Causal, Flat, Forgetful])
@pytest.mark.parametrize("name", TREES)
def test_a_wrong_commit_mask_or_depth_is_noticed(name, wrong):
    """The control: what the tests above would say of a broken runtime."""
    world = World(rows=wrong) if issubclass(wrong, ToyKV) else World()
    decoder = world.method(name)
    if issubclass(wrong, Toy):
        world.runner = wrong
        decoder.verifiers = [world.engine(e.block) for e in decoder.verifiers]
    got = [decoder.run(p, 150)[0] for p in PROMPTS[:3]]
    assert all(a != b for a, b in zip(got, plain(150), strict=False))


def test_the_table_has_baked_trees_and_trees_that_change():
    """Else the control above would have controlled nothing."""
    topologies = [e.block.topology for name in TREES for e in World().method(name).verifiers]
    assert any(isinstance(t, Parents) for t in topologies)
    assert any(isinstance(t, Tree) and not t.is_chain for t in topologies)
