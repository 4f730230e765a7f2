"""Chains of several widths in a bundle, and the recipes that run them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from specc.recipes.defaults import WIDTHS
from specc.runtime.bundle import open_bundle
from specc.tuning.chain_widths import chains, with_all_widths

pytestmark = [pytest.mark.torch, pytest.mark.model]


def test_a_recipe_of_several_widths_may_have_all_below_its_widest(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    assert list(chains(manifest)) == [1, *WIDTHS.curve]
    verify = {r.name: r.verify for r in with_all_widths(manifest, chains(manifest)).recipes}
    assert verify["prompt-lookup"] == ("decode", *(f"verify-chain-{n}" for n in (2, 4, 6, 8, 12)))
    assert verify["plain"] == ("decode",) and verify["early-exit"] == ("verify-early-exit",)


def test_a_width_that_one_backend_lacks_is_given_to_no_recipe(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    few = [replace(e, backend="other") for e in manifest.engines if e.name in ("decode", "verify-chain-4")]
    both = replace(manifest, engines=(*manifest.engines, *few))
    assert chains(both) == {1: "decode", 4: "verify-chain-4"}
