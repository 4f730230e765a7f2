"""Trees of a draft model: which blocks they need, and Sequoia's prediction."""

from __future__ import annotations

from typing import Any

import pytest
from toys import World, prompts

from specc.recipes.draft_trees import CAPE, DYNAMIC_DEPTH, DYSPEC, DYSPEC_THRESHOLD, SEQUOIA, STAGED_TREE
from specc.recipes.entry import Facts, Method, MethodBlocks
from specc.runtime.block import Block, Frontier, Parents
from specc.runtime.errors import RecipeError
from specc.runtime.sequence import Sequence
from specc.runtime.tree import Tree
from specc.tuning.best_tree import Costs, best_tree, expected

FACTS = Facts(8, 500, assistant=True, assistant_layers=4)
RATES = (0.6, 0.2, 0.1)


def plan(m: Method, **values: Any) -> MethodBlocks:
    return m.plan(m.settle(values), FACTS)


def test_the_tree_of_sequoia_is_the_best_one_for_its_rates() -> None:
    blocks = plan(SEQUOIA, num_speculative_tokens=7, max_depth=3, acceptance_rates=RATES)
    tree = Tree.best(RATES, 8, 3)
    assert blocks.verify == (Block(tree),) and blocks.arguments == {"tree": tree.parents}
    assert blocks.engines["draft"].topology == Frontier(3, 4 + 8)
    rising = plan(SEQUOIA, num_speculative_tokens=3, acceptance_rates=(0.1, 0.8)).verify[0].topology
    assert isinstance(rising, Tree) and rising.parents == Tree.best((0.1, 0.8), 4, 5).parents
    literal = plan(SEQUOIA, tree=[(0,), (1,)]).verify[0].topology
    assert literal == Tree((-1, 0, 0))


def test_the_size_that_sequoia_chooses_changes_with_the_costs_of_a_step() -> None:
    flat = best_tree(RATES, Costs(dict.fromkeys(range(1, 17), 10.0), call=1, slots=4), 6)
    steep = best_tree(RATES, Costs({slots: 10.0 * slots for slots in range(1, 17)}, call=1, slots=4), 6)
    dear_drafts = best_tree(RATES, Costs(dict.fromkeys(range(1, 17), 10.0), call=9, slots=4), 6)
    assert steep.slots < flat.slots == 16 and dear_drafts.depth.max() < flat.depth.max()


def test_the_accepted_length_that_sequoia_predicts_is_that_of_the_toys() -> None:
    """Within 10 %: rates measured on some prompts predict the tokens a step on others."""
    tree = [(0,), (1,), (2,), (0, 0), (0, 1), (1, 0), (0, 0, 0)]
    first, second = prompts(16, seed=1), prompts(16, seed=2)

    def run(texts: list[list[int]]) -> tuple[list[float], float]:
        decoder, trials, hits, steps, tokens = (
            World().method("sequoia", assistant=True, tree=tree),
            [0] * 3,
            [0] * 3,
            0,
            0,
        )
        for text in texts:
            for draft, length, path in decoded(decoder, text):
                steps, tokens = steps + 1, tokens + length
                for slot in path:
                    children = draft.tree.children[slot]
                    for rank, child in enumerate(children):
                        trials[rank] += 1
                        hits[rank] += child in path
        return [hit / max(1, trial) for hit, trial in zip(hits, trials, strict=True)], tokens / steps

    rates, _ = run(first)
    _, measured = run(second)
    assert expected(Tree.from_paths(tree), rates) == pytest.approx(measured, rel=0.1)


def decoded(decoder: Any, text: list[int]) -> list[Any]:
    """Return the draft, the new tokens and the accepted slots of some steps."""
    seq = Sequence(list(text), decoder.world.caches)
    steps = zip(decoder.steps(seq), range(25), strict=False)
    return [(draft, len(accepted.slots), accepted.slots) for (draft, accepted), _ in steps]


@pytest.mark.parametrize(("m", "width"), [(DYSPEC, 1), (DYSPEC_THRESHOLD, 4)])
def test_dyspec_has_an_engine_for_any_tree(m: Method, width: int) -> None:
    blocks = plan(m, num_speculative_tokens=9)
    assert blocks.verify == (Block(Parents(10)),) and blocks.engines["draft"].topology == Frontier(width, 4 + 10)


def test_the_rows_of_a_beam_are_those_of_all_its_levels() -> None:
    blocks = plan(DYNAMIC_DEPTH, beams=3, max_depth=4, num_speculative_tokens=6)
    assert blocks.verify == (Block(Parents(7)),) and blocks.engines["draft"].topology == Frontier(3, 4 + 13)
    assert plan(STAGED_TREE, max_depth=2).engines["draft"].topology == Frontier(8, 1 + 8 * 3)


def test_a_comb_is_drafted_by_one_slot() -> None:
    blocks = plan(CAPE, num_speculative_tokens=9)
    assert blocks.verify == (Block(Parents(10)),) and blocks.engines["draft"].slots == 1
    assert blocks.arguments.keys() == CAPE.parameters.keys()


@pytest.mark.parametrize(
    ("m", "values", "message"),
    [
        (SEQUOIA, {"acceptance_rates": []}, r"give 1 to 8 probabilities, such as \[0.6, 0.2\]"),
        (SEQUOIA, {"acceptance_rates": [2]}, "acceptance_rates is 2; give a number from 0 to 1"),
        (SEQUOIA, {"tree": [(rank,) for rank in range(9)]}, r"a draft ranks 8 tokens: use ranks 0\.\.7"),
        (DYSPEC, {"max_depth": 0}, "max_depth is 0; give a whole number from 1 to 127"),
        (DYNAMIC_DEPTH, {"mass_threshold": 2}, "mass_threshold is 2; give a number from 0 to 1"),
        (DYNAMIC_DEPTH, {"mass_depths": 3}, r"mass_depths is 3; give a list of depths from 1 to 127, such as \[3, 5\]"),
        (CAPE, {"siblings": [[0.5, 2]]}, "give falling ones, of which the last is 0"),
    ],
)
def test_a_value_out_of_range_is_refused(m: Method, values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        plan(m, **values)


@pytest.mark.parametrize(
    "m", [SEQUOIA, DYSPEC, DYSPEC_THRESHOLD, DYNAMIC_DEPTH, STAGED_TREE, CAPE], ids=lambda m: m.name
)
def test_they_are_lossless_and_no_defaults(m: Method) -> None:
    assert m.lossless and not m.by_default and m.needs == ("assistant-model",)
