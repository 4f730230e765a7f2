"""The lowering to specc-kernels: pass by pass, and in whole engines, whose bits do not depend on the width.

A decode step, a verify step of any width, on any number of threads: each row has the same bits of logits.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from engine_bench import CAPACITY, FULL, KINDS, Bench, logits_of, path_to, run_blocks
from expecttest import assert_expected_inline
from families import VOCABULARY
from graphs import prepared
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_graphs import rewrite, small
from thorough import slow
from torch import Tensor, nn
from torch.fx import GraphModule

from specc import passes
from specc.backends import Options
from specc.backends.lowering.onnx_kernels import (
    DOMAIN,
    Choices,
    PanelEmbeddings,
    PanelLinears,
    PanelQuantizedLinears,
    since,
)
from specc.backends.onnx import ONNX
from specc.backends.onnx_needs import needs as model_needs
from specc.compiler.capture import capture
from specc.compiler.panels import PackPanels
from specc.compiler.quantize import BITS, QuantizeLinears
from specc.runtime.block import Block, Parents
from specc.runtime.call import Call
from specc.runtime.engine import Engine
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("translations")]

KERNELS = Options("kernels")
SLOTS = 3


def needs_library() -> None:
    """Skip a test where the operators are not built."""
    pytest.importorskip("specc_kernels", reason="specc-kernels is not built; pip install ./kernels")


class Buffers(nn.Module):
    """A module with two buffers, which `forward` of a subclass reads."""

    panels: Tensor
    scales: Tensor

    def __init__(self, panels: Tensor) -> None:
        super().__init__()
        self.register_buffer("panels", panels)
        self.register_buffer("scales", torch.ones(1, 2, 32))


class Product(Buffers):
    """A product with dense panels of 6 columns."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.specc.panel_linear(x, self.panels, 6, 4)  # type: ignore[no-any-return]


class QuantisedProduct(Buffers):
    """A product with panels of 4 bits, 60 rows in blocks of 32 and 6 columns."""

    def forward(self, x: Tensor) -> Tensor:
        arguments = self.panels, self.scales, 6, 4, 32, 60
        return torch.ops.specc.panel_quantized_linear(x, *arguments)  # type: ignore[no-any-return]


class Rows(Buffers):
    """A table of 6 rows of 4 values in panels."""

    def forward(self, ids: Tensor) -> Tensor:
        return torch.ops.specc.panel_embedding(ids, self.panels, 6, 4)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("panels", "name"),
    [
        (torch.ones(1, 4, 32), "LinearF32"),
        (torch.ones(1, 2, 32, 2, dtype=torch.bfloat16), "LinearBF16"),
    ],
)
def test_the_type_of_the_panels_names_the_operator(panels: Tensor, name: str) -> None:
    text = rewrite(small(Product(panels), x=torch.ones(1, SLOTS, 4)), PanelLinears(SLOTS))
    assert f"specc.{name}(x, self.panels, columns=6, k=4)" in text


def test_products_with_a_quantised_weight() -> None:
    graph = small(QuantisedProduct(torch.zeros(1, 2, 8, 64, dtype=torch.uint8)), x=torch.ones(1, SLOTS, 60))
    assert_expected_inline(
        rewrite(graph, PanelQuantizedLinears(SLOTS)),
        """\
inputs x
panel_quantized_linear_1 = specc.panel_quantized_linear(x, self.panels, self.scales, 6, 4, 32, 60)
return {logits: panel_quantized_linear_1}
--> PanelQuantizedLinears(slots=3) changed 1
inputs x
linear_n_bits_1 = specc.LinearNBits(x, self.panels, self.scales, columns=6, k=60, bits=4,
    block_size=32)
return {logits: linear_n_bits_1}""",
    )


def test_tables_of_embeddings() -> None:
    graph = small(Rows(torch.ones(1, 2, 32, 2, dtype=torch.bfloat16)), ids=torch.zeros(1, SLOTS, dtype=torch.long))
    assert_expected_inline(
        rewrite(graph, PanelEmbeddings(SLOTS)),
        """\
inputs ids
panel_embedding_1 = specc.panel_embedding(ids, self.panels, 6, 4)
return {logits: panel_embedding_1}
--> PanelEmbeddings(slots=3) changed 1
inputs ids
gather_bf16_1 = specc.GatherBF16(ids, self.panels, columns=6, k=4)
return {logits: gather_bf16_1}""",
    )


def test_the_choice_of_the_likeliest_tokens() -> None:
    graph = small(lambda x: x.argmax(-1), x=torch.ones(1, SLOTS, 6), output="ids")
    assert_expected_inline(
        rewrite(graph, Choices(SLOTS)),
        """\
inputs x
argmax_1 = argmax(x, -1)
return {ids: argmax_1}
--> Choices(slots=3) changed 1
inputs x
arg_max_1 = specc.ArgMax(x)
return {ids: arg_max_1}""",
    )


