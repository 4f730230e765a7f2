"""specc, the speculative-decoding compiler.

import specc
specc.compile("HuggingFaceTB/SmolLM2-135M", "smollm.specc")     # needs specc-compiler[compile]
with specc.load("smollm.specc") as model:                       # needs no torch
    print(model.generate("def fibonacci(", max_new_tokens=64).text)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specc.backends import Options as BuildOptions
    from specc.runtime.bundle import Bundle
    from specc.runtime.device import Device
    from specc.runtime.errors import (
        BackendError,
        BundleError,
        BusyError,
        CaptureError,
        HeadError,
        PassError,
        PromptError,
        RecipeError,
        SpeccError,
        SpeccWarning,
        TreeError,
    )
    from specc.runtime.handle import Handle
    from specc.runtime.model import Model
    from specc.runtime.request import RequestOptions
    from specc.runtime.scheduler import SchedulerPolicy
    from specc.runtime.session import Session
    from specc.runtime.stats import Stats
    from specc.runtime.stream import Generation, Stream

__version__ = "0.1.0"
__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "BusyError",
    "CaptureError",
    "Device",
    "Generation",
    "Handle",
    "HeadError",
    "Model",
    "PassError",
    "PromptError",
    "RecipeError",
    "RequestOptions",
    "SchedulerPolicy",
    "Session",
    "SpeccError",
    "SpeccWarning",
    "Stats",
    "Stream",
    "TreeError",
    "compile",
    "load",
]
# The module of each name above. It is imported when the name is first used: `import specc` loads no numpy.
_MODULES = {
    "Bundle": "bundle",
    "Device": "device",
    "Generation": "stream",
    "Handle": "handle",
    "Model": "model",
    "RequestOptions": "request",
    "SchedulerPolicy": "scheduler",
    "Session": "session",
    "Stats": "stats",
    "Stream": "stream",
    **{name: "errors" for name in __all__ if name.endswith(("Error", "Warning"))},
}


def __getattr__(name: str) -> Any:
    """Import a name of the runtime.

    Raises:
        AttributeError: there is no such name.
    """
    if name not in _MODULES:
        raise AttributeError(f"module 'specc' has no attribute {name!r}")
    return getattr(import_module(f"specc.runtime.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load(
    bundle: str | os.PathLike[str],
    device: str = "cpu",
    execution_provider: str | None = None,
    backend: str | None = None,
    *,
    threads: int | None = None,
    allow_native_code: bool = False,
    policy: SchedulerPolicy | None = None,
) -> Model:
    """Open a bundle and be ready to decode.

    Args:
        bundle: the directory of the bundle.
        device: `cpu` or `cuda`.
        execution_provider: a provider of ONNX Runtime, such as `openvino`; None is the device's own.
        backend: the backend whose engines run, if the bundle has several; None is the first that runs on the device.
        threads: threads of one engine on the CPU; None is as many as SPECC_THREADS or the process has.
        allow_native_code: run engines that are native code of the bundle's author; use it only if you trust them.
        policy: how many requests of `Model.submit` run at a time, and how many wait; None is the default.

    Returns:
        A model. `with specc.load(…) as model:` closes it at the end.

    Raises:
        BundleError: there is no bundle, or it is damaged or was altered.
        BackendError: none of its backends runs here.
        PromptError: `bundle` is not a path.
    """
    from specc.runtime.bundle import open_bundle
    from specc.runtime.device import Device
    from specc.runtime.model import Model

    opened = open_bundle(_text_of_path("bundle", bundle), allow_native_code)
    return Model(opened, Device(device, execution_provider, backend, threads), policy)


def compile(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    recipes: Sequence[str | os.PathLike[str]] = (),
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    heads: Sequence[str | os.PathLike[str]] = (),
    assistant_model: str | os.PathLike[str] | None = None,
    untuned_model: str | os.PathLike[str] | None = None,
    corpus: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    adapter: str | os.PathLike[str] | None = None,
    trust_remote_code: bool = False,
    max_seq_len: int | None = None,
    prompts: str | os.PathLike[str] | None = None,
    golden_tokens: int = 24,
    text: str | os.PathLike[str] | None = None,
    backends: Sequence[str] = ("onnx",),
    dtype: str | None = None,
    lanes: int = 1,
    draft_dtype: str | None = None,
    build: BuildOptions | None = None,
    overwrite: bool = False,
    dump_graphs: str | os.PathLike[str] | None = None,
    tune: bool = False,
    stage: Callable[[str, int, int], None] | None = None,
) -> Bundle:
    """Compile a Hugging Face causal language model into a bundle.

    Args:
        model: a hub id, or a directory or GGUF file with a checkpoint and a tokenizer.
        output: the bundle, a directory that the compile makes.
        recipes: names of the table, or files FILE.toml; empty means all that need neither a second model nor training.
        parameters: values by recipe and parameter. Those under "" are for every recipe that has such a parameter.
        heads: directories that `specc train` wrote for the model, for recipes that draft by them.
        assistant_model: a smaller model with the tokenizer of `model`, for recipes that draft by one.
        untuned_model: the model `assistant_model` as it was before its tuning, for recipes that compare the two.
        corpus: a file or a folder of text, for recipes that look up drafts in it.
        revision: a branch, tag or commit of the hub's repository.
        adapter: a directory that peft wrote; it is merged into the weights before anything else.
        trust_remote_code: run Python code that comes with the model.
        max_seq_len: tokens that fit, prompt and answer. None takes the model's own limit, 2048 at most.
        prompts: a file of golden prompts. None takes those of specc.
        golden_tokens: tokens that the original model decodes after each golden prompt.
        text: a text file on which the original's perplexity is measured.
        backends: names of backends; each builds every engine.
        dtype: type of the target's weights: fp32, fp16, bf16, int8 or int4. None leaves it to the backends.
        lanes: sequences that one call of the engines with lanes runs; 1 builds no such engines.
        draft_dtype: type of the weights that draft engines read: fp32, int8 or int4. None takes int8 for trained heads,
            and int4 for other drafts.
        build: options for the backends; None is their defaults.
        overwrite: replace a bundle that stands at `output`.
        dump_graphs: a directory that gets the graph after each pass, as Python.
        tune: choose as `specc tune` does, among chains of more widths; compile again if other trees are faster.
        stage: a function that is called as each stage begins, with its title, the stages done and the stages in all.
            None shows no progress.

    Returns:
        The bundle, opened.

    Raises:
        SpeccError: the model, an option or this machine does not allow it. The message says what to change.
        ImportError: the compiler's packages are not installed.
    """
    try:
        from specc.backends import Options as BuildOptions
        from specc.compiler import Options, compile_bundle
    except ImportError as e:
        from specc.runtime.extras import package

        remedy = f"pip install {package('compile')}"
        raise ImportError(
            f"specc.compile needs the compiler, and {e.name} is not installed; {remedy}", name=e.name
        ) from e

    options = Options(
        model=_text_of_path("model", model),
        output=_text_of_path("output", output),
        recipes=[_text_of_path("recipes", recipe) for recipe in recipes],
        parameters=parameters or {},
        heads=[_text_of_path("heads", head) for head in heads],
        assistant_model=_optional_path("assistant_model", assistant_model),
        untuned_model=_optional_path("untuned_model", untuned_model),
        corpus=_optional_path("corpus", corpus),
        revision=revision,
        adapter=_optional_path("adapter", adapter),
        trust_remote_code=trust_remote_code,
        max_seq_len=max_seq_len,
        prompts=_optional_path("prompts", prompts),
        golden_tokens=golden_tokens,
        text=_optional_path("text", text),
        backends=backends,
        dtype=dtype,
        lanes=lanes,
        draft_dtype=draft_dtype,
        build=build or BuildOptions(),
        overwrite=overwrite,
        dump_graphs=_optional_path("dump_graphs", dump_graphs),
        tune=tune,
        stage=stage or (lambda title, done, total: None),
    )
    return compile_bundle(options).bundle


def _text_of_path(name: str, value: str | os.PathLike[str]) -> str:
    """Return a path, or a hub id, as text.

    Args:
        name: of the option, for the error message.
        value: what the user gave.

    Raises:
        PromptError: it is neither text nor a path.
    """
    from specc.runtime.errors import PromptError

    path = value if isinstance(value, str) else value.__fspath__() if isinstance(value, os.PathLike) else None
    if not isinstance(path, str):
        raise PromptError(f"{name} is {value!r}; give a path, as text or as a pathlib.Path")
    return path


def _optional_path(name: str, value: str | os.PathLike[str] | None) -> str | None:
    """Return what `_text_of_path` does, and None for None."""
    return None if value is None else _text_of_path(name, value)
