"""Engines of the ONNX backend, run on a real cache, say what transformers says of the same sequences.

Each path of a tree from its root is a sequence of its own. For a draft, the original model has the same sublayers or
layers taken out of its module tree. Logits are of a scale near 1 and may differ by 1e-4; what is found is 2e-5 at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from families import FAMILIES, POSITIONS, VOCABULARY, WINDOW
from graphs import captured, model, prepared, without
from torch.fx import GraphModule

from specc import passes
from specc.backends import Options
from specc.backends.onnx import ONNX
from specc.compiler import weights
from specc.runtime.block import Block, Frontier, Layers, Parents
from specc.runtime.engine import Engine
from specc.runtime.engines.ort_cpu import HostKV, OrtRunner, session_options
from specc.runtime.manifest import CacheSpec, EngineSpec
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("translations")]

TOLERANCE = 1e-4
FAST = Options("fast")
CAPACITY = 64  # what `prepared` has rotary tables for
PROMPT = 20
DEEP = Tree((-1, 0, 0, 1, 1, 2, 3, 3, 5, 8, 0, 9, 11, 12, 13, 14, 8))  # deeper than a window
WIDE = Tree((-1, 0, 0, 0, 2, 2, 1, 4, 4, 7))
WIDER = Tree.chain(WINDOW + 3)  # by the file that decodes
OF_ONE_WIDTH = ("gpt_oss", "deepseek_v3", "minicpm3")  # which count their slots elsewhere than in views
FRONTIER = Tree((-1, 0, 0, 0, 2, 2, 1, 6))  # grown as 1, 3, 3 and 1 slots
SAME_ENGINES = {
    "llama-llama3",
    "llama-yarn",
    "llama-dynamic",
    "phi3-longrope",
    "stablelm-parallel",
    "gpt_neox-sequential",
}  # but for tables
EVERY_BLOCK = ("llama", "gemma2", "gpt_neox", "cohere2", "opt", "qwen3_moe")
PORTABLE = ("llama", "gemma2", "cohere2", "opt", "gpt_oss", "deepseek_v3")
KINDS = {
    "prefill": Block(Tree.chain(8), ("ids", "logits"), last_row=True),
    "decode": Block(Tree.chain(1)),
    "verify": Block(DEEP, ("ids", "top_k:4", "logits")),
    "exit": Block(Frontier(4, 12), layers=Layers(exit_after=2)),
}
FULL = KINDS | {
    "parents": Block(Parents(12)),
    "skip": Block(Tree.chain(1), layers=Layers(skip_attention=(1,), skip_mlp=(2,))),
}


class Bench:
    """Engines of one family over one cache, and the tokens in it; whatever they say is compared."""

    def __init__(
        self, family: str, directory: Path, blocks: Mapping[str, Block],
        graph: GraphModule | None = None, capacity: int = CAPACITY, options: Options = FAST,
    ) -> None:  # fmt: skip
        self.family, self.tokens = family, []
        graph = graph or prepared(family)
        self.random = np.random.default_rng(0)
        file = directory / "weights.safetensors"
        weights.write(weights.collect(graph), file)
        built = {}
        for name, block in blocks.items():
            twin = passes.fork(graph)
            passes.run(passes.pipeline(block, capacity), twin)
            made = ONNX.build(twin, block, file, "", directory / f"{name}.onnx", options)
            built[name] = EngineSpec(
                name=name,
                backend="onnx",
                file=f"{name}.onnx",
                block=block,
                layers=(),
                inputs=made.inputs,
                outputs=made.outputs,
                passes=(),
            )
        if "decode" in built and ONNX.one_file_for_all_widths(graph, built["decode"].block, options):
            built["wider"] = ONNX.engine_at(built["decode"], "wider", Block(WIDER))
        keys = [t for spec in built.values() for t in spec.inputs if t.name.endswith(".key")]
        shapes = {t.name.split(".")[1]: (t.shape[1], t.shape[3]) for t in keys}
        self.rows = HostKV(CacheSpec(capacity, shapes))
        self.cache = Cache(self.rows)
        self.engines = {name: self._engine(spec, directory) for name, spec in built.items()}

    def _engine(self, spec: EngineSpec, directory: Path) -> Engine:
        session = ort.InferenceSession(directory / spec.file, session_options(), providers=["CPUExecutionProvider"])
        return Engine(spec.name, spec.block, OrtRunner(session, spec, self.rows), self.rows)

    def draw(self, count: int) -> list[int]:
        return self.random.integers(0, VOCABULARY, count).tolist()

    def truth(self, *ends: list[int]) -> list[np.ndarray]:
        """The original's logits after each token of each end, the tokens so far before it: one batch, padded behind."""
        length = max(map(len, ends))
        rows = [[*self.tokens, *end, *[0] * (length - len(end))] for end in ends]
        with torch.no_grad():
            logits = model(self.family)(torch.tensor(rows), use_cache=False).logits.numpy()
        start = len(self.tokens)
        return [row[start : start + len(end)] for row, end in zip(logits, ends, strict=True)]

    def prefill(self, name: str, count: int) -> None:
        engine, prompt = self.engines[name], self.draw(count)
        row = engine.extend(self.cache, prompt)
        same(engine.outputs.logits_NV[row], self.truth(prompt)[0][-1])
        self.tokens += prompt

    def decode(self, name: str, steps: int) -> None:
        for _ in range(steps):
            new = self.draw(1)
            outputs = self.engines[name].run(self.cache, new, Tree.chain(1))
            same(outputs.logits_NV[0], self.truth(new)[0][-1])
            self.cache.commit(new, [0])
            self.tokens += new

    def verify(self, name: str, tree: Tree) -> None:
        """Run a tree, compare each path, and keep the deepest but for its leaf."""
        drawn = self.draw(tree.slots)
        outputs = self.engines[name].run(self.cache, drawn, tree)
        logits = outputs.logits_NV[: tree.slots].copy()
        paths = [path_to(tree, leaf) for leaf in range(tree.slots) if not tree.children[leaf]]
        for path, expected in zip(paths, self.truth(*([drawn[s] for s in path] for path in paths)), strict=True):
            same(logits[path], expected)
        assert outputs.ids_N[: tree.slots].tolist() == logits.argmax(-1).tolist()
        if outputs.top_ids_NK is not None:
            top = torch.from_numpy(logits).log_softmax(-1).topk(outputs.top_ids_NK.shape[1])
            assert outputs.top_ids_NK[: tree.slots].tolist() == top.indices.tolist()
            same(outputs.top_logprobs_NK[: tree.slots], top.values.numpy())
        kept = path_to(tree, int(tree.depth.argmax()))[:-1]
        self.cache.commit(drawn, kept)
        self.tokens += [drawn[s] for s in kept]

    def grow(self, name: str, tree: Tree) -> None:
        """Grow a tree below the cache by a frontier, level by level."""
        engine, drawn = self.engines[name], self.draw(tree.slots)
        for depth in range(tree.depth.max() + 1):
            level = np.flatnonzero(tree.depth == depth)
            first, end = level[0], level[-1] + 1
            seen = tuple(row.tobytes() for row in tree.mask[first:end, :end])
            outputs = engine.grow(len(self.cache), [drawn[s] for s in level], int(first), seen)
            expected = self.truth(*([drawn[s] for s in path_to(tree, slot)] for slot in level))
            same(outputs.logits_NV[: len(level)], np.stack([e[-1] for e in expected]))


