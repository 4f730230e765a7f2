"""Attention to rows of the target, in ONNX Runtime and in torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from blocks import CAPACITY
from graphs import prepared

from specc import passes
from specc.backends.export import public
from specc.backends.onnx import translate
from specc.compiler.graphs import PreparedGraph
from specc.compiler.heads import TargetHead, prepare_head
from specc.heads import HeadConfig, Target, build_head
from specc.heads.glide import Glide
from specc.passes import find
from specc.passes.arguments import AttentionCall
from specc.recipes import HeadFacts
from specc.runtime.block import TARGET_ROWS, Block
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

VOCABULARY, SIZE = 30, 32


@cache
def prepared_head() -> tuple[Glide, PreparedGraph]:
    """Return a head with random weights for a small model, and its graph."""
    target = prepared("llama")
    calls = [AttentionCall.of(node) for node in find.calls(target, find.ATTENTION)]
    (_, heads, _, head_size), (_, key_heads, _, _) = (node.meta["val"].shape for node in (calls[0].query, calls[0].key))
    torch.manual_seed(0)
    facts = Target(name="small", digest="", hidden_size=SIZE, vocab_size=VOCABULARY, layers=len(calls))
    settings = {"heads": heads, "key_heads": key_heads, "head_size": head_size}
    head = build_head(
        HeadConfig(
            architecture="glide",
            target=facts,
            taps=(),
            draft_vocab_size=VOCABULARY,
            settings={**settings, "mlp_size": 48, "rope_theta": 1e4, "eps": 1e-6},
        )
    )
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    head.attach(torch.randn(VOCABULARY, SIZE))
    module = head.eval().requires_grad_(False)
    assert isinstance(module, Glide)
    reads = HeadFacts(recurrent=False, reads_rows=True)
    whole = TargetHead(name="glide", module=module, outputs=("logits",), facts=reads, hidden_size=SIZE)
    return module, prepare_head(whole, target, CAPACITY, None)


def test_the_graph_computes_what_the_head_does() -> None:
    """Keys and values are two inputs, though their examples are alike."""
    module, prepared_graph = prepared_head()
    graph = prepared_graph.graph
    shape = find.placeholder(graph, f"past_key_values_{module.read_layer}_key").meta["val"].shape
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    ids, positions, rows = torch.arange(3, 9)[None], torch.arange(6)[None], torch.tensor([4])
    logits = graph(ids, positions, rows, keys, values)["logits"]
    torch.testing.assert_close(logits, module.draft(ids, positions, rows, keys, values), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lowering", ["fast", "portable"])
@pytest.mark.parametrize("slots", [1, 3])
def test_an_engine_computes_what_torch_does(lowering: str, slots: int, tmp_path: Path) -> None:
    """Over no rows of the target, as many as the head has, fewer, and all of a cache."""
    block = Block(Tree.chain(slots), ("ids", "logits"), model="glide", cache="glide", inputs=(TARGET_ROWS,))
    graph, twin = (passes.fork(prepared_head()[1].graph) for _ in range(2))
    for one in (graph, twin):
        passes.run(prepared_head()[1].block_passes(block, CAPACITY), one)
    ir.save(translate(twin, block, lowering), tmp_path / "draft.onnx")
    session = ort.InferenceSession(tmp_path / "draft.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feed: dict[str, np.ndarray] = {"input_ids": np.arange(3, 3 + slots)[None]}
    placeholders = graph.graph.find_nodes(op="placeholder")
    for node in placeholders:
        name, value = public(str(node.target)), node.meta["val"]
        if name.startswith("past_key_values."):
            feed[name] = rng.standard_normal(value.shape).astype(np.float32)
    for past_len, rows in ((0, 0), (4, 4), (9, 7), (CAPACITY - slots, CAPACITY - slots)):
        feed |= {"past_len": np.array([past_len]), TARGET_ROWS: np.array([rows])}
        (logits,) = session.run(["logits"], feed)
        expected = graph(*(torch.from_numpy(feed[public(str(node.target))]) for node in placeholders))["logits"]
        np.testing.assert_allclose(logits, expected.detach(), atol=2e-4, rtol=1e-4)
