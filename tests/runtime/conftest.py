"""Models over toys, for tests of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles.toy_bundle import ToyBackend, install, write_bundle

from specc.runtime.bundle import open_bundle
from specc.runtime.model import Model
from specc.runtime.scheduler import SchedulerPolicy


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> ToyBackend:
    """A backend `toy` that this runtime knows."""
    return install(monkeypatch)


@pytest.fixture
def load(tmp_path: Path, backend: ToyBackend) -> Iterator[Callable[..., Model]]:
    """A function that loads a bundle of toys. The models are closed after the test."""
    write_bundle(tmp_path / "toy.specc")
    models: list[Model] = []

    def load(**policy: Any) -> Model:
        models.append(Model(open_bundle(tmp_path / "toy.specc"), policy=SchedulerPolicy(**policy)))
        return models[-1]

    yield load
    for model in models:
        model.close()


@pytest.fixture
def toy_model(load: Callable[..., Model]) -> Model:
    """A model with the default policy."""
    return load()