def path_to(tree: Tree, slot: int) -> list[int]:
    return np.flatnonzero(tree.mask[slot]).tolist()


def same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in SAME_ENGINES.union(EVERY_BLOCK)])
def test_each_kind_of_engine(family: str, tmp_path: Path) -> None:
    """Prefill, decode, a tree to verify, and a draft."""
    run_blocks(family, tmp_path, KINDS)


@pytest.mark.parametrize("family", EVERY_BLOCK)
def test_every_block(family: str, tmp_path: Path) -> None:
    run_blocks(family, tmp_path, FULL)


@pytest.mark.parametrize("family", PORTABLE)
def test_every_block_in_standard_operators(family: str, tmp_path: Path) -> None:
    import onnx as format_

    run_blocks(family, tmp_path, FULL, Options("portable"))
    for name in FULL:
        model = format_.load(tmp_path / f"{name}.onnx", load_external_data=False)
        assert [(i.domain, i.version) for i in model.opset_import] == [("", 24)]
        kinds = [node.op_type for node in model.graph.node]
        layers = sum(i.name.endswith(".key") for i in model.graph.input)
        assert kinds.count("TensorScatter") == 2 * layers
        written_out = layers if family in ("gemma2", "gpt_oss") else 0
        assert (kinds.count("Attention"), kinds.count("Softmax") >= written_out) == (layers - written_out, True)


def run_blocks(family: str, tmp_path: Path, blocks: Mapping[str, Block], options: Options = FAST) -> None:
    bench = Bench(family, tmp_path, blocks, options=options)
    bench.prefill("prefill", PROMPT)
    bench.decode("decode", 3)
    bench.verify("verify", DEEP)
    bench.decode("decode", 1)
    assert ("wider" in bench.engines) == (options == FAST and family not in OF_ONE_WIDTH)
    if "wider" in bench.engines:
        bench.verify("wider", WIDER)
        bench.decode("decode", 1)
    if "parents" in blocks:
        bench.verify("parents", WIDE)
        bench.decode("decode", 1)
    with without(family, exit_after=2):
        bench.grow("exit", FRONTIER)
    if "skip" in blocks:
        with without(family, attention=1, mlp=2):
            bench.cache, bench.tokens = Cache(bench.rows), []
            bench.decode("skip", WINDOW + 6)


def test_what_the_tests_run_is_longer_and_deeper_than_a_window() -> None:
    assert PROMPT > 2 * WINDOW and DEEP.depth.max() > WINDOW and not DEEP.is_chain


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_slots_beyond_the_last_learned_position_are_padding(family: str, tmp_path: Path) -> None:
    """The tables of positions end with the context; a tree at its end reaches beyond."""
    graph, capacity = captured(family), POSITIONS + 16
    passes.run(passes.preparation(capacity), graph)
    bench = Bench(family, tmp_path, {"parents": Block(Parents(12))}, graph, capacity)
    bench.prefill("parents", POSITIONS - 6)
    fitting = Tree(WIDE.parents[:6])
    drawn = bench.draw(WIDE.slots)
    outputs = bench.engines["parents"].run(bench.cache, drawn, Tree.chain(10))
    same(outputs.logits_NV[:6], bench.truth(drawn[:6])[0])
    bench.verify("parents", fitting)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "opt"])
def test_a_layers_attention_is_one_node_and_weights_are_referred_to(family: str, tmp_path: Path) -> None:
    import onnx as format_

    Bench(family, tmp_path, {"decode": Block(Tree.chain(1))})
    graph = format_.load(tmp_path / "decode.onnx", load_external_data=False).graph
    kinds = [node.op_type for node in graph.node]
    windows = [a.i for n in graph.node for a in n.attribute if a.name == "local_window_size"]
    assert kinds.count("GroupQueryAttention") == 3 and "Softmax" not in kinds
    assert kinds.count("Range") == (family == "opt") and set(windows) == (
        {WINDOW} if "sliding_window" in FAMILIES[family] else set()
    )
    assert (tmp_path / "decode.onnx").stat().st_size < 40_000