def test_a_choice_along_another_axis_or_of_other_numbers_stays() -> None:
    for module, dtype in (
        (lambda x: x.argmax(1), torch.float32),
        (lambda x: x.argmax(-1, keepdim=True), torch.float32),
        (lambda x: x.argmax(-1), torch.float16),
    ):
        graph = small(module, x=torch.ones(1, SLOTS, 6, dtype=dtype))
        assert Choices(SLOTS)(graph) == 0


def node_of(operator: str, **attributes: int) -> ir.Node:
    return ir.node(operator, [], attributes, domain=DOMAIN)


def test_an_operator_needs_the_version_that_brought_it_with_its_attributes() -> None:
    assert since(node_of("TreeAttention")) == "0.1.0"
    assert since(node_of("LinearNBits", block_size=32)) == "0.2.0"
    assert since(node_of("LinearNBits", block_size=16)) == "0.3.0"


def test_an_engine_needs_each_operator_once_by_its_newest_use() -> None:
    nodes = [node_of("LinearNBits", block_size=size) for size in (16, 32)] + [node_of("TreeAttention")]
    graph = ir.Graph([], [], nodes=nodes, opset_imports={"": 18})
    of_library = {name: version for name, version in model_needs(ir.Model(graph, ir_version=9)).items() if "::" in name}
    assert of_library == {"specc::LinearNBits": "0.3.0", "specc::TreeAttention": "0.1.0"}


def with_rounded_matrices(graph: GraphModule) -> GraphModule:
    """Return the graph with every matrix rounded to values that bf16 holds, in fp32."""
    for target in {str(node.target) for node in graph.graph.find_nodes(op="get_attr")}:
        path, _, name = target.rpartition(".")
        module = graph.get_submodule(path)
        value = getattr(module, name).detach()
        if value.ndim == 2 and value.dtype == torch.float32:
            delattr(module, name)
            module.register_buffer(name, value.to(torch.bfloat16).to(torch.float32))
    return graph


@cache
def wide_graph() -> GraphModule:
    """Return the prepared graph of a Llama whose matrices are large enough to be split over threads."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 256,
        "intermediate_size": 640,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": CAPACITY,
        "attn_implementation": "eager",
    }
    config = LlamaConfig(**sizes)
    graph = capture(LlamaForCausalLM(config).eval().requires_grad_(False))
    passes.run(passes.preparation(CAPACITY), graph)
    return graph


def packed(graph: GraphModule, kind: str) -> GraphModule:
    """Return a copy of a prepared graph with its weights in panels, in fp32, bf16, int8 or int4."""
    copy = passes.fork(graph)
    if kind in BITS:
        passes.run([QuantizeLinears(BITS[kind])], copy)
    passes.run([PackPanels(kind == "bf16", rounds=kind == "bf16")], copy)
    return copy


@pytest.mark.parametrize(
    "family", ["llama", "gemma2", "gpt2", "qwen3_moe", "gpt_oss", *slow("gpt_neox", "cohere2", "opt")]
)
def test_engines_compute_what_transformers_computes(family: str, tmp_path: Path) -> None:
    needs_library()
    run_blocks(family, tmp_path, FULL if family == "llama" else KINDS, KERNELS, packed(prepared(family), "fp32"))


class Steps:
    """Engines of one model, and the logits and rows of 64 tokens that one thread decoded one by one."""

    def __init__(self, directory: Path, graph: GraphModule, kind: str) -> None:
        blocks = {"decode": Block(Tree.chain(1), weights=kind), "tree": Block(Parents(12), weights=kind)}
        self.bench = Bench("llama", directory, blocks, packed(graph, kind), options=KERNELS)
        self.tokens = self.bench.draw(CAPACITY)
        decode = self.chain(1, threads=1)
        self.logits = np.concatenate([self.run(decode, past, 1) for past in range(CAPACITY)])
        self.rows = [array.copy() for array in self.bench.rows.arrays]

    def chain(self, width: int, threads: int) -> Engine:
        """Return an engine of a chain."""
        spec = self.bench.specs["decode"]
        block = replace(spec.block, topology=Tree.chain(width))
        return self.bench.engine(ONNX.engine_at(spec, "chain", block), threads)

    def run(self, engine: Engine, past: int, count: int) -> np.ndarray:
        """Run the next tokens behind the first `past` ones, and return their logits."""
        outputs = Call(
            engine, Cache(self.bench.rows, self.tokens[:past]), 0, self.tokens[past : past + count], Tree.chain(count)
        ).run()
        return logits_of(outputs)[:count].copy()

    def forget(self, past: int) -> None:
        """Spoil the rows from `past` on, so that an engine has to write them."""
        for array in self.bench.rows.arrays:
            array[:, :, past:] = np.nan


def same_bits(values: np.ndarray, expected: np.ndarray) -> bool:
    """Tell whether all bits are equal."""
    return np.array_equal(values.view(np.uint32), expected.view(np.uint32))


@cache
def steps_of(kind: str) -> Steps:
    """Return the engines of `wide_graph` with one type of weights. They are built once."""
    directory = Path(tempfile.mkdtemp(prefix=f"specc-{kind}-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Steps(directory, wide_graph(), kind)


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8", "int4"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_rows_bits_depend_neither_on_the_width_nor_on_threads(kind: str, data: st.DataObject) -> None:
    needs_library()
    steps = steps_of(kind)
    width = data.draw(st.integers(1, CAPACITY), "width")
    past = data.draw(st.integers(0, CAPACITY - width), "past")
    threads = data.draw(st.integers(1, 4), "threads")
    steps.forget(past)
    logits = steps.run(steps.chain(width, threads), past, width)
    assert same_bits(logits, steps.logits[past : past + width])
    for array, expected in zip(steps.bench.rows.arrays, steps.rows, strict=True):
        assert same_bits(array[:, :, : past + width], expected[:, :, : past + width])
        array[:] = expected


@pytest.mark.parametrize("kind", ["fp32", "int4"])
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_slot_of_a_tree_has_the_bits_of_decoding_along_its_path(kind: str, data: st.DataObject) -> None:
    needs_library()
    steps = steps_of(kind)
    parents = [-1, *(data.draw(st.integers(0, slot - 1), f"parent of {slot}") for slot in range(1, 12))]
    past, tree = data.draw(st.integers(0, CAPACITY - 12), "past"), Tree(tuple(parents))
    draws = [3 * slot + 1 for slot in range(12)]
    cache = Cache(steps.bench.rows, steps.tokens[:past])
    logits = logits_of(Call(steps.bench.engines["tree"], cache, 0, draws, tree).run()).copy()
    decode = steps.chain(1, threads=1)
    for leaf in range(12):
        path = path_to(tree, leaf)
        for row, slot in enumerate(path):
            outputs = Call(decode, cache, row, [draws[slot]], Tree.chain(1)).run()
        assert same_bits(logits_of(outputs)[0], logits[leaf])
    for array, expected in zip(steps.bench.rows.arrays, steps.rows, strict=True):
        array[:] = expected


@pytest.mark.parametrize("family", ["gpt2", *slow("gemma2", "opt")])
def test_the_slots_of_a_tree_have_the_bits_of_decoding_around_the_products_too(family: str, tmp_path: Path) -> None:
    """The shapes of the tree's engine are fixed, so ONNX Runtime would join sums and norms of GPT-2 there alone."""
    needs_library()
    steps = Steps(tmp_path, prepared(family), "int4")
    for past in (5, 20, CAPACITY - 12):
        cache = Cache(steps.bench.rows, steps.tokens[:past])
        call = Call(steps.bench.engines["tree"], cache, 0, steps.tokens[past : past + 12], Tree.chain(12))
        assert same_bits(logits_of(call.run()), steps.logits[past : past + 12])


