"""Costs of a bundle of another model are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from shell import refused, specc

from specc.huggingface import describe, load_model
from specc.runtime.errors import HeadError
from specc.runtime.manifest import ModelSpec
from specc.training.costs import check_costs

pytestmark = pytest.mark.torch
FEW = ("--prompts", 10, "--answer-tokens", 12, "--held-out", 2, "--updates", 2)


def let_the_bundle_be_of(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = SimpleNamespace(manifest=SimpleNamespace(model=spec))
    monkeypatch.setattr("specc.training.costs.open_bundle", lambda path: bundle)
    monkeypatch.setattr("specc.cli.train._costs", lambda path: {1: 1.0, 2: 1.1, 8: 1.5})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 9}, "its number of layers is 9, and that of small is "),
        ({"vocab_size": 77}, "its number of tokens is 77, and that of small is "),
        ({"architecture": "OtherForCausalLM"}, "its architecture is OtherForCausalLM, and that of small is "),
    ],
)
def test_a_bundle_of_a_model_of_another_size_is_refused(
    change: dict[str, object], message: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = load_model(str(model))
    spec = replace(describe(here, str(model)), source="elsewhere", **change)  # type: ignore[arg-type]  # fields by name
    let_the_bundle_be_of(spec, monkeypatch)
    with pytest.raises(HeadError, match=f"--costs m.specc is a bundle of another model, elsewhere: {message}"):
        check_costs(Path("m.specc"), here, "small")
    check_costs(None, here, "small")
    let_the_bundle_be_of(replace(spec, **{name: getattr(describe(here, ""), name) for name in change}), monkeypatch)
    check_costs(Path("m.specc"), here, "small")


@pytest.mark.parametrize("recipe", ["eagle3", "draft-model"])
def test_trainings_that_read_costs_check_their_bundle_before_they_record(
    recipe: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = describe(load_model(str(model)), str(model))
    arguments = ("train", model, "--recipe", recipe, "-o", tmp_path / "h", *FEW, "--costs", "m.specc", "--json")
    let_the_bundle_be_of(replace(spec, layers=9), monkeypatch)
    assert "--costs m.specc is a bundle of another model" in refused(*arguments)
    assert not list((tmp_path / "h.training").glob("*.safetensors"))
    let_the_bundle_be_of(spec, monkeypatch)
    assert specc(*arguments).json["gain"]["speedup"] > 0
