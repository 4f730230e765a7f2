"""libspecc, built for the tests, and its C interface by ctypes."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from ctypes import POINTER, c_char, c_char_p, c_double, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "libspecc"
# Programs that are built for tests only.
PROGRAMS = ("specc-manifests", "specc-requests", "specc-huge-pages", "specc-stub")
# What libspecc can run of the bundle of schema 3 under tests/bundles.
RECIPES = (
    *("plain", "prompt-lookup", "layer-skip", "quantized-self-draft"),
    *("early-exit", "dynamic-tree", "eagle3", "eagle3-tree", "medusa"),
)
ON_TOKENS = ctypes.CFUNCTYPE(c_int, c_void_p, POINTER(c_int64), c_size_t)


class Options(ctypes.Structure):
    """`specc_options` of specc.h."""

    _fields_ = [("onnxruntime", c_char_p), ("threads", c_int), ("error", c_char_p), ("error_size", c_size_t)]


class Stats(ctypes.Structure):
    """`specc_stats` of specc.h."""

    _fields_ = [
        ("recipe", c_char * 64),
        *((name, c_size_t) for name in ("new_tokens", "drafts", "drafted", "accepted", "target_calls")),
        *((name, c_double) for name in ("prefill_seconds", "seconds", "mean_acceptance_length")),
        ("error", c_char * 512),
    ]


def onnxruntime_library() -> str:
    """Return the library inside the installed wheel of ONNX Runtime."""
    import onnxruntime

    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*")
    return str(library)


def environment() -> dict[str, str]:
    """Return the environment in which libspecc finds ONNX Runtime."""
    return os.environ | {"SPECC_ONNXRUNTIME": onnxruntime_library()}


@cache
def built(sanitizers: str = "") -> Path:
    """Build libspecc and its program, and return their folder. Without a compiler the test is skipped.

    Args:
        sanitizers: those to build with, such as `address,undefined`.
    """
    json = pytest.importorskip("nlohmann_json", reason="nlohmann-json is not installed")
    compiler = os.environ.get("CXX", "c++")
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if not shutil.which(compiler) or not shutil.which("cmake", path=tools):
        pytest.skip("no C++ compiler or no cmake")
    folder = BUILD / (sanitizers.replace(",", "-") or "plain")
    include = Path(json.__file__).parent / "include"
    options = [f"-DSPECC_JSON_INCLUDE={include}", f"-DSPECC_SANITIZE={sanitizers}", "-DCMAKE_CXX_FLAGS_RELEASE=-O1"]
    for command in (
        ["cmake", "-S", str(ROOT / "runtimes" / "c"), "-B", str(folder), "-G", "Ninja", *options],
        ["cmake", "--build", str(folder), "--parallel", "2", "--target", "all", *PROGRAMS],
    ):
        result = subprocess.run(command, env=os.environ | {"PATH": tools}, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
    return folder


@cache
def library() -> ctypes.CDLL:
    """Load libspecc and declare its functions."""
    lib = ctypes.CDLL(str(built() / "libspecc.so"))
    lib.specc_version.restype = lib.specc_error.restype = lib.specc_recipe.restype = c_char_p
    lib.specc_open.argtypes = [c_char_p, POINTER(Options), POINTER(c_void_p)]
    lib.specc_close.argtypes = lib.specc_session_close.argtypes = lib.specc_cancel.argtypes = [c_void_p]
    lib.specc_close.restype = lib.specc_session_close.restype = lib.specc_cancel.restype = None
    lib.specc_recipe.argtypes = [c_void_p, c_size_t]
    lib.specc_session_open.argtypes = [c_void_p, POINTER(c_void_p)]
    lib.specc_generate.argtypes = [
        *(c_void_p, POINTER(c_int64), c_size_t, c_char_p, c_size_t, ON_TOKENS, c_void_p, POINTER(Stats))
    ]
    lib.specc_generate_all.argtypes = [
        *(c_void_p, POINTER(c_int64), c_size_t, c_char_p, c_size_t, POINTER(POINTER(c_int64)), POINTER(Stats))
    ]
    return lib


class LibraryError(Exception):
    """A function of libspecc failed; the text is that of `specc_error`."""


def check(status: int) -> None:
    """Raise LibraryError if a function of libspecc failed."""
    if status:
        raise LibraryError(library().specc_error().decode())


class Model:
    """A bundle, opened by libspecc."""

    def __init__(self, bundle: Path, threads: int = 1) -> None:
        self.handle = c_void_p()
        options = Options(onnxruntime_library().encode(), threads)
        check(library().specc_open(str(bundle).encode(), options, self.handle))

    def recipes(self) -> list[str]:
        """Return the recipes that libspecc can run."""
        names: list[str] = []
        while name := library().specc_recipe(self.handle, len(names)):
            names.append(name.decode())
        return names

    def close(self) -> None:
        """Close the bundle."""
        library().specc_close(self.handle)


class Session:
    """A conversation."""

    def __init__(self, model: Model) -> None:
        self.handle = c_void_p()
        check(library().specc_session_open(model.handle, self.handle))

    def generate(
        self,
        prompt: Sequence[int],
        count: int,
        recipe: str | None = None,
        on_tokens: Callable[[list[int]], bool] = lambda tokens: True,
    ) -> tuple[list[int], Stats]:
        """Decode an answer.

        Args:
            prompt: token ids.
            count: tokens at most.
            recipe: its name; None is the bundle's default.
            on_tokens: gets the tokens of each step, and ends the answer by returning False.

        Raises:
            LibraryError: libspecc refuses the request.
        """
        answer: list[int] = []

        def take(_: object, tokens: ctypes._Pointer[c_int64], length: int) -> int:
            answer.extend(tokens[:length])
            return 0 if on_tokens(tokens[:length]) else 1

        stats = Stats()
        ids = (c_int64 * len(prompt))(*prompt)
        name = None if recipe is None else recipe.encode()
        check(library().specc_generate(self.handle, ids, len(prompt), name, count, ON_TOKENS(take), None, stats))
        return answer, stats

    def generate_all(self, prompt: Sequence[int], count: int, recipe: str) -> list[int]:
        """Decode an answer without a function that gets tokens.

        Args:
            prompt: token ids.
            count: tokens at most.
            recipe: its name.

        Raises:
            LibraryError: libspecc refuses the request.
        """
        stats, tokens, ids = Stats(), POINTER(c_int64)(), (c_int64 * len(prompt))(*prompt)
        check(library().specc_generate_all(self.handle, ids, len(prompt), recipe.encode(), count, tokens, stats))
        return tokens[: stats.new_tokens]

    def cancel(self) -> None:
        """End the answer that another thread decodes."""
        library().specc_cancel(self.handle)

    def close(self) -> None:
        """End the conversation."""
        library().specc_session_close(self.handle)
