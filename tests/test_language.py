"""The controls of the acceptance rules' tests: a rule that is known to be biased fails them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from chance import chi_square_rejects
from language import (
    Propose,
    deviation,
    first_two,
    independent_tree,
    joint,
    language,
    likeliest,
    sampled_chain,
    sampled_tree,
    with_replacement,
)

from specc.recipes.axes import RULES
from specc.runtime.acceptance import Acceptance, Keeps
from specc.runtime.acceptance.kseq import kseq
from specc.runtime.acceptance.match import match
from specc.runtime.acceptance.recursive import recursive
from specc.runtime.acceptance.speculative import speculative
from specc.runtime.method import load_acceptance
from specc.runtime.rng import SeededRng
from specc.runtime.tree import Tree

TREE = Tree.from_paths([(0,), (1,), (0, 0), (0, 1), (1, 0)])


@pytest.mark.parametrize("count", [1, 2])
def test_the_enumeration_rejects_the_biased_rule(count: int) -> None:
    """With more languages, the largest deviations of one token's probabilities are 0.59 and 0.77."""
    worst = max(deviation(with_replacement, likeliest(count, language(100 + s)), language(s)) for s in range(50))
    assert worst > 0.4


def test_every_rule_that_keeps_the_distribution_is_enumerated_and_has_a_biased_control() -> None:
    """Each in a file of its own, which compares joint distributions to 1e-12. `match` is exact for any draft."""
    exact = {name for name in RULES if load_acceptance(name).keeps != Keeps.NOTHING}
    assert exact == {"match", "speculative", "recursive", "kseq"}
    for name in exact:
        source = (Path(__file__).parent / "runtime" / "acceptance" / f"test_{name}.py").read_text(encoding="utf-8")
        assert "< 1e-12" in source and (name == "match" or "likeliest(" in source)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("accept", "propose", "rejected"),
    [
        (with_replacement, likeliest(1, language(101)), True),
        (with_replacement, likeliest(2, language(101)), True),
        (match, likeliest(2, language(101)), False),
        (speculative, sampled_chain(3, language(101)), False),
        (recursive, sampled_tree(TREE, language(101)), False),
        (kseq, independent_tree(TREE, language(101)), False),
    ],
    ids=["biased-1", "biased-2", "match", "speculative", "recursive", "kseq"],
)
def test_chi_square_of_a_seeded_rng_rejects_the_biased_rule_alone(
    accept: Acceptance, propose: Propose, rejected: bool
) -> None:
    target = language(1)
    counts = Counter(first_two(accept, propose, target, SeededRng(seed)) for seed in range(2000))
    assert chi_square_rejects(counts, joint(target)) is rejected
