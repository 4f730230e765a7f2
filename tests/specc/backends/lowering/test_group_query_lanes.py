"""Lanes on ONNX Runtime: each sequence gets the bits that it gets alone, whatever the other lanes run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from doubles.calls import call
from engine_bench import DEEP, FAST, Bench, logits_of
from graphs import prepared

from specc.backends import Options
from specc.backends.onnx import ONNX
from specc.runtime.block import Block, Frontier, Parents
from specc.runtime.call import Growth
from specc.runtime.engines.ort_cpu import HostKV, OrtRunner, session_options
from specc.runtime.engines.ort_lanes import OrtLanes
from specc.runtime.lane_calls import LanesEngine
from specc.runtime.manifest import EngineSpec
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

LANES = 4
PORTABLE = Options("portable")
# Widths of the lanes, run after run: a prompt, verifying, decoding, idle lanes, and a part of a prompt.
MIXES = [(9, 1, 0, 0), (1, 8, 3, 1), (1, 1, 1, 1), (0, 5, 0, 2), (5, 1, 12, 1), (0, 0, 1, 0)]
EQUAL = [(6, 1, 0, 0), (1, 6, 3, 1), (0, 5, 0, 2), (5, 1, 6, 1)]  # of files with six slots in each lane


class Rig:
    """An engine with lanes beside one of a single sequence, and each sequence's rows twice."""

    def __init__(self, family: str, directory: Path, single: Block, several: Block, options: Options) -> None:
        blocks = {"single": single, "several": several}
        self.bench = Bench(family, directory, blocks, options=options)
        specs = self.bench.specs
        self.cache = self.bench.rows.spec
        self.sessions = {name: self._session(directory / spec.file) for name, spec in specs.items()}
        self.alone, self.together = ([HostKV(self.cache) for _ in range(several.lanes)] for _ in range(2))
        self.lanes = LanesEngine(
            "several", several, OrtLanes(self.sessions["several"], specs["several"], HostKV(self.cache))
        )
        self.single = specs["single"]
        self.rows = [0] * several.lanes

    def _session(self, file: Path) -> ort.InferenceSession:
        return ort.InferenceSession(file, session_options(1), providers=["CPUExecutionProvider"])

    def run_alone(self, lane: int, tokens: Sequence[int], **inputs: Any) -> np.ndarray:
        """Run tokens of one sequence by the engine of a single one; return their logits."""
        spec = self._at(self.single, len(tokens))
        runner = OrtRunner(self.sessions["single"], spec, self.alone[lane])
        for name, values in inputs.items():
            runner.inputs[name][: len(values)] = values
        runner.inputs["input_ids"][0, : len(tokens)] = tokens
        runner.inputs["past_len"][0] = self.rows[lane]
        runner.run()
        logits: np.ndarray = runner.outputs["logits"][0, : len(tokens)]
        return logits.copy()

    def _at(self, spec: EngineSpec, slots: int) -> EngineSpec:
        if spec.block.is_chain and self.lanes.runner.any_width:
            return ONNX.engine_at(spec, "single", replace(spec.block, topology=Tree.chain(slots)))
        return spec

    def check(self, widths: Sequence[int]) -> None:
        """Run chains of these widths both ways, and compare every bit of logits and rows."""
        used = [lane for lane, width in enumerate(widths) if width]
        tokens = {lane: self.bench.draw(widths[lane]) for lane in used}
        expected = [self.run_alone(lane, tokens[lane]) for lane in used]
        calls = [call(self.together[lane], self.rows[lane], tokens[lane]) for lane in used]
        for outputs, logits in zip(self.lanes.run(calls), expected, strict=True):
            np.testing.assert_array_equal(logits_of(outputs), logits)
            assert list(outputs.ids_N) == logits.argmax(-1).tolist()
        for lane in used:
            self.rows[lane] += widths[lane]
            for own, other in zip(self.together[lane].arrays, self.alone[lane].arrays, strict=True):
                np.testing.assert_array_equal(own[:, :, : self.rows[lane]], other[:, :, : self.rows[lane]])


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "mistral", "phi"])
def test_a_chain_in_a_lane_has_the_bits_that_it_has_alone(family: str, tmp_path: Path) -> None:
    """Windows, groups of heads, capped scores, learned positions and partial rotation are among them."""
    rig = Rig(family, tmp_path, Block(Tree.chain(1)), Block(Tree.chain(6), lanes=LANES), FAST)
    assert rig.lanes.runner.any_width
    for widths in MIXES:
        rig.check(widths)


