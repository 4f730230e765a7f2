"""A proof as a JUnit report, the format that continuous integration reads: https://github.com/testmoapp/junitxml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from specc.exactness.golden import Replayed, Verdict
from specc.exactness.replay import Proof

PROMPT = 60  # characters of a prompt in the name of a case


def write_report(proof: Proof, file: Path) -> None:
    """Write a report with a suite for each recipe, and a test for each golden case, or one that says "skipped".

    Raises:
        OSError: the file cannot be written.
    """
    root = ElementTree.Element("testsuites", name=f"specc test {proof.bundle.path}")
    for recipe in dict.fromkeys(result.recipe for result in (*proof.replayed, *proof.golden)):
        results = [result for result in (*proof.replayed, *proof.golden) if result.recipe == recipe]
        root.append(_suite(recipe, results, proof))
    for recipe, reason in proof.left_out.items():
        suite = ElementTree.SubElement(root, "testsuite", name=recipe, tests="1", failures="0", skipped="1", time="0")
        case = ElementTree.SubElement(suite, "testcase", classname=recipe, name="left out", time="0")
        ElementTree.SubElement(case, "skipped", message=reason)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)


def _suite(recipe: str, results: Sequence[Replayed], proof: Proof) -> ElementTree.Element:
    failures = sum(result.verdict is Verdict.DIVERGED for result in results)
    seconds = sum(result.seconds for result in results)
    suite = ElementTree.Element(
        "testsuite", name=recipe, tests=str(len(results)), failures=str(failures), time=f"{seconds:.3f}"
    )
    for result in results:
        name = f"case {result.case}: {_printable(proof.cases[result.case].prompt)}"
        case = ElementTree.SubElement(suite, "testcase", classname=recipe, name=name, time=f"{result.seconds:.3f}")
        if result.verdict is Verdict.DIVERGED:
            ElementTree.SubElement(case, "failure", type=result.verdict, message=result.explanation())
        elif result.verdict is not Verdict.IDENTICAL:
            ElementTree.SubElement(case, "system-out").text = f"{result.verdict}: {result.explanation()}"
    return suite


def _printable(prompt: str) -> str:
    """Return the beginning of a prompt without what XML cannot hold."""
    text = "".join(c if c.isprintable() else " " for c in prompt[: PROMPT + 1])
    return text if len(prompt) <= PROMPT else f"{text[:PROMPT]}…"
