"""One file for chains of any width."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import torch
from expecttest import assert_expected_inline
from graphs import prepared
from small_graphs import rewrite
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.graph import CodeGen

from specc import passes
from specc.backends.lowering.any_width import AnyWidth, engine_at, name_slots, possible, traced_at
from specc.passes.drop_asserts import DropAsserts
from specc.passes.find import constant, placeholder
from specc.runtime.block import Block, Frontier, Parents
from specc.runtime.manifest import EngineSpec
from specc.runtime.manifest import Tensor as Spec
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch


class Split(nn.Module):
    """A view whose shape counts the slots."""

    def forward(self, input_ids: Tensor, depth: Tensor) -> Tensor:
        x = (input_ids[..., None] * torch.arange(4)).view(1, input_ids.shape[1], 2, 2)
        return x + depth[:, None, None]


def split() -> GraphModule:
    """Return a graph with an open number of slots, whose depths are baked."""
    slots = torch.export.Dim("slots", min=2, max=64)
    example = torch.zeros(1, 5, dtype=torch.long), torch.arange(5)
    program = torch.export.export(Split(), example, dynamic_shapes=({1: slots}, {0: slots}), strict=False)
    graph = passes.fork(program.module(check_guards=False))
    graph.graph.set_codegen(CodeGen())
    passes.run([DropAsserts()], graph)
    placeholder(graph, "depth").replace_all_uses_with(constant(graph, "tree_depth", torch.arange(5)))
    return graph


def test_views_and_depths_follow_the_slots() -> None:
    assert_expected_inline(
        rewrite(split(), AnyWidth()),
        """\
inputs input_ids, depth
sym_size_1 = sym_size(self.tree_depth, 0)
unsqueeze_1 = unsqueeze(input_ids, 2)
arange_1 = arange(4, device=cpu, pin_memory=False)
mul_1 = mul(unsqueeze_1, arange_1)
view_1 = view(mul_1, [1, sym_size_1, 2, 2])
unsqueeze_2 = unsqueeze(self.tree_depth, 1)
unsqueeze_3 = unsqueeze(unsqueeze_2, 2)
add_1 = add(view_1, unsqueeze_3)
return [add_1]
--> AnyWidth() changed 2
inputs input_ids, depth
shape_1 = Shape(input_ids, start=1, end=2)
squeeze_1 = squeeze(shape_1)
range_1 = Range(self.int_0, squeeze_1, self.int_1)
unsqueeze_1 = unsqueeze(input_ids, 2)
arange_1 = arange(4, device=cpu, pin_memory=False)
mul_1 = mul(unsqueeze_1, arange_1)
view_1 = view(mul_1, [1, -1, 2, 2])
unsqueeze_2 = unsqueeze(range_1, 1)
unsqueeze_3 = unsqueeze(unsqueeze_2, 2)
add_1 = add(view_1, unsqueeze_3)
return [add_1]""",
    )


CHAIN = Block(Tree.chain(3))


@pytest.mark.parametrize(
    ("block", "fits"),
    [
        (CHAIN, True),
        (Block(Tree.chain(3), last_row=True), False),
        (Block(Tree((-1, 0, 0))), False),
        (Block(Parents(3)), False),
        (Block(Frontier(3, 5)), False),
    ],
)
def test_only_a_chain_of_which_all_rows_are_asked_for_fits(block: Block, fits: bool) -> None:
    assert possible(prepared("llama"), block) is fits


def test_a_graph_that_counts_its_slots_elsewhere_than_in_views_does_not_fit() -> None:
    graph = prepared("llama")
    size = next(node for node in graph.graph.nodes if isinstance(node.meta.get("val"), torch.SymInt))
    with graph.graph.inserting_after(size):
        graph.graph.call_function(torch.ops.aten.zeros.default, ([size],))
    assert not possible(graph, CHAIN)


@pytest.mark.parametrize(("slots", "traced"), [(1, 2), (2, 2), (5, 5)])
def test_a_block_of_one_slot_is_traced_with_two(slots: int, traced: int) -> None:
    assert traced_at(Block(Tree.chain(slots))).slots == traced


TENSORS = {
    "input_ids": (1, 2),
    "past_len": (1,),
    "past_key_values.0.key": (1, 2, 9, 4),
    "ids": (1, 2),
    "logits": (1, 2, 8),
    "present.0.key": (1, 2, 9, 4),
}


def test_the_slots_size_gets_a_name_where_it_is() -> None:
    values = [
        ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
        for name, shape in TENSORS.items()
    ]
    model = ir.Model(ir.Graph(values[:3], values[3:], nodes=[], opset_imports={"": 23}), ir_version=10)
    name_slots(model)
    shapes = {value.name: [str(size) for size in value.shape or ()] for value in values}
    assert shapes["input_ids"] == ["1", "slots"] and shapes["logits"] == ["1", "slots", "8"]
    assert shapes["past_len"] == ["1"]
    assert shapes["past_key_values.0.key"] == shapes["present.0.key"] == ["1", "2", "9", "4"]


def test_an_engine_at_another_width_is_the_same_file_under_another_name() -> None:
    specs = [Spec(name, "float32", shape) for name, shape in TENSORS.items()]
    decode = EngineSpec(
        name="decode",
        backend="onnx",
        file="decode.onnx",
        block=Block(Tree.chain(2)),
        layers=("0",),
        inputs=tuple(specs[:3]),
        outputs=tuple(specs[3:]),
        passes=(),
    )
    wide = engine_at(decode, "wide", Block(Tree.chain(7)))
    assert (wide.name, wide.file, wide.block.slots, wide.layers) == ("wide", "decode.onnx", 7, ("0",))
    shapes = {tensor.name: tensor.shape for tensor in (*wide.inputs, *wide.outputs)}
    assert shapes == TENSORS | {"input_ids": (1, 7), "ids": (1, 7), "logits": (1, 7, 8)}
