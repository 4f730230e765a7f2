"""The modules beside this one are importable from every test; hypothesis tries the same examples on every machine.

`model` is a tiny model's directory, `bundle` the same compiled: once a session, for the tests that ask for them.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
from collections.abc import Generator, Iterator
from functools import cache as once
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["SPECC_THREADS"] = "1"  # before torch and onnxruntime are imported

import pytest
from hypothesis import settings

from specc import machine  # before tests/ is on the path, where a folder has the name specc

machine.BUSY = float("inf")  # Tests keep the machine busy themselves.

sys.path.insert(0, str(Path(__file__).parent))
settings.register_profile("specc", derandomize=True, deadline=None)
settings.register_profile("quick", settings.get_profile("specc"), max_examples=12)  # of `make quick`
settings.load_profile("specc")

HAS_KERNELS = find_spec("specc_kernels") is not None
PROMPTS = ("def wrap(text, width=70):\n    return", "import os, sys\nimport os, sys\nimport", "Ünïcode: ")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave unread each file whose tests all have a mark that `-m` excludes: importing torch takes seconds."""
    expression = config.getoption("markexpr")
    if not re.fullmatch(r"not \w+( and not \w+)*", expression) or not collection_path.match("test_*.py"):
        return None
    marks = "|".join(re.findall(r"not (\w+)", expression))
    pattern = rf"^pytestmark = .*\bpytest\.mark\.({marks})\b"
    return True if re.search(pattern, collection_path.read_text(encoding="utf-8"), re.M) else None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a test file that imports torch although it has tests without the mark."""
    if "not torch" in session.config.getoption("markexpr") and "torch" in sys.modules:
        raise pytest.UsageError("a collected file imports torch; give it pytestmark = pytest.mark.torch")
    gc.freeze()  # All that the collection made lives to the end: the collector need not look at it.
    grouped = [item for item in session.items if item.get_closest_marker("xdist_group")]
    if session.config.getoption("loadgroup", False) and not all("@" in item.nodeid for item in grouped):
        raise pytest.UsageError("pytest-xdist ignores the groups of tests, which would capture each model twice")


@pytest.hookimpl(wrapper=True)  # A wrapper begins before xdist reads the marks, which even `tryfirst` does not.
def pytest_collection_modifyitems(items: list[Any]) -> Generator[None, None, None]:
    """One of `make test`'s processes runs all tests that share something which takes long to make.

    That is the tiny bundle, a fixture of a module, or a captured model. A module that needs the bundle beside a fixture
    of its own goes with the bundle. A test with a mark `xdist_group` of its own stays in that group. The tests of the
    demo model take longest, so they come first.
    """
    modules = {item.path for item in items if _uses_bundle(item) and _module_fixtures(item)}
    for item in items:
        if item.get_closest_marker("xdist_group"):
            continue
        own = _module_fixtures(item)
        if _uses_bundle(item) or (own and item.path in modules):
            item.add_marker(pytest.mark.xdist_group("bundle"))
        elif own:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
        elif family := _parameters(item).get("family"):
            item.add_marker(pytest.mark.xdist_group(family))
    items.sort(key=lambda item: item.path.stem != "test_demo")
    yield


def _parameters(item: Any) -> dict[str, Any]:
    """Return the parameters of a test by name."""
    parameters: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    return parameters


def _scopes(item: Any) -> dict[str, str]:
    """Return the scope of each fixture that a test needs, by name. Parameters of the test are not among them."""
    if not isinstance(item, pytest.Function):
        return {}  # A golden case of the plugin needs none.
    parameters = _parameters(item)
    definitions = item._fixtureinfo.name2fixturedefs.items()  # pytest has no public way to a fixture's scope.
    return {name: overrides[-1].scope for name, overrides in definitions if overrides and name not in parameters}


def _module_fixtures(item: Any) -> list[str]:
    """Return the fixtures of a test that are made once a module."""
    return [name for name, scope in _scopes(item).items() if scope == "module"]


def _uses_bundle(item: Any) -> bool:
    """Tell whether a test needs the tiny bundle of this file, not a fixture of that name in its module."""
    return _scopes(item).get("bundle") == "session"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say that tests were skipped because nobody built specc-kernels."""
    if not HAS_KERNELS:
        terminalreporter.write_line("specc-kernels is not installed, so its tests were skipped; pip install ./kernels")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes into the user's cache directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_process(pytestconfig: pytest.Config) -> None:
    """A test without the mark `process` starts no program where `-m` excludes those that do: a Python takes seconds."""

    def refuse(event: str, args: tuple[Any, ...]) -> None:
        # Python's own `platform` runs uname, and `ctypes.util` runs ldconfig.
        if event == "subprocess.Popen" and Path(args[0]).name not in ("uname", "ldconfig"):
            raise RuntimeError(f"the test starts {args[0]}; give it the mark process")

    if "not process" in pytestconfig.getoption("markexpr"):
        sys.addaudithook(refuse)


@pytest.fixture(scope="session")
def translations() -> Iterator[None]:
    """torch.onnx loads its table of translations anew for each export, which is a third of a tiny model's."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(once(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, translations: None) -> Path:
    """The directory of a tiny model."""
    from tiny import save_model

    return save_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def bundle(model: Path) -> Path:
    """The tiny model compiled with three recipes. Tests copy it before they change a file."""
    from specc.backends import Options as BuildOptions
    from specc.compiler import Options, compile_bundle

    prompts = model.parent / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in PROMPTS), encoding="utf-8")
    output, recipes = model.parent / "tiny.specc", ("plain", "prompt-lookup", "early-exit")
    build = BuildOptions("fast")  # also where specc-kernels is there
    compile_bundle(
        Options(model=str(model), output=output, recipes=recipes, prompts=prompts, golden_tokens=24, build=build)
    )
    return output


@pytest.fixture(scope="session")
def demo_text(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Recorded text of the demo model, on which slow tests train heads."""
    from demo_text import record_text

    return record_text(tmp_path_factory.mktemp("text"))
