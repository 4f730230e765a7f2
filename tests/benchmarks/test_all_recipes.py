"""The script that measures all recipes: what it leaves out, and its table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from scripts import load_script

from specc.recipes import METHODS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "all_recipes.py"


@pytest.fixture(scope="module")
def script() -> Any:
    return load_script(SCRIPT)


def test_what_a_model_lacks_is_named(script: Any) -> None:
    for name, setting in script.SETTINGS.items():
        reasons = {m.name: script.missing(m, setting) for m in METHODS.values()}
        absent = {recipe for recipe, reason in reasons.items() if reason}
        assert "medusa" in absent and "no head of their kinds is trained" in reasons["medusa"]
        assert ("draft-model" in absent) == ("fs-gen-proxy" in absent) == (name == "smollm2")
        assert not {"plain", "swift", "superposed", "rasd", "eagle3"} & absent
    assert script.missing(METHODS["bild"], script.SETTINGS["smollm2"]).startswith("no smaller model has the tokenizer")


def test_its_models_heads_and_corpora_exist(script: Any) -> None:
    for setting in script.SETTINGS.values():
        assert all(path.exists() for path in (*setting.options.values(), *setting.heads.values()))


def rows(speeds: Mapping[str, float], plain: float = 40) -> list[dict[str, Any]]:
    """Return rows as `specc bench --json` has them, by the speed of each recipe as a multiple of plain decoding's."""
    return [
        {
            "recipe": recipe,
            "category": category,
            "tokens_per_second": plain * speed,
            "speedup": speed,
            "mean_acceptance_length": None if recipe == "plain" else 2.5,
            "changed": 0.25 if recipe == "bild" else 0.0,
            "verify_share": 0.25,
            "host_share": 0.05,
        }
        for category in ("chat", "code", "all")
        for recipe, speed in speeds.items()
    ]


def test_the_table_has_losers_and_says_what_is_lossy(script: Any) -> None:
    table = rows({"plain": 1.0, "bild": 1.5, "jacobi": 0.5})
    assert script.markdown(table).splitlines() == [
        "| recipe | tokens/s | x plain | chat | code | tokens a step | changed | target | draft | host |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| `bild` (lossy) | 60.0 | 1.50 | 1.50 | 1.50 | 2.50 | 25% | 25% | 70% | 5% |",
        "| `plain` | 40.0 | 1.00 | 1.00 | 1.00 | 1.00 | 0% | 25% | 70% | 5% |",
        "| `jacobi` | 20.0 | 0.50 | 0.50 | 0.50 | 2.50 | 0% | 25% | 70% | 5% |",
    ]
    assert script.bounds(table) == (
        "- `jacobi` takes 2.00 times as long as plain decoding, most of it in the draft's engines: 0.50 in the target, "
        "1.40 in the draft's engines, 0.10 on the host. A step with a draft gives 2.50 tokens."
    )


def test_plain_decoding_is_taken_from_the_group_in_which_its_speed_was_the_median(script: Any) -> None:
    groups = [{"rows": rows({"plain": 1.0, name: 2.0}, plain)} for name, plain in (("a", 30), ("b", 50), ("c", 40))]
    table = script.merged(groups)
    assert [row["tokens_per_second"] for row in table if row["recipe"] == "plain"] == [40] * 3
    assert script.by_speed(table) == ["a", "b", "c", "plain"]


def test_a_group_that_has_a_report_is_not_measured_again(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "all.specc"
    bundle.mkdir()
    (bundle / "manifest.json").write_text(json.dumps({"recipes": [{"name": "plain"}, {"name": "jacobi"}]}))
    calls: list[str] = []

    def run(*arguments: object) -> str:
        calls.append(str(arguments[3]))
        return json.dumps({"rows": [len(calls)]})

    monkeypatch.setattr(script, "run", run)
    names = ["plain", *(f"r{number}" for number in range(script.GROUP + 1))]
    first = script.measure(bundle, names, ["--rounds", 1], False)
    assert first == script.measure(bundle, names, ["--rounds", 1], False) == [{"rows": [1]}, {"rows": [2]}]
    assert calls == [",".join(names[1:-1]), names[-1]]
    script.measure(bundle, names, ["--rounds", 2], False)  # Another setting is another report.
    script.measure(bundle, names, ["--rounds", 2], True)
    assert len(calls) == 6
    assert script.compiled_recipes(bundle) == {"plain", "jacobi"} and not script.compiled_recipes(tmp_path / "none")


def test_the_page_has_a_part_for_each_model(script: Any) -> None:
    page = script.PAGE.read_text(encoding="utf-8")
    for name in script.SETTINGS:
        assert "new" in script.updated(page, {f"all-recipes-{name}": "new"})


def test_recipes_that_are_left_out_are_listed_by_their_reason(script: Any) -> None:
    reasons = {"plain": "", "medusa": "no head", "bild": "no model", "hydra": "no head"}
    assert script.absent(reasons).splitlines() == [
        "Left out, since no head: `medusa`, `hydra`.",
        "Left out, since no model: `bild`.",
    ]
