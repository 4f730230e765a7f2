"""The contract of all drafters: every method of the table, by its own blocks and drafter, on the toy model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Tokens
from functools import cache
from typing import Any

import numpy as np
import pytest
from chance import chi_square_rejects, distribution, total_variation
from thorough import sample
from toys import LAYERS, Decoder, Toy, ToyKV, World, cases, prompts

from specc.recipes import METHODS
from specc.runtime.acceptance import Keeps
from specc.runtime.block import Parents
from specc.runtime.method import load_acceptance
from specc.runtime.rng import Rng, SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import displaced
from specc.runtime.tree import Tree

PROMPTS = prompts(36)
PROMPTS += [PROMPTS[-1], PROMPTS[-1][:2], PROMPTS[-1] + [1, 2], PROMPTS[0]]  # The cache holds a part of some of them.
TREES = [name for name, m in METHODS.items() if "tree" in m.topology]

# The share of tokens that comes from drafts, where it is smaller than usual.
SHARES = {
    "aggressive-decoding": 0.0,  # It copies the prompt alone, and these prompts are random. Some drafts are right.
    "gauss-seidel-jacobi": 0.02,  # Each block begins without guesses.
    "hybrid-jacobi": 0.02,
}

SAMPLED_PROMPT = [2, 0, 1, 1]
TEMPERATURE = 1.3
# The acceptance rule, and the method with its parameters.
SAMPLED: dict[str, tuple[str, dict[str, Any]]] = {
    "draft-model, 1": ("speculative", {"name": "draft-model", "assistant": True, "num_speculative_tokens": 1}),
    "draft-model, 2": ("speculative", {"name": "draft-model", "assistant": True, "num_speculative_tokens": 2}),
    "draft-model, threshold": (
        "speculative",
        {"name": "draft-model", "assistant": True, "num_speculative_tokens": 2, "assistant_confidence_threshold": 0.4},
    ),
    "specdec-plus-plus": (
        "speculative",
        {"name": "specdec-plus-plus", "assistant": True, "num_speculative_tokens": 2, "rejection_threshold": 0.6},
    ),
    "draft-model, heuristic": (
        "speculative",
        {
            "name": "draft-model",
            "assistant": True,
            "num_speculative_tokens": 2,
            "num_assistant_tokens_schedule": "heuristic",
        },
    ),
    "spectr, 2": ("kseq", {"name": "spectr", "assistant": True, "chains": 2, "num_speculative_tokens": 1}),
    "spectr, 3": ("kseq", {"name": "spectr", "assistant": True, "chains": 3, "num_speculative_tokens": 1}),
    "spectr without replacement": (
        "recursive",
        {"name": "spectr", "assistant": True, "chains": 2, "num_speculative_tokens": 2},
    ),
    "rsd-c": ("recursive", {"name": "rsd-c", "assistant": True, "branching": [2]}),
    "rsd-s": ("recursive", {"name": "rsd-s", "assistant": True, "beams": 2, "max_depth": 1}),
    "layer-skip, 2": ("recursive", {"name": "layer-skip", "num_speculative_tokens": 2}),
    "early-exit": ("recursive", {"name": "early-exit", "tree": [(0,), (1,), (0, 0)]}),
    "speculative-jacobi, 1": ("speculative", {"name": "speculative-jacobi", "num_speculative_tokens": 1}),
    "speculative-jacobi, 3": ("speculative", {"name": "speculative-jacobi", "num_speculative_tokens": 3}),
    "dynamic-tree, own cache": (
        "recursive",
        {"name": "dynamic-tree", "assistant": True, "num_speculative_tokens": 2, "max_depth": 2},
    ),
    "dynamic-tree": ("recursive", {"name": "dynamic-tree", "num_speculative_tokens": 3}),
    "sequoia": ("recursive", {"name": "sequoia", "assistant": True, "tree": [(0,), (1,), (0, 0)]}),
    "dyspec": ("recursive", {"name": "dyspec", "assistant": True, "num_speculative_tokens": 2, "max_depth": 2}),
    "dyspec-threshold": (
        "recursive",
        {"name": "dyspec-threshold", "assistant": True, "num_speculative_tokens": 2, "max_depth": 2},
    ),
    "s2d": (
        "speculative",
        {"name": "s2d", "assistant": True, "num_speculative_tokens": 2, "exits": [1, 3], "exit_threshold": 0.5},
    ),
    "layerskip": ("speculative", {"name": "layerskip", "num_speculative_tokens": 2}),
    "easyspec": (
        "speculative",
        {"name": "easyspec", "assistant": True, "num_speculative_tokens": 2, "parallel_layers": 4},
    ),
    "short-context": ("speculative", {"name": "short-context", "num_speculative_tokens": 2, "context_tokens": 2}),
    "eagle3, 1": ("speculative", {"name": "eagle3", "num_speculative_tokens": 1}),
    "eagle3, 2": ("speculative", {"name": "eagle3", "num_speculative_tokens": 2}),
    "eagle3, threshold": (
        "speculative",
        {"name": "eagle3", "num_speculative_tokens": 2, "assistant_confidence_threshold": 0.4},
    ),
    "draft-and-verify": ("speculative", {"name": "draft-and-verify", "num_speculative_tokens": 2}),
}

# Methods with trees, and their rule for sampled drafts.
SAMPLED_TREES = {
    "early-exit": "recursive",
    "dynamic-tree": "recursive",
    "spectr": "kseq",
    "rsd-c": "recursive",
    "rsd-s": "recursive",
    "sequoia": "recursive",
    "dyspec": "recursive",
    "dyspec-threshold": "recursive",
}


def keeps(case: dict[str, Any]) -> Keeps:
    """Return what the rule of a method keeps of plain decoding."""
    return load_acceptance(METHODS[case["name"]].acceptance).keeps


def test_a_method_whose_rule_keeps_the_distribution_alone_is_among_the_sampled_ones() -> None:
    """By its own rule, since its sampled tokens are not compared with plain decoding's."""
    others = {case["name"] for case in cases().values() if keeps(case) != Keeps.TOKENS}
    assert others == {case["name"] for rule, case in SAMPLED.values() if METHODS[case["name"]].acceptance == rule}