@pytest.mark.parametrize(
    ("family", "options"),
    [("llama", PORTABLE), ("gemma2", PORTABLE), pytest.param("gpt_oss", FAST, marks=pytest.mark.slow)],
)
def test_a_file_of_one_width_pads_its_lanes(family: str, options: Options, tmp_path: Path) -> None:
    rig = Rig(family, tmp_path, Block(Tree.chain(6)), Block(Tree.chain(6), lanes=LANES), options)
    assert not rig.lanes.runner.any_width
    for widths in EQUAL:
        rig.check(widths)


TREES = (DEEP, Parents(DEEP.slots), Frontier(DEEP.slots, DEEP.slots + 4))
PORTABLE_LATER = [pytest.param(topology, PORTABLE, marks=pytest.mark.slow) for topology in TREES[1:]]  # 4 s each


@pytest.mark.parametrize(
    ("topology", "options"), [*((topology, FAST) for topology in TREES), (DEEP, PORTABLE), *PORTABLE_LATER]
)
@pytest.mark.parametrize("family", ["llama", pytest.param("gemma2", marks=pytest.mark.slow)])
def test_a_tree_in_a_lane_has_the_bits_that_it_has_alone(
    family: str, topology: Tree | Parents | Frontier, options: Options, tmp_path: Path
) -> None:
    rig = Rig(family, tmp_path, Block(topology), Block(topology, lanes=2), options)
    rig.rows = [3, 8]
    for store in (*rig.alone, *rig.together):
        for number, array in enumerate(store.arrays):
            array[:] = np.random.default_rng(number).normal(size=array.shape)
    inputs: dict[str, Any] = {}
    tree: Tree | Growth = DEEP
    if isinstance(topology, Parents):
        inputs = {"parents": DEEP.parents}
    elif isinstance(topology, Frontier):
        mask = np.concatenate([np.ones((DEEP.slots, 4), np.bool_), DEEP.mask], 1)
        inputs = {"mask": mask, "depth": DEEP.depth}
        visible = tuple(row[: slot + 1].tobytes() for slot, row in enumerate(DEEP.mask))
        tree = Growth(tuple(range(DEEP.slots)), 0, visible)
    tokens = [rig.bench.draw(DEEP.slots) for _ in range(2)]
    expected = [rig.run_alone(lane, tokens[lane], **inputs) for lane in range(2)]
    calls = [call(rig.together[lane], rig.rows[lane], tokens[lane], tree) for lane in range(2)]
    for outputs, logits in zip(rig.lanes.run(calls), expected, strict=True):
        np.testing.assert_array_equal(logits_of(outputs), logits)


def test_rows_of_a_sequence_that_sits_out_stay_as_they_are(tmp_path: Path) -> None:
    rig = Rig("llama", tmp_path, Block(Tree.chain(1)), Block(Tree.chain(2), lanes=2), FAST)
    rig.check((2, 2))
    before = [array.copy() for array in rig.together[0].arrays]
    rig.check((0, 3))
    for array, old in zip(rig.together[0].arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_one_file_runs_all_widths_of_lanes() -> None:
    assert ONNX.one_file_for_all_widths(prepared("llama"), Block(Tree.chain(3), lanes=2))
    assert not ONNX.one_file_for_all_widths(prepared("llama"), Block(DEEP, lanes=2))
