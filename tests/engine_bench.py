"""Engines of one family over one cache, run on random tokens and compared with the original model in transformers.

Each path of a tree from its root is a sequence of its own. For a draft, the original model has the same sublayers or
layers taken out of its module tree. Logits are of a scale near 1 and may differ by 1e-4; the largest difference that
was measured is 2e-5.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from families import VOCABULARY, WINDOW
from graphs import model, prepared, without
from torch.fx import GraphModule

from specc import passes
from specc.backends import Options
from specc.backends.onnx import ONNX
from specc.compiler import weights
from specc.runtime.block import Block, Frontier, Layers, Parents
from specc.runtime.call import Call, Growth
from specc.runtime.draft import Outputs
from specc.runtime.engine import Engine
from specc.runtime.engines import kernels
from specc.runtime.engines.ort_cpu import HostKV, OrtRunner, session_options
from specc.runtime.manifest import CacheSpec, EngineSpec
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree

TOLERANCE = 1e-4
FAST = Options("fast")
CAPACITY = 64  # what `prepared` has rotary tables for
PROMPT = 20
DEEP = Tree((-1, 0, 0, 1, 1, 2, 3, 3, 5, 8, 0, 9, 11, 12, 13, 14, 8))  # deeper than a window
WIDE = Tree((-1, 0, 0, 0, 2, 2, 1, 4, 4, 7))
WIDER = Tree.chain(WINDOW + 3)  # which the file for decoding runs
OF_ONE_WIDTH = ("gpt_oss", "deepseek_v3", "minicpm3")  # which count their slots elsewhere than in views
FRONTIER = Tree((-1, 0, 0, 0, 2, 2, 1, 6))  # grown as 1, 3, 3 and 1 slots
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
    """A set of engines of one family over one cache, and the tokens in it. Whatever they compute is compared."""

    tokens: list[int]

    def __init__(
        self,
        family: str,
        directory: Path,
        blocks: Mapping[str, Block],
        graph: GraphModule | None = None,
        capacity: int = CAPACITY,
        options: Options = FAST,
        rows: int | None = None,
    ) -> None:
        self.family, self.tokens = family, []
        graph = graph or prepared(family)
        self.random = np.random.default_rng(0)
        file = directory / "weights.safetensors"
        weights.write(weights.collect(graph), file)
        specs = {}
        for name, block in blocks.items():
            twin = passes.fork(graph)
            passes.run(passes.pipeline(block, capacity), twin)
            result = ONNX.build(twin, block, file, "", directory / f"{name}.onnx", options)
            specs[name] = EngineSpec(
                name=name,
                backend="onnx",
                file=f"{name}.onnx",
                block=block,
                layers=(),
                inputs=result.inputs,
                outputs=result.outputs,
                passes=(),
                needs=result.needs,
            )
        if "decode" in specs and ONNX.one_file_for_all_widths(graph, specs["decode"].block, options):
            weights_type = specs["decode"].block.weights
            specs["wider"] = ONNX.engine_at(specs["decode"], "wider", Block(WIDER, weights=weights_type))
        self.specs, self.directory = specs, directory
        keys = [t for spec in specs.values() for t in spec.inputs if t.name.endswith(".key")]
        shapes = {t.name.split(".")[-2]: (t.shape[1], t.shape[3]) for t in keys}
        self.rows = HostKV(CacheSpec(rows or capacity, shapes))
        self.cache = Cache(self.rows)
        self.engines = {name: self.engine(spec) for name, spec in specs.items() if spec.block.lanes == 1}

    def engine(self, spec: EngineSpec, threads: int = 0) -> Engine:
        """Load an engine, which runs on the bench's rows."""
        settings = session_options()
        settings.intra_op_num_threads = threads or settings.intra_op_num_threads
        if kernels.needed(spec):
            kernels.register(settings)
        session = ort.InferenceSession(self.directory / spec.file, settings, providers=["CPUExecutionProvider"])
        return Engine(spec.name, spec.block, OrtRunner(session, spec, self.rows), self.rows)

    def draw(self, count: int) -> list[int]:
        """Draw random tokens."""
        return [int(token) for token in self.random.integers(0, VOCABULARY, count)]

    def truth(self, *ends: list[int]) -> list[np.ndarray]:
        """Return the original's logits after each token of each end, which follows the tokens so far.

        All ends are one batch, with padding behind the shorter ones.
        """
        length = max(map(len, ends))
        rows = [[*self.tokens, *end, *[0] * (length - len(end))] for end in ends]
        with torch.no_grad():
            logits = model(self.family)(torch.tensor(rows), use_cache=False).logits.numpy()
        start = len(self.tokens)
        return [row[start : start + len(end)] for row, end in zip(logits, ends, strict=True)]

    def prefill(self, name: str, count: int) -> None:
        """Run a prompt and compare its last logits."""
        engine, prompt = self.engines[name], self.draw(count)
        row = engine.extend(self.cache, prompt)
        same(logits_of(engine.outputs)[row], self.truth(prompt)[0][-1])
        self.tokens += prompt

    def decode(self, name: str, steps: int) -> None:
        """Run single tokens and compare the logits of each."""
        for _ in range(steps):
            new = self.draw(1)
            outputs = Call(self.engines[name], self.cache, 0, new, Tree.chain(1)).run()
            same(logits_of(outputs)[0], self.truth(new)[0][-1])
            self.cache.commit(new, [0])
            self.tokens += new

    def verify(self, name: str, tree: Tree) -> None:
        """Run a tree, compare each path, and commit the deepest one without its leaf."""
        draws = self.draw(tree.slots)
        outputs = Call(self.engines[name], self.cache, 0, draws, tree).run()
        logits = logits_of(outputs)[: tree.slots].copy()
        paths = [path_to(tree, leaf) for leaf in range(tree.slots) if not tree.children[leaf]]
        for path, expected in zip(paths, self.truth(*([draws[s] for s in path] for path in paths)), strict=True):
            same(logits[path], expected)
        assert outputs.ids_N is not None
        assert outputs.ids_N[: tree.slots].tolist() == logits.argmax(-1).tolist()
        if outputs.top_ids_NK is not None and outputs.top_logprobs_NK is not None:
            top = torch.from_numpy(logits).log_softmax(-1).topk(outputs.top_ids_NK.shape[1])
            assert outputs.top_ids_NK[: tree.slots].tolist() == top.indices.tolist()
            same(outputs.top_logprobs_NK[: tree.slots], top.values.numpy())
        accepted = path_to(tree, int(tree.depth.argmax()))[:-1]
        self.cache.commit(draws, accepted)
        self.tokens += [draws[s] for s in accepted]

    def grow(self, name: str, tree: Tree) -> None:
        """Grow a tree below the cache by a frontier, level by level."""
        engine, draws = self.engines[name], self.draw(tree.slots)
        for depth in range(tree.depth.max() + 1):
            level = np.flatnonzero(tree.depth == depth)
            first, end = level[0], level[-1] + 1
            visible = tuple(row.tobytes() for row in tree.mask[first:end, :end])
            growth = Growth(tuple(level), int(first), visible)
            outputs = growth.call(engine, self.cache, draws).run()
            expected = self.truth(*([draws[s] for s in path_to(tree, int(slot))] for slot in level))
            same(logits_of(outputs)[: len(level)], np.stack([e[-1] for e in expected]))


def logits_of(outputs: Outputs) -> np.ndarray:
    """Return the logits [slots, vocabulary] of a call."""
    assert outputs.logits_NV is not None
    return outputs.logits_NV


def path_to(tree: Tree, slot: int) -> list[int]:
    """Return the slots from the root to `slot`."""
    return [int(ancestor) for ancestor in np.flatnonzero(tree.mask[slot])]


def same(values: np.ndarray, expected: np.ndarray) -> None:
    """Check that values are those expected, up to the tolerance."""
    np.testing.assert_allclose(values, expected, atol=TOLERANCE, rtol=TOLERANCE)


def run_blocks(
    family: str,
    tmp_path: Path,
    blocks: Mapping[str, Block],
    options: Options = FAST,
    graph: GraphModule | None = None,
) -> None:
    """Build the blocks, and run each of them in turns over one cache."""
    bench = Bench(family, tmp_path, blocks, graph, options=options)
    bench.prefill("prefill", PROMPT)
    bench.decode("decode", 3)
    bench.verify("verify", DEEP)
    bench.decode("decode", 1)
    assert ("wider" in bench.engines) == (options.lowering != "portable" and family not in OF_ONE_WIDTH)
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