@cache
def plain(prompt: int, count: int, temperature: float = 0.0) -> list[int]:
    """Return the tokens of plain decoding after a prompt, whose number is the seed."""
    sampling = Sampling(temperature, rng=SeededRng(prompt))
    return World().method("plain").run(PROMPTS[prompt], count, sampling)[0]


LATER = pytest.param(range(1, 36), marks=pytest.mark.slow)  # Prompt 0 is the last one too.


@pytest.mark.parametrize("batch", [range(36, 40), LATER], ids=str)
@pytest.mark.parametrize("case", cases().values(), ids=cases())
def test_greedy_tokens_are_those_of_plain_decoding(case: dict[str, Any], batch: range) -> None:
    """150 tokens a prompt; every method but plain has drafts accepted, and the rows left are plain's own."""
    world, reference = World(), World()
    decoder, total = world.method(**case), 0
    for prompt in batch:
        tokens, accepted = decoder.run(PROMPTS[prompt], 150)
        assert tokens == plain(prompt, 150)
        total += accepted
    least = SHARES.get(case["name"], 0.05) * 150 * len(batch)
    assert (total > least) == (case["name"] != "plain")
    rows = len(world.cache)
    reference.prefill.extend(reference.cache, world.cache.tokens)
    got, right = (w.stores["target"].rows_LC[:, :rows] for w in (world, reference))
    assert np.array_equal(got, right)


