"""When a compile takes the operators of specc-kernels, and what their bf16 weights cost in accuracy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from transformers import PreTrainedModel

from specc.compiler.options import Options
from specc.compiler.panels import is_bf16
from specc.runtime.block import Block
from specc.runtime.engines import kernels
from specc.runtime.engines.onnx_runtime import ort
from specc.runtime.errors import BackendError

KERNELS = "kernels"
CHOSEN_FOR = ("fp32", "bf16", "int8", "int4")  # types of weights that the operators have
FOR_GPUS = ("fp32", "bf16")  # of these, those for which ONNX Runtime's own operators run on a GPU


def with_lowering(options: Options) -> Options:
    """Return the options with the lowering to specc-kernels, if the library is here and has the type of the weights.

    Its operators are faster, and their bits are the same at every width. A lowering that the user chose stays. So does
    the backend's own choice beside other backends, and for fp32 and bf16 where ONNX Runtime has a GPU.

    Raises:
        BackendError: the user asked for specc-kernels, which is missing or cannot build what else is asked for.
    """
    if options.build.lowering == KERNELS:
        if set(options.backends) != {"onnx"}:
            names = ", ".join(options.backends)
            raise BackendError(
                f"--lowering kernels is for --backend onnx alone, not for {names}; leave one of them out"
            )
        kernels.usable()
        return options
    if options.dtype not in CHOSEN_FOR or not _free_to_take(options, options.dtype):
        return options
    return replace(options, build=replace(options.build, lowering=KERNELS))


def with_checkpoint_dtype(options: Options, model: PreTrainedModel, blocks: Iterable[Block] = ()) -> Options:
    """Return the options with weights in bf16, or else fp32, by specc-kernels if the user chose no type.

    Args:
        options: the options after `with_lowering`.
        model: the target, in fp32. bf16 must hold every value of its matrices, as where the checkpoint was in bf16.
        blocks: those that recipes run. Weights in bf16 do not stand beside rows in few bits.
    """
    if options.dtype is not None or any(block.quantized_group and block.weights == "fp32" for block in blocks):
        return options
    if options.build.lowering != KERNELS and not _free_to_take(options, "bf16"):
        return options
    fp32 = replace(options, build=replace(options.build, lowering=KERNELS))
    bf16 = replace(fp32, dtype="bf16")
    return fp32 if rounded_matrices(model, bf16) else bf16


def rounded_matrices(model: PreTrainedModel, options: Options) -> list[str]:
    """Name the matrices of a model with values that the bundle's bf16 weights do not hold; empty for other weights."""
    if options.build.lowering != KERNELS or options.dtype != "bf16":
        return []
    return [name for name, weight in model.named_parameters() if weight.ndim == 2 and not is_bf16(weight)]


def _free_to_take(options: Options, dtype: str) -> bool:
    """Tell whether the library is here and pays, and the user's options leave the lowering of such weights open."""
    if options.build.lowering or set(options.backends) != {"onnx"} or (dtype in FOR_GPUS and _has_gpu()):
        return False
    try:
        kernels.usable()
    except BackendError:
        return False
    return True


def _has_gpu() -> bool:
    return "CUDAExecutionProvider" in ort.get_available_providers()
