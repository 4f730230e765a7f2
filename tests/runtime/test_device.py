"""Which devices, providers and backends go together."""

from __future__ import annotations

from typing import Any

import pytest

from specc.runtime.device import CPU, PROVIDERS, Device
from specc.runtime.errors import BackendError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"device": "tpu"}, "unknown device 'tpu'; choose cpu or cuda"),
        (
            {"provider": "coreml"},
            "unknown execution provider 'coreml'; choose one of cpu, cuda, tensorrt, nv-tensorrt-rtx, openvino",
        ),
        ({"provider": "cuda"}, "execution provider 'cuda' runs on a GPU; add --device cuda"),
        (
            {"provider": "openvino", "device": "cuda"},
            "execution provider 'openvino' runs on the CPU; leave out --device",
        ),
        (
            {"provider": "openvino", "backend": "inductor"},
            "execution provider 'openvino' belongs to backend onnx, not to inductor; give only one",
        ),
        ({"threads": 0}, "threads is 0; give a whole number from 1 to 1024"),
        ({"threads": 10**9}, "threads is 1000000000; give a whole number from 1 to 1024"),
        ({"threads": True}, "threads is True; give a whole number from 1 to 1024"),
        ({"threads": 2.0}, "threads is 2.0; give a whole number from 1 to 1024"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError) as e:
        Device(**fields)
    assert str(e.value) == message


def test_a_device_runs_its_own_provider_unless_another_is_named() -> None:
    assert CPU.runs is PROVIDERS["cpu"] and Device("cuda").runs is PROVIDERS["cuda"]
    assert Device(provider="openvino", backend="onnx").runs is PROVIDERS["openvino"]
    assert Device("cuda", "tensorrt").runs is PROVIDERS["tensorrt"]


def test_engines_take_the_threads_of_the_device_or_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_THREADS", "3")
    assert (CPU.engine_threads, Device(threads=5).engine_threads) == (3, 5)
