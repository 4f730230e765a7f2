"""When a compile takes the operators of specc-kernels, and what their bf16 weights cost in accuracy."""

from __future__ import annotations

from dataclasses import replace

from transformers import PreTrainedModel

from specc.compiler.options import Options
from specc.compiler.panels import is_bf16
from specc.runtime.errors import BackendError

KERNELS = "kernels"
CHOSEN_FOR = ("bf16", "int8", "int4")  # types of weights for which the operators are faster or exact


def with_lowering(options: Options) -> Options:
    """Return the options with the lowering to specc-kernels, if the library is here and the weights gain by it.

    A lowering that the user chose stays. So does the backend's own choice beside other backends, and for bf16 where
    ONNX Runtime has a GPU to compute in bf16 on.

    Raises:
        BackendError: the user asked for specc-kernels, which is missing or cannot build what else is asked for.
    """
    from specc.runtime.engines import kernels

    only_onnx = set(options.backends) == {"onnx"}
    if options.build.lowering == KERNELS:
        if not only_onnx:
            names = ", ".join(options.backends)
            raise BackendError(
                f"--lowering kernels is for --backend onnx alone, not for {names}; leave one of them out"
            )
        kernels.library()
        return options
    if options.build.lowering or not only_onnx or options.dtype not in CHOSEN_FOR:
        return options
    if options.dtype == "bf16" and _has_gpu():
        return options
    try:
        kernels.library()
    except BackendError:
        return options
    return replace(options, build=replace(options.build, lowering=KERNELS))


def rounded_matrices(model: PreTrainedModel, options: Options) -> list[str]:
    """Name the matrices of a model with values that the bundle's bf16 weights do not hold; empty for other weights."""
    if options.build.lowering != KERNELS or options.dtype != "bf16":
        return []
    return [name for name, weight in model.named_parameters() if weight.ndim == 2 and not is_bf16(weight)]


def _has_gpu() -> bool:
    from specc.runtime.engines.onnx_runtime import ort

    return "CUDAExecutionProvider" in ort.get_available_providers()
