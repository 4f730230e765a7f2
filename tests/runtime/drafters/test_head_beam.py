"""Beam search by a trained head: the prefix tree, and why the paper's rule for sampling is not used."""

from __future__ import annotations

import numpy as np
import pytest
from toys import World, prompts

from specc.runtime.drafters.head_beam import HeadBeam
from specc.runtime.errors import RecipeError
from specc.runtime.method import load_method
from specc.runtime.recipe import Recipe
from specc.runtime.tree import Tree

PROMPT = prompts(3)[2]


def paths(tree: Tree, tokens: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the tokens from below the pending one to each node."""
    result: list[tuple[int, ...]] = [()]
    for slot in range(1, tree.slots):
        result.append((*result[tree.parents[slot]], tokens[slot]))
    return result[1:]


@pytest.mark.parametrize(("beams", "depth", "calls"), [(1, 3, 3), (3, 4, 3), (4, 2, 1)])
def test_the_tree_has_no_beginning_twice_and_all_its_texts_are_equally_long(beams: int, depth: int, calls: int) -> None:
    """The pending token runs by the narrowest engine, which is that of the beam if it has one slot."""
    decoder = World().method("recurrent-drafter", beams=beams, max_depth=depth)
    shared = 0
    for draft, count in decoder.drafts(PROMPT, steps=20):
        nodes = paths(draft.tree, draft.tokens)
        assert len(set(nodes)) == len(nodes) <= beams * depth
        leaves = [node for slot, node in enumerate(nodes, 1) if slot not in draft.tree.parents]
        assert len(leaves) == beams and {len(leaf) for leaf in leaves} == {depth}
        assert count == calls
        shared += beams * depth - len(nodes)
    assert shared or beams == 1


def test_one_beam_is_the_chain_of_the_likeliest_tokens() -> None:
    beam = World().method("recurrent-drafter", beams=1, max_depth=4)
    tree = World().method("recurrent-drafter", beams=4, max_depth=1)
    for (chain, _), (level, _) in zip(beam.drafts(PROMPT, steps=5), tree.drafts(PROMPT, steps=1), strict=False):
        assert chain.tree.is_chain and chain.tokens[1] in level.tokens[1:]


def test_a_parameter_out_of_range_is_refused() -> None:
    engine = World().prefill
    with pytest.raises(RecipeError, match="beams is 0"):
        HeadBeam(engine, engine, engine, beams=0)


def emitted(target: np.ndarray, draft: np.ndarray, proposals: np.ndarray) -> np.ndarray:
    """Return the distribution of the token that the rule min(1, p / q) emits, by enumeration.

    Args:
        target: p, [V].
        draft: q, [V].
        proposals: how often each token is proposed, [V].
    """
    accepted = proposals * np.minimum(1, target / draft)
    rest = np.maximum(target - draft, 0)
    residual = rest / rest.sum() if rest.sum() else target
    result: np.ndarray = accepted + (1 - accepted.sum()) * residual
    return result


def test_the_papers_rule_is_biased_for_a_beam_and_exact_for_a_sample() -> None:
    """A negative control. The paper accepts a beam's tokens by min(1, p / q), as if they were samples of q."""
    rng, biases = np.random.default_rng(0), []
    for _ in range(50):
        p, q = rng.dirichlet(np.ones(4), 2)
        best = np.eye(4)[q.argmax()]
        biases.append(np.abs(emitted(p, q, best) - p).max())
        assert np.abs(emitted(p, q, q) - p).max() < 1e-12
    assert np.mean(biases) > 0.05 and max(biases) > 0.3


def test_the_runtime_refuses_that_rule_for_beams() -> None:
    recipe = Recipe(name="r", drafter="head-beam", verify=("decode",), acceptance="match", engines={})
    with pytest.raises(RecipeError, match=r"acceptance 'speculative' needs a drafter that samples.*; use match"):
        load_method(recipe, "speculative")
