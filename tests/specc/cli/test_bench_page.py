"""The page of `specc bench --html`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from doubles.peers import QUICK, questions
from doubles.tune_plan import tune_plan
from shell import copied, edit_manifest, specc

from specc.cli import bench_page

pytestmark = pytest.mark.model


def test_it_is_one_file_with_three_charts(bundle: Path, tmp_path: Path) -> None:
    page = tmp_path / "bench.html"
    argv = ("--recipes", "all", "--prompts", questions(tmp_path), "--html", page)
    report = specc("bench", bundle, *argv, *QUICK, "--json").json
    text = page.read_text()
    assert text.count("<svg ") == text.count("</svg>") == 3
    assert "currentColor" in text and bench_page.INK not in text
    assert not re.search(r'(?:href|src)="(?!#)', text.replace("xlink:href", "href").replace('href="#', ""))
    assert all(f">{word}<" in text for word in ("a", "b", "all", "early-exit", "verify-early-exit"))
    assert f">{report['rows'][0]['tokens_per_second']:.1f}<" in text


def test_words_of_the_user_are_text_and_not_markup(bundle: Path, tmp_path: Path) -> None:
    file, page = tmp_path / "q.jsonl", tmp_path / "bench.html"
    file.write_text('{"prompt": "import", "category": "<script>x</script>"}\n')
    specc("bench", bundle, "--prompts", file, "--html", page, *QUICK)
    assert "<script>" not in page.read_text() and "&lt;script&gt;" in page.read_text()


def test_a_plan_and_a_synthetic_acceptance_are_mentioned(bundle: Path, tmp_path: Path) -> None:
    plan, page = tune_plan().to_json(), tmp_path / "bench.html"
    copy = edit_manifest(copied(bundle, tmp_path), lambda manifest: manifest["extra"].update(plan=plan))
    specc("bench", copy, "--synthetic-acceptance", "1,0.5", "--html", page, *QUICK)
    text = " ".join(page.read_text().split())
    assert re.search(r"The bundle's plan: early-exit, predicted 1\.50 ., measured 1\.25 . by specc tune\.", text)
    assert "synthetic acceptance: 1.0, 0.5" in text
