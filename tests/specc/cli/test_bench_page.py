"""The page of `specc bench --html`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from doubles.peers import QUICK, questions
from doubles.tune_plan import tune_plan
from matplotlib.patches import Rectangle
from shell import copied, edit_manifest, specc

from specc.bench import Options, bench
from specc.cli import bench_page

pytestmark = pytest.mark.model


def test_it_is_one_file_with_a_chart_for_each_category_context_and_drafting_mode(bundle: Path, tmp_path: Path) -> None:
    page = tmp_path / "bench.html"
    argv = ("--recipes", "all", "--prompts", questions(tmp_path), "--html", page)
    report = specc("bench", bundle, *argv, *QUICK, "--json").json
    text = page.read_text()
    categories = len({row["category"] for row in report["rows"]})
    contexts = len({cost["context"] for cost in report["step_costs"]})
    drafting = [r for r in report["rows"] if r["category"] == "all" and r["acceptance_per_position"]]
    assert text.count("<svg ") == text.count("</svg>") == categories + contexts + len(drafting)
    assert "currentColor" in text and bench_page.INK not in text
    assert not re.search(r'(?:href|src)="(?!#)', text.replace("xlink:href", "href").replace('href="#', ""))
    assert all(f">{word}<" in text for word in ("a", "b", "all", "verify-early-exit"))
    assert "early-exit" in text
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


def test_the_page_says_when_by_what_and_where_it_was_measured(bundle: Path, tmp_path: Path) -> None:
    page = tmp_path / "bench.html"
    report = specc("bench", bundle, "--html", page, *QUICK, "--json").json
    text = " ".join(page.read_text().split())
    for part in (report["date"][:10], f"specc {report['specc']}", report["machine"]["onnxruntime"]):
        assert part in text
    assert f"UTC; {report['machine']['cpu']}, " in text
    assert f"<code>specc bench {bundle} --html {page}" in text
    assert f">{report['model']['default_recipe']} *<" in text


def test_only_engines_of_one_kind_are_joined_by_a_line(bundle: Path, tmp_path: Path) -> None:
    """A line through trees and drafts would say that a wider tree is the same thing as a wider chain."""
    report = bench(Options(bundle=bundle, recipes=("all",), rounds=1, max_new_tokens=4, limit=1))
    kinds = report.model.engine_kinds
    assert kinds["decode"] == bench_page.CHAIN
    assert kinds["verify-early-exit"] == "verify, tree" and kinds["draft-early-exit"] == "draft, dynamic tree"
    (axes,) = bench_page._costs(report, report.step_costs[0].context).axes
    joined = [np.asarray(line.get_xdata()) for line in axes.lines if line.get_linestyle() != "None"]
    chains = {cost.slots for cost in report.step_costs if kinds[cost.engine] == bench_page.CHAIN}
    assert [set(slots.tolist()) for slots in joined if slots.size > 1] == [chains]


def test_bars_are_sorted_and_plain_decoding_is_a_line(bundle: Path) -> None:
    report = bench(Options(bundle=bundle, recipes=("all",), rounds=1, max_new_tokens=4, limit=1))
    (axes,) = bench_page._speed(report, report.categories[-1]).axes
    widths = [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)]
    assert widths == sorted(widths) and len(widths) == 3
    plain = next(row.tokens_per_second for row in report.overall if row.recipe == "plain")
    assert any(np.asarray(line.get_xdata()).tolist() == [plain, plain] for line in axes.lines)
