"""Rows in 4 and 8 bits, in ONNX Runtime and in torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from blocks import CAPACITY, build
from graphs import prepared

from specc import passes
from specc.backends.export import public
from specc.backends.onnx import translate
from specc.backends.onnx_needs import needs
from specc.runtime.block import Block
from specc.runtime.errors import BackendError
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

GROUP = 16
BLOCK = Block(Tree.chain(2), quantized_group=GROUP)


def translated(lowering: str, block: Block = BLOCK) -> ir.Model:
    graph = prepared("llama")
    passes.run(passes.pipeline(block, CAPACITY), graph)
    return translate(graph, block, lowering)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("lowering", ["fast", "portable", "kernels"])
def test_an_engine_computes_what_torch_does(lowering: str, bits: int, tmp_path: Path) -> None:
    """After no rows, in a step beyond the first group, and after some with codes, up to the end of the cache."""
    block = replace(BLOCK, quantized_bits=bits)
    ir.save(translated(lowering, block), tmp_path / "draft.onnx")
    options = ort.SessionOptions()
    if lowering == "kernels":
        kernels = pytest.importorskip("specc_kernels", reason="specc-kernels is not built; pip install ./kernels")
        options.register_custom_ops_library(kernels.library_path())
    session = ort.InferenceSession(tmp_path / "draft.onnx", options, providers=["CPUExecutionProvider"])
    graph, rng = build("llama", block), np.random.default_rng(0)
    feed: dict[str, np.ndarray] = {"input_ids": np.array([[7, 3]])}
    for node in graph.graph.find_nodes(op="placeholder"):
        name, value = public(str(node.target)), node.meta["val"]
        if name.startswith("past_key_values."):
            codes = value.dtype == torch.uint8
            whole = rng.integers(0, 256, value.shape) if codes else rng.standard_normal(value.shape)
            feed[name] = whole.astype(value.numpy().dtype)
    for past_len, count in ((0, 0), (9, 0), (15, 0), (20, 0), (33, 16), (38, 32)):
        feed |= {"past_len": np.array([past_len]), "quantized_rows": np.array([count])}
        names = [output.name for output in session.get_outputs()]
        got: dict[str, Any] = dict(zip(names, session.run(None, feed), strict=True))
        inputs = [public(str(node.target)) for node in graph.graph.find_nodes(op="placeholder")]
        want = graph(*(torch.from_numpy(feed[name]) for name in inputs))
        np.testing.assert_allclose(got["logits"], want["logits"].detach(), atol=2e-5, rtol=1e-4)
        for name in names:
            if name.startswith("present."):
                rows = got[name][:, :, : past_len + 2]
                before = feed[name.replace("present", "past_key_values")][:, :, :past_len]
                np.testing.assert_array_equal(rows[:, :, :past_len], before)
                np.testing.assert_allclose(rows, want[name].detach()[:, :, : past_len + 2], atol=1e-5)


def test_the_file_says_which_onnx_runtime_it_needs() -> None:
    assert needs(translated("fast"))["onnxruntime"] == "1.25"
    assert needs(translated("fast", Block(Tree.chain(2))))["onnxruntime"] < "1.25"


def test_rows_in_half_precision_have_no_copy() -> None:
    with pytest.raises(BackendError, match="rows in 4 bits stand beside weights in fp32, and not in fp16"):
        translated("portable", Block(Tree.chain(2), weights="fp16", quantized_group=GROUP))
