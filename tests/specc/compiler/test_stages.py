"""Stages are counted as they begin."""

from __future__ import annotations

import pytest

from specc.compiler.stages import Stages

pytestmark = pytest.mark.torch


def test_a_stage_is_reported_with_those_before_it() -> None:
    reports: list[tuple[str, int, int]] = []
    stages = Stages(lambda *report: reports.append(report), total=3)
    stages.begin("load")
    stages.begin("capture")
    stages.expect(5)
    stages.begin("build")
    stages.note("measure")
    assert reports == [("load", 0, 3), ("capture", 1, 3), ("build", 2, 7), ("measure", 3, 3)]