@pytest.mark.parametrize("family", ["gemma2", "gpt2", *slow("phi", "opt", "gpt_neox", "mistral")])
@pytest.mark.parametrize("kind", ["bf16", "int4"])
def test_the_operators_around_the_products_keep_the_bits_too(family: str, kind: str, tmp_path: Path) -> None:
    needs_library()
    steps = Steps(tmp_path, prepared(family), kind)
    for width in (2, 7, 16, 33):
        logits = steps.run(steps.chain(width, threads=2), CAPACITY - width, width)
        assert same_bits(logits, steps.logits[-width:])


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", *slow("phi", "opt", "gpt_neox")])
def test_bf16_has_the_bits_of_fp32_on_the_same_values(family: str, tmp_path: Path) -> None:
    """Sums of one order over the same numbers: bf16 weights are widened before they are multiplied."""
    needs_library()
    graph = with_rounded_matrices(prepared(family))
    logits = []
    for kind in ("fp32", "bf16"):
        (tmp_path / kind).mkdir()
        logits.append(Steps(tmp_path / kind, graph, kind).logits)
    assert same_bits(*logits)


def test_fp32_products_of_onnx_runtime_do_depend_on_the_width(tmp_path: Path) -> None:
    """The control of the tests above."""
    bench = Bench("llama", tmp_path, {"decode": Block(Tree.chain(1))}, wide_graph())
    tokens, decode = bench.draw(CAPACITY), bench.engines["decode"]
    caches = [Cache(bench.rows, tokens[:past]) for past in range(CAPACITY)]
    steps = [Call(decode, cache, 0, [tokens[len(cache)]], Tree.chain(1)) for cache in caches]
    single = np.concatenate([logits_of(step.run()).copy() for step in steps])
    wide = bench.engine(ONNX.engine_at(bench.specs["decode"], "wide", Block(Tree.chain(CAPACITY))))
    whole = logits_of(Call(wide, Cache(bench.rows), 0, tokens, Tree.chain(CAPACITY)).run())
    np.testing.assert_allclose(whole, single, atol=1e-4)
    assert not same_bits(whole, single)
