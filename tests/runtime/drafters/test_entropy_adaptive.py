"""Two models that take turns by their entropy."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from chance import chi_square_rejects
from toys import Decoder, World, prompts

from specc.recipes.blocks import DECODE
from specc.runtime.block import Block
from specc.runtime.drafters.entropy_adaptive import ModelSwitch, entropy
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Sequence
from specc.runtime.tree import Tree

PROMPTS = prompts(6, seed=3)
SMALL = Block(Tree.chain(1), model="assistant", cache="alone")


def decoder_of(threshold: float, vocabulary: int = 24, **parameters: Any) -> Decoder:
    return World(vocabulary).method("entropy-adaptive", assistant=True, entropy_threshold=threshold, **parameters)


def alone(prompt: list[int], count: int, block: Block) -> list[int]:
    """Return greedy tokens of one model, a token a call."""
    world, tokens = World(), list(prompt)
    engine, cache = world.engine(block), world.caches[block.cache]
    for _ in range(count):
        row = engine.extend(cache, cache.sync(tokens))
        tokens.append(int(engine.outputs.ids_N[row]))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("count", [1, 7])
def test_with_a_threshold_of_zero_the_large_model_writes_everything(count: int) -> None:
    decoder = decoder_of(0, num_speculative_tokens=count)
    for prompt in PROMPTS:
        assert decoder.run(prompt, 60) == (alone(prompt, 60, DECODE), 0)
    plain = World().method("plain")
    for seed, prompt in enumerate(PROMPTS):
        sampling = Sampling(0.9, rng=SeededRng(seed))
        assert decoder.run(prompt, 60, sampling)[0] == plain.run(prompt, 60, sampling)[0]


@pytest.mark.parametrize("count", [1, 7])
def test_with_an_endless_threshold_the_small_model_writes_everything(count: int) -> None:
    """The second request begins with caches that hold the first one's text."""
    decoder = decoder_of(100, num_speculative_tokens=count)
    for prompt in [*PROMPTS, PROMPTS[-1][:9]]:
        assert decoder.run(prompt, 60)[0] == alone(prompt, 60, SMALL)


@pytest.mark.thorough
def test_samples_with_an_endless_threshold_are_the_small_models() -> None:
    """By chi-square on the first token after a fixed prompt."""
    counts, prompt = Counter[int](), [2, 0, 1, 1]
    decoder = decoder_of(100, vocabulary=6, num_speculative_tokens=1)
    for seed in range(1500):
        counts[decoder.run(prompt, 1, Sampling(1.0, rng=SeededRng(seed)))[0][0]] += 1
    world = World(6)
    engine = world.engine(SMALL)
    engine.extend(world.caches["alone"], prompt)
    assert engine.outputs.logits_NV is not None
    probs = Sampling(1.0).probs(engine.outputs.logits_NV[0])
    assert not chi_square_rejects(counts, dict(enumerate(probs.tolist())))


def share_of_the_large_model(threshold: float) -> tuple[float, float]:
    """Return the share of tokens that the large model chose, and the share that differs from its own greedy answer."""
    decoder, own, tokens, changed = decoder_of(threshold), 0, 0, 0
    for prompt in PROMPTS:
        seq = Sequence(list(prompt), decoder.world.caches)
        for draft, accepted in decoder.steps(seq):
            own += accepted.slots[-1] not in draft.logits
            tokens += len(accepted.slots)
            if len(seq.tokens) > len(prompt) + 100:
                break
        new = seq.tokens[len(prompt) :][:100]
        changed += sum(a != b for a, b in zip(new, alone(prompt, 100, DECODE), strict=True))
    return own / tokens, changed / (100 * len(PROMPTS))


@pytest.mark.thorough
def test_entropy_adaptive_asks_the_large_model_less_as_the_threshold_rises_and_the_answers_diverge() -> None:
    shares = {t: share_of_the_large_model(t) for t in (0, 1.3, 1.5, 1.6, 1.8, 100)}
    large = [share for share, _ in shares.values()]
    assert large == sorted(large, reverse=True) and large[0] == 1 and large[-1] == 0 and len(set(large)) > 4
    changed = [share for _, share in shares.values()]
    assert changed[0] == 0 and changed[1] > 0 and changed[-1] > changed[1]


def test_a_model_stays_for_its_least_tokens_and_switches_by_the_mean_of_the_window() -> None:
    sure, unsure = np.array([50.0, 0, 0, 0]), np.zeros(4)  # 0 and 2 bits
    switch, active = ModelSwitch(threshold=1.0, window=2, least=3), []
    assert not switch.large
    for logits in (unsure, unsure, unsure, sure, sure, sure, sure):
        switch.record(logits)
        active.append(switch.large)
    assert active == [False, False, True, True, True, False, False]


def test_entropy_is_in_bits() -> None:
    assert entropy(np.zeros(8, np.float32)) == pytest.approx(3)
    assert entropy(np.array([0, -np.inf, 0], np.float32)) == pytest.approx(1)
    assert entropy(np.array([900, 0], np.float32)) == 0


def test_a_switch_to_the_large_model_ends_the_draft_and_costs_no_draft_after_it() -> None:
    decoder = decoder_of(1.5, num_speculative_tokens=2)
    seq = Sequence(list(PROMPTS[0]), decoder.world.caches)
    kinds = Counter[tuple[bool, bool]]()
    for (draft, _), _ in zip(decoder.steps(seq), range(30), strict=False):
        kinds[len(draft.tokens) > 1, bool(draft.logits)] += 1
    assert kinds[True, True] and kinds[True, False] and kinds[False, False] and not kinds[False, True]
