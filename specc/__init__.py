"""specc, the speculative-decoding compiler.

import specc
specc.compile("HuggingFaceTB/SmolLM2-135M", "smollm.specc")     # needs specc-compiler[compile]
session = specc.load("smollm.specc")                            # needs no torch
print(session.generate("def fibonacci(", max_new_tokens=64).text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from specc.runtime.bundle import Bundle
    from specc.runtime.session import Session

__version__ = "0.1.0"


def load(
    bundle: str | Path,
    device: str = "cpu",
    execution_provider: str | None = None,
    backend: str | None = None,
    *,
    threads: int | None = None,
) -> Session:
    """Open a bundle and be ready to decode.

    Args:
        bundle: the directory of the bundle.
        device: `cpu` or `cuda`.
        execution_provider: a provider of ONNX Runtime, such as `openvino`; None is the device's own.
        backend: the backend whose engines run, if the bundle has several; None is the first that runs on the device.
        threads: threads of one engine on the CPU; None is as many as SPECC_THREADS or the process has.

    Raises:
        BundleError: there is no bundle, or it is damaged or was altered.
        BackendError: none of its backends runs here.
    """
    from specc.runtime.bundle import open_bundle
    from specc.runtime.device import Device
    from specc.runtime.session import Session

    return Session(open_bundle(bundle), Device(device, execution_provider, backend, threads))


def compile(model: str, output: str | Path, **options: Any) -> Bundle:
    """Compile a Hugging Face causal language model; the options are those of specc.compiler.Options."""
    from specc.compiler import Options, compile_bundle

    return compile_bundle(Options(model=model, output=output, **options)).bundle
