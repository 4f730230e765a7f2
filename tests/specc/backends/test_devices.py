"""The portable lowering in half precision, and as a whole bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_files import build, cache_spec, cpu_session
from quick_compile import compile_quickly

from specc.backends import Options
from specc.compiler import Options as CompileOptions
from specc.exactness.replay import prove
from specc.runtime.block import Block
from specc.runtime.call import Call
from specc.runtime.engine import Engine
from specc.runtime.engines.ort_cpu import HostKV, OrtRunner
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

TREE = Tree((-1, 0, 0, 1, 1, 2, 5))


@pytest.mark.slow
def test_half_precision_computes_what_full_precision_computes(tmp_path: Path) -> None:
    """fp16 on the CPU provider, which computes most of it in fp32; logits of a scale near 1."""
    logits = []
    for kind in ("fp32", "fp16"):
        directory = tmp_path / kind
        directory.mkdir()
        spec = build(directory, Block(TREE, weights=kind))
        store = HostKV(cache_spec(spec))
        engine = Engine("verify", spec.block, OrtRunner(cpu_session(directory / spec.file), spec, store), store)
        values = Call(engine, Cache(store), 0, [3, 1, 4, 1, 5, 9, 2], TREE).run().logits_NV
        assert values is not None
        logits.append(values.copy())
    assert 0 < np.abs(logits[0] - logits[1]).max() < 0.03
    assert logits[1].dtype == np.float32


@pytest.mark.slow  # test_onnx.py runs every block of this lowering.
@pytest.mark.model
def test_the_portable_lowering_replays_the_golden_outputs(model: Path, tmp_path: Path) -> None:
    """The whole way, through a compile; rows are kept by the host, so the commit files are there and unused."""
    prompts, output = tmp_path / "prompts.jsonl", tmp_path / "portable.specc"
    prompts.write_text('{"prompt": "def wrap(text, width=70):"}\n{"prompt": "import os"}\n', encoding="utf-8")
    recipes = ("token-recycling", "dynamic-tree")
    portable = Options("portable")
    options = CompileOptions(
        model=str(model), output=output, recipes=recipes, prompts=prompts, golden_tokens=16, build=portable
    )
    compile_quickly(options)
    assert sorted(f.name for f in output.glob("*.commit.onnx"))
    assert [r.verdict for r in prove(output).replayed] == ["identical"] * 6
