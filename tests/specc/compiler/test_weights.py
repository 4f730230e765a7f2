"""The weights files: what is stored, once, under which name, and in which type."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from graphs import logits, prepared
from safetensors.torch import load_file
from torch import nn
from torch.fx import GraphModule, symbolic_trace

from specc.backends.export import stored_names
from specc.compiler.weights import (
    ALIGNMENT,
    INLINE,
    TYPES,
    collect,
    file_name,
    prefix_of,
    share_tied,
    write,
    write_type,
)
from specc.runtime.engines.mapped_weights import read_header
from specc.runtime.errors import BundleError

pytestmark = pytest.mark.torch


class Tied(nn.Module):
    """A model whose head is its embedding, with one more view of it and a bias that is small."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.arange(64.0 * 8).reshape(64, 8))
        self.head = nn.Parameter(self.embedding.data)
        self.turned = nn.Parameter(self.embedding.data.T)
        self.bias = nn.Parameter(torch.ones(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.turned) @ self.head + x @ self.turned @ self.embedding + self.bias


def tied() -> GraphModule:
    return symbolic_trace(Tied())


def targets(graph: GraphModule) -> list[str]:
    return [str(node.target) for node in graph.graph.find_nodes(op="get_attr")]


def test_one_tensor_is_read_under_one_name_the_first() -> None:
    graph, x = tied(), torch.ones(2, 8)
    before = graph(x)
    share_tied(graph)
    assert targets(graph) == ["turned", "head", "head", "bias"]  # a transpose is another tensor
    assert torch.equal(graph(x), before)


def test_small_tensors_stand_in_the_engines() -> None:
    stored = collect(tied())
    assert stored.keys() == {"turned", "head"}
    assert all(tensor.is_contiguous() and tensor.nbytes >= INLINE for tensor in stored.values())


def test_names_of_a_draft_model_have_a_prefix() -> None:
    assert (prefix_of("target"), prefix_of("assistant")) == ("", "assistant.")
    assert collect(tied(), prefix_of("assistant")).keys() == {"assistant.turned", "assistant.head"}


def test_a_prepared_graph_computes_the_same_when_tied_weights_have_one_name() -> None:
    graph = prepared("llama")
    before = logits(graph)
    share_tied(graph)
    assert torch.equal(logits(graph), before)


def test_each_half_type_has_a_file_and_all_others_share_one(tmp_path: Path) -> None:
    tensors = {"w": torch.full((4, 4), 1.5), "packed": torch.ones(4, dtype=torch.uint8)}
    files = {kind: file_name(kind) for kind in ("fp32", "bf16", "int4")}
    assert files == {"fp32": "weights.safetensors", "bf16": "weights-bf16.safetensors", "int4": "weights.safetensors"}
    for kind, dtype in (("int4", torch.float32), ("bf16", torch.bfloat16)):
        write_type(tensors, tmp_path / files[kind], kind)
        stored = load_file(tmp_path / files[kind])
        assert (stored["w"].dtype, stored["packed"].dtype) == (dtype, torch.uint8)
        assert stored["w"].float().equal(tensors["w"])


def test_a_file_of_one_model_and_type_has_both_in_its_name() -> None:
    assert file_name("int4", "assistant") == "weights-assistant-int4.safetensors"
    assert file_name("fp32", "target") == "weights-target-fp32.safetensors"


def test_no_room_is_one_line_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot write .*none/w: .*; free some space, or choose another output"):
        write({"w": torch.ones(2)}, tmp_path / "none" / "w")


@pytest.mark.parametrize("length", [1, 7, 8, 30, 61])
def test_data_begin_where_processors_load_whole_lines(length: int, tmp_path: Path) -> None:
    """Names of any length, also beyond ASCII, and tensors of every type that is written."""
    tensors = {f"{'ä' * length}.{kind}": torch.ones(3, 5).to(dtype) for dtype, kind in TYPES.items()}
    write(tensors, tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    assert (8 + int.from_bytes(data[:8], "little")) % ALIGNMENT == 0
    assert {name: (t.dtype, t.tolist()) for name, t in load_file(tmp_path / "w.safetensors").items()} == {
        name: (t.dtype, t.tolist()) for name, t in tensors.items()
    }


def test_types_that_no_engine_reads_are_written_without_padding(tmp_path: Path) -> None:
    write({"a": torch.ones(3, dtype=torch.float64)}, tmp_path / "w.safetensors")
    assert load_file(tmp_path / "w.safetensors")["a"].tolist() == [1.0, 1.0, 1.0]


def test_a_tensor_of_two_models_is_stored_under_its_first_name(tmp_path: Path) -> None:
    table, file = torch.ones(64, 8), tmp_path / "w.safetensors"
    tensors = {"embed": table, "head.embedding": table, "head.other": table[:32], "twin": table.clone()}
    write_type(tensors, file, "fp16")
    assert set(load_file(file)) == {"embed", "head.other", "twin"}
    header, start = read_header(file)
    assert header["head.embedding"] == header["embed"] and start % ALIGNMENT == 0
    assert stored_names(file)["head.embedding"] == "embed"
