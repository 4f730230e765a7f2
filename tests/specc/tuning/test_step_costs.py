"""The cost of a step: every engine at every context, each in turn, and a session that decodes as before."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import specc
from specc.runtime.bundle import open_bundle
from specc.runtime.engine import Engine
from specc.runtime.errors import PromptError
from specc.runtime.session import Session
from specc.tuning import step_costs as module
from specc.tuning.policy import StepCostPolicy
from specc.tuning.step_costs import StepCost, faster_on_one_thread, median_and_spread, step_costs


def test_a_median_has_a_spread() -> None:
    assert median_and_spread([4.0, 1.0, 2.0, 3.0, 5.0]) == (3.0, 2 / 3)
    assert median_and_spread([7.0]) == (7.0, None) and median_and_spread([0.0, 0.0]) == (0.0, 0.0)


@pytest.mark.model
class TestStepCosts:
    def test_each_engine_at_each_context(self, bundle: Path) -> None:
        session = specc.load(bundle).conversation
        names = [engine.name for engine in session.bundle.manifest.engines]
        costs = step_costs(session, names, (1, 64), 2)
        assert [(c.engine, c.context) for c in costs] == [(name, context) for name in names for context in (1, 64)]
        assert all(c.slots == session.engines[c.engine].slots for c in costs)
        assert all(c.milliseconds > 0 and c.spread is not None and c.spread >= 0 for c in costs)

    def test_an_engine_that_takes_longer_costs_more(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        session, run = specc.load(bundle).conversation, Engine.run_one

        def slow(engine: Engine, *arguments: Any) -> Any:
            time.sleep(0.02 if engine.name == "decode" else 0)
            return run(engine, *arguments)

        monkeypatch.setattr(Engine, "run_one", slow)
        decode, prefill = step_costs(session, ("decode", "prefill"), (8,), 1)
        assert prefill.milliseconds < 20 < decode.milliseconds < 60

    def test_they_take_turns(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        session, run = specc.load(bundle).conversation, Engine.run_one
        order: list[str] = []

        def recording(engine: Engine, *arguments: Any) -> Any:
            order.append(engine.name)
            return run(engine, *arguments)

        monkeypatch.setattr(Engine, "run_one", recording)
        step_costs(session, ("decode", "prefill"), (8,), 2)
        assert order[::5] == ["decode", "prefill"] * 3

    def test_the_session_decodes_as_before(self, bundle: Path) -> None:
        session = specc.load(bundle).conversation
        options: Any = {"recipe": "early-exit", "ignore_eos": True}
        before = session.generate("import os", 12, **options).token_ids
        step_costs(session, ("decode", "prefill"), (2,), 1)
        assert session.generate("import os", 12, **options).token_ids == before

    @pytest.mark.parametrize("context", [0, 10_000])
    def test_a_context_that_does_not_fit_is_refused(self, bundle: Path, context: int) -> None:
        with pytest.raises(PromptError, match=f"a context of {context} and the 1 slots of decode do not fit"):
            step_costs(specc.load(bundle).conversation, ("decode",), (context,), 1)


@pytest.mark.model
class TestOneThread:
    def test_it_must_be_faster_by_3_per_cent(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        opened, names = open_bundle(bundle), ["decode", "draft-early-exit"]
        times = {0: (10.0, 10.0), 1: (9.8, 9.6)}  # Milliseconds on all threads, and on one.

        def timed(session: Session, engines: list[str], contexts: Any, repeats: int) -> list[StepCost]:
            milliseconds = times[session.bundle.manifest.engines[0].threads]
            return [StepCost(name, 1, 64, ms, 0.0) for name, ms in zip(engines, milliseconds, strict=True)]

        monkeypatch.setattr(module, "step_costs", timed)
        assert faster_on_one_thread(opened, names, 64) == []  # Tests run on one thread.
        monkeypatch.setattr(module, "threads", lambda: 2)
        assert faster_on_one_thread(opened, names, 64) == ["draft-early-exit"]
        assert faster_on_one_thread(opened, names, 64, StepCostPolicy(one_thread_ratio=0.99)) == names
