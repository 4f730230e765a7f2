"""The cost of a step: every engine at every context, each in turn, and a session that still tells the truth."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import specc
from specc import machine
from specc.runtime.engine import Engine
from specc.runtime.errors import PromptError
from specc.tuning.step_costs import middle, step_costs


def test_the_middle_is_a_median_and_its_spread() -> None:
    assert middle([4.0, 1.0, 2.0, 3.0, 5.0]) == (3.0, 2 / 3)
    assert middle([7.0]) == (7.0, 0.0)


def test_the_machine_is_described() -> None:
    assert machine.describe().keys() == {
        "cpu", "cores", "threads", "memory_bytes", "system", "python", "onnxruntime",
    }  # fmt: skip
    assert 1e6 < (machine.memory() or 0) < machine.describe()["memory_bytes"]


@pytest.mark.model
class TestStepCosts:
    def test_each_engine_at_each_context(self, bundle: Path) -> None:
        session = specc.load(bundle)
        names = [e.name for e in session.bundle.manifest.engines]
        costs = step_costs(session, names, (1, 64), 2)
        assert [(c.engine, c.context) for c in costs] == [(name, context) for name in names for context in (1, 64)]
        assert all(c.slots == session.engines[c.engine].slots for c in costs)
        assert all(c.milliseconds > 0 <= c.spread for c in costs)

    def test_what_an_engine_takes_longer_shows(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        session, run = specc.load(bundle), Engine.run

        def slow(engine: Engine, *arguments: Any) -> Any:
            time.sleep(0.02 if engine.name == "decode" else 0)
            return run(engine, *arguments)

        monkeypatch.setattr(Engine, "run", slow)
        decode, prefill = step_costs(session, ("decode", "prefill"), (8,), 1)
        assert prefill.milliseconds < 20 < decode.milliseconds < 60

    def test_they_take_turns(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        session, run, order = specc.load(bundle), Engine.run, []

        def noted(engine: Engine, *arguments: Any) -> Any:
            order.append(engine.name)
            return run(engine, *arguments)

        monkeypatch.setattr(Engine, "run", noted)
        step_costs(session, ("decode", "prefill"), (8,), 2)
        assert order[::5] == ["decode", "prefill"] * 3

    def test_the_session_decodes_as_before(self, bundle: Path) -> None:
        session = specc.load(bundle)
        options: Any = {"recipe": "early-exit", "ignore_eos": True}
        before = session.generate("import os", 12, **options).token_ids
        step_costs(session, ("decode", "prefill"), (2,), 1)
        assert session.generate("import os", 12, **options).token_ids == before

    @pytest.mark.parametrize("context", [0, 10_000])
    def test_a_context_that_does_not_fit_is_refused(self, bundle: Path, context: int) -> None:
        with pytest.raises(PromptError, match=f"a context of {context} and the 1 slots of decode do not fit"):
            step_costs(specc.load(bundle), ("decode",), (context,), 1)
