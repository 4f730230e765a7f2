"""The check of benchmarks: ratios of two results of one machine, and an exit status that says whether one fell."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripts import load_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "check.py"
MACHINE = {"cpu": "Intel(R) Xeon(R) Processor @ 2.5GHz", "cores": 2, "threads": 2}


@pytest.fixture(scope="module")
def check() -> ModuleType:
    return load_script(SCRIPT)


def row(recipe: str, speedup: float, length: float | None = 1.0, system: str = "specc", category: str = "all") -> Any:
    return {
        "system": system,
        "recipe": recipe,
        "category": category,
        "speedup": speedup,
        "mean_acceptance_length": length,
    }


def report(speedup: float = 2.0, step: float = 3.0, decode: float = 2.0, length: float = 3.0) -> dict[str, Any]:
    """Make the part of a result that the check reads."""
    return {
        "machine": MACHINE,
        "rows": [
            row("plain", 1.0, category="a"),
            row("lookup", 9.0, category="a"),
            row("plain", 1.0),
            row("lookup", speedup, length),
            row("ngram", 1.5, None, "peer"),
        ],
        "step_costs": [
            {"engine": "decode", "context": 64, "milliseconds": decode},
            {"engine": "verify", "context": 64, "milliseconds": step},
        ],
        "against": [{"system": "peer", "ratio": 1.2}],
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A directory with two results of the machine, of which the later one counts."""
    folder = tmp_path / "results" / "intel-xeon-processor-2-5ghz-2-cores-2-threads"
    folder.mkdir(parents=True)
    (folder / "2026-01-02-demo.json").write_text(json.dumps(report()))
    (folder / "2026-01-01-demo.json").write_text(json.dumps(report(speedup=20.0)))
    (folder / "2026-01-03-other.json").write_text(json.dumps(report(speedup=20.0)))
    return tmp_path / "results"


def run(check: ModuleType, tmp_path: Path, results: Path, new: dict[str, Any], *options: str) -> int:
    file = tmp_path / "new.json"
    file.write_text(json.dumps(new))
    status: int = check.main(["--new", str(file), "--results", str(results), *options])
    return status


def test_ratios_are_those_on_all_prompts_and_more_is_better(check: ModuleType) -> None:
    assert check.ratios(report()) == {
        "lookup, speed / plain decoding": 2.0,
        "lookup, mean acceptance length": 3.0,
        "peer ngram, speed / plain decoding": 1.5,
        "verify after 64 rows, decode / step": pytest.approx(2 / 3),
        "specc / peer": 1.2,
    }


def test_a_slower_machine_changes_no_ratio(
    check: ModuleType, tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(check, tmp_path, results, report(step=30.0, decode=20.0)) == 0
    assert "0 of 5 ratios fell by more than 15%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"speedup": 1.71}, 0),
        ({"speedup": 1.69}, 1),
        ({"step": 3.5}, 0),
        ({"step": 3.6}, 1),
        ({"length": 2.5}, 1),
        ({"speedup": 4.0, "step": 1.0}, 0),
    ],
)
def test_a_ratio_that_fell_by_more_than_the_allowed_share_is_status_1(
    change: dict[str, float], status: int, check: ModuleType, tmp_path: Path, results: Path
) -> None:
    assert run(check, tmp_path, results, report(**change)) == status


def test_the_share_may_be_chosen(check: ModuleType, tmp_path: Path, results: Path) -> None:
    assert run(check, tmp_path, results, report(speedup=1.5), "--allowed-fall", "0.3") == 0
    assert run(check, tmp_path, results, report(speedup=1.9), "--allowed-fall", "0.01") == 1


def test_a_recipe_that_is_gone_fails(
    check: ModuleType, tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = report()
    new["rows"] = [each for each in new["rows"] if each["recipe"] != "lookup"]
    assert run(check, tmp_path, results, new) == 1
    assert "gone" in capsys.readouterr().out


def test_a_machine_without_a_result_has_nothing_to_compare_with(
    check: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(check, tmp_path, tmp_path / "none", report()) == 2
    error = capsys.readouterr().err
    assert error.startswith("check: error: no earlier result in") and error.endswith("keep this one with --record\n")


def test_a_result_is_kept_with_its_date_and_note_and_is_then_the_last_one(check: ModuleType, tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert run(check, tmp_path, results, report() | {"date": "2026-11-26T10:06:03Z"}, "--record", "--note", "busy") == 0
    [file] = results.glob("*/*.json")
    data = json.loads(file.read_text())
    assert file.name == f"{data['date']}-demo.json" and data["note"] == "busy"
    assert {key: data[key] for key in report()} == report()
    assert run(check, tmp_path, results, report(speedup=1.0)) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"machine": {}, "rows": []}'])
def test_a_file_that_is_not_a_result_is_refused(
    text: str, check: ModuleType, tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new.json"
    file.write_text(text)
    assert check.main(["--new", str(file), "--results", str(results)]) == 2
    assert "new.json is not a result of specc bench --json" in capsys.readouterr().err


@pytest.mark.process
def test_a_benchmark_that_fails_is_an_error(
    check: ModuleType, tmp_path: Path, results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert check.main(["--bundle", str(tmp_path / "none"), "--results", str(results)]) == 2
    error = capfd.readouterr().err
    assert "no bundle at" in error and "ended with status 2" in error


@pytest.mark.parametrize("file", sorted(SCRIPT.parent.glob("results/*/*.json")), ids=lambda file: file.name)
def test_every_kept_result_can_be_compared(file: Path, check: ModuleType) -> None:
    data = check.read(file)
    assert file.parent.name == check.machine_name(data)
    assert file.name.startswith(f"{data['date']}-")
    assert all(change.fall == 0 for change in check.compare(data, data))
