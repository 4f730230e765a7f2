"""Recipes with other values of a parameter."""

from __future__ import annotations

from pathlib import Path

import pytest
from doubles.toy_bundle import write_bundle

from specc.bench.variants import with_variants
from specc.runtime.bundle import open_bundle
from specc.runtime.errors import RecipeError
from specc.runtime.manifest import Manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    write_bundle(tmp_path / "all.specc")
    return open_bundle(tmp_path / "all.specc").manifest


def test_each_value_is_a_recipe_of_its_own(manifest: Manifest) -> None:
    changed, names = with_variants(manifest, ["rapid.eta=0, 2.5", "jacobi.num_speculative_tokens=2"])
    assert names == ["rapid eta=0", "rapid eta=2.5", "jacobi num_speculative_tokens=2"]
    recipes = {recipe.name: recipe for recipe in changed.recipes}
    assert recipes["rapid eta=2.5"].rule_parameters == {**recipes["rapid"].rule_parameters, "eta": 2.5}
    assert recipes["rapid eta=2.5"].parameters == recipes["rapid"].parameters
    assert recipes["jacobi num_speculative_tokens=2"].parameters["num_speculative_tokens"] == 2
    assert with_variants(manifest, []) == (manifest, [])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rapid", "is not RECIPE.PARAMETER=VALUE,VALUE; for example"),
        ("rapid=2", "is not RECIPE.PARAMETER=VALUE,VALUE; for example"),
        ("rappid.eta=1", "the bundle has no recipe 'rappid'; did you mean 'rapid'"),
        ("rapid.etta=1", "recipe rapid has no parameter 'etta' to vary; did you mean 'eta'"),
        ("rapid.eta=x()", r"'\[x\(\)\]' is not a Python literal; write a list of numbers: 0,2,5"),
        (f"rapid.eta=0x{'f' * 5000}", "has a whole number of 20000 bits; write one of 63 bits"),
    ],
)
def test_what_cannot_be_varied_is_one_line(setting: str, message: str, manifest: Manifest) -> None:
    with pytest.raises(RecipeError, match=message):
        with_variants(manifest, [setting])
