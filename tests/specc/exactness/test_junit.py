"""The JUnit report of a proof."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from specc.exactness.golden import Case, Replayed, Verdict
from specc.exactness.junit import write_report
from specc.exactness.replay import Proof
from specc.runtime.bundle import open_bundle

FROZEN = Path(__file__).parents[2] / "bundles" / "schema-2"


def result(recipe: str, case: int, verdict: Verdict, at: int | None = None) -> Replayed:
    return Replayed(
        recipe=recipe,
        case=case,
        tokens=3,
        verdict=verdict,
        at=at,
        token=None if at is None else 9,
        expected=None if at is None else 6,
        gap=None if at is None else 0.25,
        seconds=0.5,
        engine="" if at is None else "verify",
    )


def test_each_recipe_is_a_suite_and_each_case_a_test(tmp_path: Path) -> None:
    cases = [Case("a\0b" + "c" * 70, [1], [5, 6, 7], [0.1, 0.2, 0.3]), Case("<&>", [2], [8, 8, 8], [0.4, 0.4, 0.4])]
    replayed = [
        result("plain", 0, Verdict.IDENTICAL),
        result("plain", 1, Verdict.NEAR_TIE, 1),
        result("jacobi", 0, Verdict.IDENTICAL),
        result("jacobi", 1, Verdict.DIVERGED, 1),
    ]
    file = tmp_path / "report.xml"
    write_report(Proof(bundle=open_bundle(FROZEN), cases=cases, replayed=replayed, tolerance=0.5), file)
    suites = ElementTree.parse(file).getroot().findall("testsuite")
    assert [(s.get("name"), s.get("tests"), s.get("failures"), s.get("time")) for s in suites] == [
        ("plain", "2", "0", "1.000"),
        ("jacobi", "2", "1", "1.000"),
    ]
    first, last = suites[0].findall("testcase"), suites[1].findall("testcase")
    assert [case.get("name") for case in first] == [f"case 0: a b{'c' * 57}…", "case 1: <&>"]
    near = first[1].find("system-out")
    assert near is not None and near.text is not None and near.text.startswith("near-tie: token 1 of 3 is 6")
    (failure,) = last[1].findall("failure")
    assert failure.get("message") == (
        "token 1 of 3 is 6, and jacobi gave token 9 by engine verify; "
        "the reference's two best logits differ by 0.250000 there"
    )
    assert not last[0].findall("*")
