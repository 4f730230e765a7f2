"""The graph that commits accepted rows, run by ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from specc.backends.commit_graph import commit, moves
from specc.runtime.block import Block, Frontier, Parents
from specc.runtime.manifest import Tensor
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

CAPACITY = 9
SLOTS = 4
INPUTS = [
    Tensor("input_ids", "int64", (1, SLOTS)),
    Tensor("past_key_values.3.key", "float32", (1, 2, CAPACITY, 5)),
    Tensor("past_key_values.3.value", "float32", (1, 1, CAPACITY, 2)),
]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (Block(Tree.chain(4)), False),  # accepted from its front
        (Block(Tree((-1, 0, 0))), True),
        (Block(Parents(3)), True),
        (Block(Frontier(3, 9)), False),  # accepted whole
    ],
)
def test_rows_move_where_accepted_slots_may_lie_behind_rejected_ones(block: Block, expected: bool) -> None:
    assert moves(block) is expected


def session(from_rows: bool) -> ort.InferenceSession:
    """Load the graph for `INPUTS`."""
    model = commit(INPUTS, SLOTS, from_rows)
    data = ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("from_rows", [False, True])
def test_accepted_rows_come_to_lie_side_by_side(from_rows: bool) -> None:
    """Slots 0, 2 and 3 of four are accepted, over three rows in use."""
    random, past = np.random.default_rng(0), 3
    caches = {t.name: random.random(t.shape, np.float32) for t in INPUTS[1:]}
    inputs = {"index": np.array([0, 2, 3, 3]), "past_len": np.array([past]), **caches}
    rows = {name: cache[:, :, past : past + SLOTS].copy() for name, cache in caches.items()}
    if from_rows:
        rows = {name: random.random(value.shape, np.float32) for name, value in rows.items()}
        inputs |= {name.replace("past_key_values", "rows"): value for name, value in rows.items()}
    graph = session(from_rows)
    values = dict(zip((o.name for o in graph.get_outputs()), graph.run(None, inputs), strict=True))
    assert list(values) == ["present.3.key", "present.3.value"]
    for name, cache in caches.items():
        present = values[name.replace("past_key_values", "present")]
        np.testing.assert_array_equal(present[:, :, :past], cache[:, :, :past])
        np.testing.assert_array_equal(present[:, :, past : past + 3], rows[name][:, :, [0, 2, 3]])
        np.testing.assert_array_equal(present[:, :, past + SLOTS :], cache[:, :, past + SLOTS :])


@pytest.mark.parametrize("from_rows", [False, True])
def test_inputs_are_the_index_the_length_and_each_cache_behind_its_rows(from_rows: bool) -> None:
    names = [i.name for i in session(from_rows).get_inputs()]
    key = ["rows.3.key", "past_key_values.3.key"] if from_rows else ["past_key_values.3.key"]
    value = ["rows.3.value", "past_key_values.3.value"] if from_rows else ["past_key_values.3.value"]
    assert names == ["index", "past_len", *key, *value]


def test_types_of_the_caches_are_kept() -> None:
    model = commit([Tensor("past_key_values.0.key", "float16", (1, 2, CAPACITY, 4))], SLOTS, from_rows=False)
    assert [(value.name, str(value.dtype)) for value in model.graph.outputs] == [("present.0.key", "FLOAT16")]
    assert model.graph.opset_imports == {"": 24} and model.ir_version == 11
