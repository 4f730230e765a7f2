"""A bundle as a system of a benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from specc.bench.systems import SpeccSystem
from specc.runtime.bundle import open_bundle

pytestmark = pytest.mark.model


def test_a_prompt_is_run_whole_each_time(bundle: Path) -> None:
    own = SpeccSystem(open_bundle(bundle), ["plain"])
    prefill = own.session.engines["prefill"]
    own.run("plain", list(range(50)), 4, 0)
    once = prefill.calls
    own.run("plain", list(range(50)), 4, 0)
    assert prefill.calls == 2 * once > 0


def test_a_run_has_the_counts_of_its_drafts(bundle: Path) -> None:
    run = SpeccSystem(open_bundle(bundle), ["early-exit"], guard=False).run("early-exit", [4, 5] * 8, 20, 0)
    assert len(run.token_ids) == 20 and run.first == 1
    assert run.drafts and sum(run.histogram) == run.drafts
    assert sum(n * count for n, count in enumerate(run.histogram)) == run.accepted


def test_drafters_forget_between_rounds(bundle: Path) -> None:
    own = SpeccSystem(open_bundle(bundle), ["prompt-lookup"])
    own.run("prompt-lookup", [4, 5] * 8, 4, 0)
    assert own.session.shared.drafters
    own.renew()
    assert not own.session.shared.drafters
