"""A trained head is a directory, or an id on the hub, of which no pickle is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from specc.huggingface import hub
from specc.huggingface.hub import local_head
from specc.runtime.errors import CaptureError


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    assert local_head(str(tmp_path)) == tmp_path
    assert local_head("./org/head") == Path("org/head")
    assert local_head("head") == Path("head")


def test_an_id_is_fetched_without_pickles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    requests: list[tuple[str, dict[str, Any]]] = []

    def fetch(source: str, **options: Any) -> str:
        requests.append((source, options))
        return str(tmp_path)

    monkeypatch.setattr(hub, "hub_options", lambda source, revision: {"local_files_only": True})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert local_head("org/head-of-nobody") == tmp_path
    options = {"allow_patterns": ["config.json", "*.safetensors"], "local_files_only": True}
    assert requests == [("org/head-of-nobody", options)]


def test_an_id_that_the_hub_does_not_give_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = "there is no directory org/head-of-nobody, and as an id on the hub: .*not in the local cache"
    with pytest.raises(CaptureError, match=message):
        local_head("org/head-of-nobody")
