"""ONNX Runtime with plug-ins and devices that this machine lacks, and sessions that note how they are run."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest

from specc.runtime.device import Device
from specc.runtime.engines import ort_providers
from specc.runtime.engines.ort_device import GRAPHS


class RecordedSession:
    """A session that notes under which number each run is captured, -1 for none.

    Attributes:
        graphs: the number of each run.
    """

    def __init__(self, session: ort.InferenceSession, fails: bool = False) -> None:
        """Wrap a session.

        Args:
            session: runs in the end.
            fails: every capture raises.
        """
        self.session, self.fails = session, fails
        self.graphs: list[str] = []

    def io_binding(self) -> ort.IOBinding:
        return self.session.io_binding()

    def run_with_iobinding(self, binding: ort.IOBinding, options: ort.RunOptions) -> None:
        (graph,) = {options.get_run_config_entry(key) for key in GRAPHS.values()}
        self.graphs.append(graph)
        if self.fails and graph != "-1":
            raise RuntimeError("operation not permitted when stream is capturing\nat cuda_graph.cc")
        self.session.run_with_iobinding(binding, options)


class PlugIn:
    """A provider's package, and ONNX Runtime's list of devices, to which it adds once it is registered.

    Attributes:
        registered: each registration as (title, library).
        sessions: each session's devices and settings.
        devices: what the plug-in brings.
        options: what `session_options` returns meanwhile.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, device: Device, kinds: str) -> None:
        """Install the double.

        Args:
            monkeypatch: undoes it.
            device: whose provider it is.
            kinds: of the devices that it brings, such as "CPU GPU".
        """
        self.title = device.runs.title
        self.registered: list[tuple[str, str]] = []
        self.sessions: list[tuple[Any, Any]] = []
        self.devices = [
            SimpleNamespace(ep_name=self.title, device=SimpleNamespace(type=getattr(ort.OrtHardwareDeviceType, kind)))
            for kind in kinds.split()
        ]
        self.options = SimpleNamespace(
            add_provider_for_devices=lambda devices, settings: self.sessions.append((devices, settings)),
            add_session_config_entry=lambda key, value: None,
        )
        package = SimpleNamespace(get_library_path=lambda: "plug-in.so")
        find, load = importlib.util.find_spec, importlib.import_module
        plugin = device.runs.plugin
        for module, name, value in (
            (importlib.util, "find_spec", lambda name, *p: name == plugin or find(name, *p)),
            (importlib, "import_module", lambda name, *p: package if name == plugin else load(name, *p)),
            (ort, "register_execution_provider_library", lambda *call: self.registered.append(call)),
            (ort, "get_ep_devices", lambda: self.devices if self.registered else []),
            (ort_providers, "session_options", lambda device: self.options),
        ):
            monkeypatch.setattr(module, name, value)

    def assignment(self) -> list[Any]:
        """Return what a session says of the providers that run its nodes, if this one runs all."""
        return [SimpleNamespace(ep_name=self.title)]
