"""Methods that draft by a second model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from chance import distribution, total_variation
from toys import World, prompts

from specc.recipes import METHODS
from specc.recipes.blocks import DECODE, prefill
from specc.recipes.draft_model import CONTRASTIVE, DRAFT_MODEL
from specc.recipes.entry import Facts
from specc.runtime.block import Block
from specc.runtime.errors import RecipeError
from specc.runtime.method import load_method
from specc.runtime.recipe import Recipe
from specc.runtime.rng import Rng, SeededRng, Use
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree

FACTS = Facts(8, 500, assistant=True)
PROMPTS = prompts(4, seed=5)


def test_a_draft_model_has_a_cache_and_a_prefill_of_its_own() -> None:
    blocks = DRAFT_MODEL.plan(DRAFT_MODEL.settle({}), FACTS)
    assert blocks.engines["prefill"] == prefill("assistant")
    draft = blocks.engines["draft"]
    assert (draft.model, draft.cache, draft.slots) == ("assistant", "assistant", 1)
    assert DRAFT_MODEL.needs == ("assistant-model",)
    assert [block.slots for block in blocks.verify] == [1, 4]


def lossy(name: str, world: World | None = None, **parameters: Any) -> Any:
    """Return a decoder of a method with a draft model."""
    return (world or World()).method(name, assistant=True, **parameters)


def plain_contrastive(prompt: list[int], count: int, alpha: float, beta: float, sampling: Sampling, size: int) -> Any:
    """Return `count` tokens of contrastive decoding without speculation, by both models one token at a time."""
    world, tokens = World(size), list(prompt)
    assistant = world.engine(Block(Tree.chain(1), model="assistant", cache="assistant"))
    for _ in range(count):
        logits = []
        for engine, name in ((world.engine(DECODE), "target"), (assistant, "assistant")):
            cache = world.caches[name]
            engine.extend(cache, cache.sync(tokens))
            assert engine.outputs.logits_NV is not None
            logits.append(engine.outputs.logits_NV[0].copy())
        target, amateur = logits
        scores = (1 + beta) * target - beta * amateur
        scores[np.exp(target - target.max()) < alpha] = -np.inf
        if sampling.greedy:
            tokens.append(int(scores.argmax()))
        else:
            tokens.append(sampling.rng.at(len(tokens), Use.TOKEN).pick(sampling.probs(scores)))
    return tokens[len(prompt) :]


@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 0.5), (0.0, 2.0), (0.5, 1.0)])
@pytest.mark.parametrize("count", [1, 4])
def test_greedy_contrastive_answers_are_those_without_speculation(count: int, alpha: float, beta: float) -> None:
    decoder = lossy("contrastive", num_speculative_tokens=count, alpha=alpha, beta=beta)
    plain = World().method("plain")
    hits, differ = 0, False
    for prompt in PROMPTS:
        tokens, accepted = decoder.run(prompt, 80)
        assert tokens == plain_contrastive(prompt, 80, alpha, beta, Sampling(), decoder.world.vocabulary)
        hits, differ = hits + accepted, differ or tokens != plain.run(prompt, 80)[0]
    assert hits > 40 and differ


def test_every_way_a_contrastive_sample_can_fall_adds_up_to_contrastive_decoding() -> None:
    """And not to plain decoding, which the recipe does not promise."""
    decoder, prompt = lossy("contrastive", World(3), num_speculative_tokens=2), [2, 0, 1, 1]

    def speculative(rng: Rng) -> tuple[int, ...]:
        return tuple(decoder.run(prompt, 2, Sampling(1.3, rng=rng))[0])

    def without(rng: Rng) -> tuple[int, ...]:
        return tuple(plain_contrastive(prompt, 2, 0.1, 0.5, Sampling(1.3, rng=rng), 3))

    plain = World(3).method("plain")
    samples = distribution(speculative)
    assert total_variation(samples, distribution(without)) < 1e-6  # logits are float32
    target = distribution(lambda rng: tuple(plain.run(prompt, 2, Sampling(1.3, rng=rng))[0]))
    assert total_variation(samples, target) > 0.01


def test_contrastive_decoding_without_contrast_is_plain_decoding() -> None:
    decoder, plain = lossy("contrastive", alpha=0, beta=0), World().method("plain")
    for prompt in PROMPTS:
        assert decoder.run(prompt, 80)[0] == plain.run(prompt, 80)[0]


def test_a_contrastive_recipe_is_no_default_and_its_parameters_are_checked() -> None:
    assert not CONTRASTIVE.lossless and not CONTRASTIVE.by_default
    blocks = CONTRASTIVE.plan(CONTRASTIVE.settle({"beta": 1.5}), FACTS)
    assert blocks.rule == {"alpha": 0.1, "beta": 1.5} and blocks.arguments.keys() == {
        "num_speculative_tokens",
        "assistant_confidence_threshold",
    }
    with pytest.raises(RecipeError, match="alpha of acceptance contrastive is 2; give 0 to 1"):
        CONTRASTIVE.plan(CONTRASTIVE.settle({"alpha": 2}), FACTS)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_bild_with_a_rollback_threshold_of_zero_is_plain_decoding(temperature: float) -> None:
    decoder, plain = lossy("bild", rollback_threshold=0), World().method("plain")
    for seed, prompt in enumerate(PROMPTS):
        sampling = Sampling(temperature, rng=SeededRng(seed))
        assert decoder.run(prompt, 80, sampling) == (plain.run(prompt, 80, sampling)[0], 0)


@pytest.mark.thorough
def test_bild_asks_the_big_model_less_and_diverges_more_as_the_rollback_threshold_rises() -> None:
    plain = World().method("plain")
    calls, changed = [], []
    for threshold in (0, 0.5, 1, 2, 100):
        decoder = lossy("bild", rollback_threshold=threshold, fallback_threshold=0.3)
        before = sum(engine.calls for engine in decoder.verifiers)
        answers = [decoder.run(prompt, 150)[0] for prompt in PROMPTS]
        calls.append(sum(engine.calls for engine in decoder.verifiers) - before)
        right = [plain.run(prompt, 150)[0] for prompt in PROMPTS]
        changed.append(int((np.array(answers) != np.array(right)).sum()))
    assert calls == sorted(calls, reverse=True) and calls[0] == 150 * len(PROMPTS) and calls[-1] < calls[0] / 2
    assert changed == sorted(changed) and changed[0] == 0 and changed[-1] > 0


def test_bild_falls_back_before_a_token_that_the_small_model_doubts() -> None:
    decoder = lossy("bild", fallback_threshold=0.5)
    lengths = set()
    for draft, calls in list(decoder.drafts(PROMPTS[0]))[1:]:
        doubted = np.exp(decoder.drafter.engine.outputs.top_logprobs_NK[0, 0]) < 0.5
        assert doubted or len(draft.tokens) == 11
        assert calls >= len(draft.tokens) - 1 + doubted
        lengths.add(len(draft.tokens))
    assert len(lengths) > 2


@pytest.mark.parametrize("name", ["bild", "entropy-adaptive", "contrastive"])
def test_a_lossy_recipe_says_so_and_is_no_default(name: str) -> None:
    """Statistics of a request say so, too."""
    m = METHODS[name]
    assert not m.lossless and not m.by_default
    recipe = Recipe(name=name, drafter=m.drafter, verify=(), acceptance=m.acceptance, lossless=m.lossless)
    assert not load_method(recipe).is_lossless(Sampling())
    assert name == "contrastive" or ("lossy" in m.title and any("lossy" in p.help for p in m.parameters.values()))
