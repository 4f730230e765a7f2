"""Half: half precision inside, float32 for the host."""

from __future__ import annotations

import pytest
import torch
from expecttest import assert_expected_inline
from small_graphs import rewrite, small
from torch import Tensor, nn
from torch.fx import GraphModule

from specc.backends.lowering.half_precision import Half
from specc.passes.choose_outputs import ChooseOutputs
from specc.passes.find import outputs, placeholder, set_outputs

pytestmark = pytest.mark.torch


class Head(nn.Module):
    """A shift by a buffer, and a head."""

    shift: Tensor
    index: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(4, 6, bias=False)
        self.register_buffer("shift", torch.ones(4))
        self.register_buffer("index", torch.arange(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x[..., self.index] + self.shift)  # type: ignore[no-any-return]


def graph_of(*outputs: str) -> GraphModule:
    graph = small(Head(), x=torch.ones(1, 2, 4))
    ChooseOutputs(outputs)(graph)
    return graph


def test_weights_and_inputs_change_and_the_host_reads_float32() -> None:
    graph = graph_of("ids", "logits")
    assert_expected_inline(
        rewrite(graph, Half(torch.float16)),
        """\
inputs x
index_1 = index(x, [None, None, self.index])
add_1 = add(index_1, self.shift)
linear_1 = linear(add_1, self.head.weight)
argmax_1 = argmax(linear_1, -1)
return {ids: argmax_1, logits: linear_1}
--> Half(dtype=torch.float16) changed 3
inputs x
index_1 = index(x, [None, None, self.index])
add_1 = add(index_1, self.shift)
linear_1 = linear(add_1, self.head.weight)
to_1 = to(linear_1, float32)
argmax_1 = argmax(to_1, -1)
return {ids: argmax_1, logits: to_1}""",
    )
    assert graph.get_buffer("model.head.weight").dtype == graph.get_buffer("model.shift").dtype == torch.float16
    assert graph.get_buffer("model.index").dtype == torch.int64
    assert placeholder(graph, "x").meta["val"].dtype == torch.float16
    values = graph(torch.ones(1, 2, 4, dtype=torch.float16))
    assert values["logits"].dtype == torch.float32
    assert torch.equal(values["ids"], values["logits"].argmax(-1))


def test_top_k_reads_float32_though_the_logits_do_not_leave() -> None:
    graph = graph_of("top_k:2")
    Half(torch.bfloat16)(graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    values = graph(torch.ones(1, 2, 4, dtype=torch.bfloat16))
    assert values["top_logprobs"].dtype == torch.float32


def test_hidden_states_leave_in_float32() -> None:
    graph = small(Head(), x=torch.ones(1, 2, 4))
    hidden = outputs(graph)["logits"].all_input_nodes[0]
    set_outputs(graph, {"hidden_-1": hidden})
    Half(torch.float16)(graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    (value,) = graph(torch.ones(1, 2, 4, dtype=torch.float16)).values()
    assert value.dtype == torch.float32


def test_a_pick_of_experts_reads_what_it_read() -> None:
    """A router takes a top-k of something else than the logits."""

    def routed(x: Tensor) -> Tensor:
        return x * x.topk(1)[0]

    graph = small(routed, x=torch.ones(1, 2, 4))
    ChooseOutputs(("ids",))(graph)
    Half(torch.float16)(graph)
    graph.graph.eliminate_dead_code()
    (top,) = (node for node in graph.graph.nodes if "topk" in str(node.target))
    (ids,) = (node for node in graph.graph.nodes if "argmax" in str(node.target))
    assert top.args[0].op == "placeholder" and "aten.to.dtype" in str(ids.args[0].target)


def test_the_graph_that_a_fork_shares_weights_with_keeps_its_types() -> None:
    from specc import passes

    graph = graph_of("ids")
    twin = passes.fork(graph)
    Half(torch.float16)(twin)
    assert graph.get_parameter("model.head.weight").dtype == torch.float32


def test_states_come_and_leave_as_float32() -> None:
    graph = small(nn.Linear(4, 4, bias=False), "logits", state=torch.ones(1, 2, 4))
    logits = outputs(graph)["logits"]
    set_outputs(graph, {"logits": logits, "next_state": logits, "state:a": logits})
    ChooseOutputs(("next_state", "state:a"))(graph)
    Half(torch.float16)(graph)
    graph.recompile()
    assert placeholder(graph, "state").meta["val"].dtype == torch.float32
    values = graph(torch.ones(1, 2, 4))
    assert values["next_state"].dtype == values["state_a"].dtype == torch.float32
    assert graph.get_submodule("model").weight.dtype == torch.float16
