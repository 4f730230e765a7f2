"""Targets that keep the bits of a GGUF file: `--dtype gguf`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule, Node

from specc.compiler.kernels import KERNELS
from specc.compiler.options import Options
from specc.compiler.panels import pack_numbers
from specc.compiler.quantize import PRODUCTS, Product
from specc.huggingface.gguf import find_gguf, read_gguf
from specc.huggingface.gguf_blocks import BITS_OF, BlockIndex, Rows
from specc.passes import Pass
from specc.passes.find import ADD, calls, weight
from specc.runtime.engines import kernels
from specc.runtime.errors import BackendError, CaptureError, SpeccWarning

GGUF = "gguf"


def with_gguf_blocks(options: Options) -> tuple[Options, tuple[Path, ...]]:
    """Return the options with the number of bits of the file's blocks as their type, if the user asks to keep them.

    Returns:
        The options, and the files whose blocks are kept; no files if the user asks for another type.

    Raises:
        CaptureError: the model is not a GGUF file, or has no blocks that can be kept.
        BackendError: specc-kernels is missing, or cannot build what else is asked for.
    """
    if options.dtype != GGUF:
        return options, ()
    source = Path(options.model).expanduser()
    parts = find_gguf(source) if source.exists() else None
    if not parts:
        raise CaptureError(
            f"--dtype gguf keeps the blocks of a GGUF file, and {options.model} is none; give --dtype int4"
        )
    if set(options.backends) != {"onnx"} or options.build.lowering not in (None, KERNELS):
        raise BackendError("--dtype gguf is for --backend onnx and --lowering kernels; leave others out")
    if options.adapter is not None:
        raise CaptureError("an adapter changes the weights, so --dtype gguf cannot keep them; give --dtype int4")
    kernels.usable()
    types = read_gguf(parts).types
    bits = {BITS_OF[name] for name in types if name in BITS_OF}
    if not bits:
        raise CaptureError(
            f"{parts[0].name} has tensors of type {', '.join(sorted(types))}, and --dtype gguf keeps blocks of "
            f"{', '.join(BITS_OF)}; quantise the model to Q4_K, or give --dtype int4"
        )
    build = replace(options.build, lowering=KERNELS)
    return replace(options, dtype="int4" if 4 in bits else "int8", build=build), parts


@dataclass(frozen=True)
class KeepBlocks(Pass):
    """A pass that gives products the blocks of a GGUF file, bit for bit. Others keep their widened weights.

    Given:   y = linear(x, weight, bias), each row of the weight being one of the file
    Result:  y = specc.panel_quantized_linear(x, panels, scales, columns, bits, block, k, offsets) + bias
    """

    index: BlockIndex = field(repr=False, compare=False)

    def __call__(self, graph: GraphModule) -> int:
        products = [product for product in map(Product.of, calls(graph, *PRODUCTS)) if product.matrix.op == "get_attr"]
        rows: dict[tuple[str, bool], Rows | None] = {}
        widened = []
        for product in products:
            key = str(product.matrix.target), product.transposed
            if key not in rows:
                matrix = weight(graph, product.matrix).detach()
                rows[key] = self.index.find((matrix.T if product.transposed else matrix).numpy())
            blocks = rows[key]
            if blocks is None:
                widened.append(key[0])
            else:
                _swap(graph, product, blocks)
        if widened:
            warnings.warn(
                f"{len(widened)} of {len(products)} products have rows in blocks of other types than "
                f"{', '.join(BITS_OF)}, such as {widened[0]}: their weights are fp32",
                SpeccWarning,
                stacklevel=2,
            )
        return len(products) - len(widened)


def _swap(graph: GraphModule, product: Product, blocks: Rows) -> None:
    """Replace a product by one with blocks."""
    path, _, name = str(product.matrix.target).rpartition(".")
    module, kind = graph.get_submodule(path), "rows_gguf" if product.transposed else "gguf"

    def stored(suffix: str, value: Any) -> Node:
        buffer = f"{name}_{kind}_{suffix}"
        if buffer not in dict(module.named_buffers(recurse=False)):
            module.register_buffer(buffer, torch.from_numpy(value))
        node = graph.graph.get_attr(f"{path}.{buffer}" if path else buffer)
        node.meta["val"] = weight(graph, node)
        return node

    columns, k = blocks.numbers.shape
    panels = pack_numbers(blocks)
    with graph.graph.inserting_before(product.node):
        arguments = (
            product.x,
            stored("panels", panels.numbers),
            stored("scales_panels", panels.scales),
            columns,
            blocks.bits,
            blocks.block,
            k,
            None if panels.offsets is None else stored("offsets_panels", panels.offsets),
        )
        result = graph.graph.call_function(torch.ops.specc.panel_quantized_linear.default, arguments)
        result.meta = dict(product.node.meta)
        if product.bias is not None:
            result = graph.graph.call_function(ADD, (result, product.bias))
            result.meta = dict(product.node.meta)
    product.node.replace_all_uses_with(result)