@pytest.mark.parametrize("batch", [range(2), pytest.param(range(2, 12), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("case", cases().values(), ids=cases())
def test_sampled_tokens_are_those_of_plain_decoding(case: dict[str, Any], batch: range) -> None:
    """`match` draws one sample a token, in order, so the same seed gives the same tokens with any drafter."""
    decoder = World().method(**case, acceptance="match")
    for prompt in batch:
        tokens, _ = decoder.run(PROMPTS[prompt], 80, Sampling(0.8, rng=SeededRng(prompt)))
        assert tokens == plain(prompt, 80, 0.8)


@pytest.mark.parametrize("case", cases().values(), ids=cases())
def test_what_a_session_learnt_changes_no_token(case: dict[str, Any]) -> None:
    """The same prompt twice: a draft's cache may then hold every token but those to come."""
    decoder = World().method(**case)
    first, second = (decoder.run(PROMPTS[3], 150) for _ in range(2))
    assert first[0] == second[0]
    assert second[1] >= first[1]


class Unmoved(ToyKV):
    """A commit that leaves the accepted rows where they were run."""

    def commit(self, start: int, slots: Tokens[int]) -> None:
        pass


class Neighbours(ToyKV):
    """A commit of the slots before the accepted ones."""

    def commit(self, start: int, slots: Tokens[int]) -> None:
        super().commit(start, [slot - 1 for slot in slots] if displaced(slots) else slots)


class Causal(Toy):
    """A runner whose slots see every slot before them, at the right positions."""

    def topology(self) -> tuple[np.ndarray, np.ndarray]:
        mask_NT, depth_N = super().topology()
        return np.tril(np.ones_like(mask_NT)), depth_N


class Flat(Toy):
    """A runner with the right mask, at positions that count slots."""

    def topology(self) -> tuple[np.ndarray, np.ndarray]:
        mask_NT, _ = super().topology()
        return mask_NT, np.arange(len(mask_NT))


class Forgetful(Toy):
    """A runner that leaves the last layer's rows as they were."""

    def run(self) -> None:
        before = self.rows.rows_LC[LAYERS - 1].copy()
        super().run()
        self.rows.rows_LC[LAYERS - 1] = before


def tree_method(world: World, name: str, acceptance: str = "") -> Decoder:
    """Make a method of the table with its own rule or another, and with a draft model if it needs one."""
    return world.method(name, "assistant-model" in METHODS[name].needs, acceptance)


@pytest.mark.parametrize("wrong", [Unmoved, Neighbours, Causal, Flat, Forgetful])
@pytest.mark.parametrize("name", TREES)
def test_a_wrong_commit_mask_or_depth_is_noticed(name: str, wrong: type[Toy] | type[ToyKV]) -> None:
    """The control: what the tests above would say of a broken runtime."""
    world = World(rows=wrong) if issubclass(wrong, ToyKV) else World()
    decoder = tree_method(world, name)
    if issubclass(wrong, Toy):
        world.runner = wrong
        for engine in decoder.verifiers:  # In place, since drafters may name them too.
            vars(engine).update(vars(world.engine(engine.block)))
    assert all(decoder.run(PROMPTS[prompt], 75)[0] != plain(prompt, 150)[:75] for prompt in range(3))


def test_the_table_has_baked_trees_and_trees_that_change() -> None:
    """Otherwise the control above would have controlled nothing."""
    topologies = [e.block.topology for name in TREES for e in tree_method(World(), name).verifiers]
    assert any(isinstance(t, Parents) for t in topologies)
    assert any(isinstance(t, Tree) and not t.is_chain for t in topologies)


def two_tokens(decoder: Decoder, rng: Rng) -> tuple[int, ...]:
    """Return the first two sampled tokens after a fixed prompt."""
    prompt = [token % decoder.world.vocabulary for token in SAMPLED_PROMPT]
    return tuple(decoder.run(prompt, 2, Sampling(TEMPERATURE, rng=rng))[0])


def plain_distribution(vocabulary: int) -> dict[tuple[int, ...], float]:
    """Return the probability of each pair of tokens by plain decoding."""
    decoder = World(vocabulary).method("plain")
    return distribution(lambda rng: two_tokens(decoder, rng))


# Three siblings are enumerated by test_kseq.py too.
OTHERS = [name for name in SAMPLED if name != "spectr, 3"]


@pytest.mark.parametrize("name", [*sample(OTHERS, 5), pytest.param("spectr, 3", marks=pytest.mark.slow)])
def test_every_way_a_sampled_draft_can_fall_adds_up_to_the_target(name: str) -> None:
    acceptance, case = SAMPLED[name]
    decoder = World(3).method(acceptance=acceptance, **case)
    got = distribution(lambda rng: two_tokens(decoder, rng))
    assert total_variation(got, plain_distribution(3)) < 1e-12


@pytest.mark.parametrize("name", ["rsd-c", "rsd-s"])
def test_trees_of_two_levels_are_exact_in_a_language_of_two_tokens(name: str) -> None:
    values: dict[str, dict[str, Any]] = {"rsd-c": {"branching": [2, 1]}, "rsd-s": {"beams": 2, "max_depth": 2}}
    decoder = World(2).method(name, assistant=True, **values[name])
    samples = distribution(lambda rng: two_tokens(decoder, rng))
    assert total_variation(samples, plain_distribution(2)) < 1e-12


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "acceptance"), SAMPLED_TREES.items(), ids=SAMPLED_TREES)
def test_four_hundred_seeds_of_the_default_tree_pass_chi_square(name: str, acceptance: str) -> None:
    decoder = tree_method(World(6), name, acceptance)
    counts = Counter(two_tokens(decoder, SeededRng(seed)) for seed in range(400))
    assert not chi_square_rejects(counts, plain_distribution(6))


@pytest.mark.parametrize(("name", "acceptance"), [*SAMPLED_TREES.items(), ("layer-skip", "recursive")])
def test_sampled_drafts_are_accepted(name: str, acceptance: str) -> None:
    decoder = tree_method(World(), name, acceptance)
    assert decoder.run(SAMPLED_PROMPT, 200, Sampling(TEMPERATURE, rng=SeededRng(0)))[1] > 40
