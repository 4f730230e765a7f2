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
    bundle: str | Path, device: str = "cpu", execution_provider: str | None = None, backend: str | None = None
) -> Session:
    """Open a bundle and be ready to decode. Raises specc.runtime.errors.BundleError, BackendError.

    device: cpu or cuda. execution_provider: ONNX Runtime's, such as openvino. backend: whose engines, if several's.
    """
    from specc.runtime.bundle import open_bundle
    from specc.runtime.device import Device
    from specc.runtime.session import Session

    return Session(open_bundle(bundle), Device(device, execution_provider, backend))


def compile(model: str, output: str | Path, **options: Any) -> Bundle:
    """Compile a Hugging Face causal language model; the options are those of specc.compiler.Options."""
    from specc.compiler import Options, compile_bundle

    return compile_bundle(Options(model=model, output=output, **options)).bundle
