"""DropAsserts, DropNoops, FoldConstants, FuseRMSNorm, FuseRotary, MergeProjections: what they find; nothing changes."""

from __future__ import annotations

import pytest
import torch
from expecttest import assert_expected_inline
from graphs import EIGHT, captured, logits, operators, prepared, truth

from specc import passes
from specc.passes.drop_asserts import DropAsserts
from specc.passes.drop_noops import DropNoops
from specc.passes.fold_constants import FoldConstants
from specc.passes.fuse_rms_norm import FuseRMSNorm
from specc.passes.fuse_rotary import FuseRotary
from specc.passes.merge_projections import MergeProjections
from specc.passes.out_of_place import OutOfPlace

pytestmark = pytest.mark.torch

ROTATED = {"llama": 6, "qwen3": 6, "gemma2": 6, "phi": 6, "gpt_neox": 6, "cohere2": 4, "mixtral": 6}  # 3 layers
MERGED = {
    "llama": 3,
    "gemma2": 3,
    "mixtral": 3,
    "cohere2": 3,
}  # elsewhere something stands between
NORMED = {"llama": 7, "qwen3": 13, "gemma2": 13, "mixtral": 7}


def test_what_is_left_of_a_llama() -> None:
    found = "\n".join(f"{count:3} {name}" for name, count in operators(prepared("llama")).items())
    assert_expected_inline(
        found,
        """\
  6 aten.add.Tensor
  1 aten.embedding
 16 aten.linear
  3 aten.mul.Tensor
  3 aten.reshape
  3 aten.silu
  9 aten.slice.Tensor
  1 aten.sym_size.int
 12 aten.transpose.int
  9 aten.view
  3 specc.attention
  7 specc.rms_norm
  6 specc.rotary""",
    )


@pytest.mark.parametrize("family", EIGHT)
def test_asserts_go_and_nothing_changes(family: str) -> None:
    graph = captured(family)
    passes.run([DropAsserts()], graph)
    assert not any("assert" in name for name in operators(graph))
    torch.testing.assert_close(logits(graph), truth(family), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", EIGHT)
def test_noops_go_and_nothing_changes(family: str) -> None:
    graph = captured(family)
    _, ran = passes.run([DropAsserts(), DropNoops()], graph)
    assert ran.changed == 0 or ran.nodes_after < ran.nodes_before
    torch.testing.assert_close(logits(graph), truth(family), atol=1e-4, rtol=1e-4)


def test_gemmas_weight_plus_one_is_computed_once() -> None:
    graph = captured("gemma2")
    *_, ran = passes.run([DropAsserts(), DropNoops(), FoldConstants()], graph)
    assert ran.changed >= 13
    torch.testing.assert_close(logits(graph), truth("gemma2"), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", EIGHT)
def test_every_rms_norm_is_one_node(family: str) -> None:
    graph = captured(family)
    *_, ran = passes.run([DropAsserts(), DropNoops(), FoldConstants(), FuseRMSNorm()], graph)
    assert ran.changed == operators(graph).get("specc.rms_norm", 0) == NORMED.get(family, 0)
    torch.testing.assert_close(logits(graph), truth(family), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", EIGHT)
def test_queries_and_keys_of_rotated_layers_are_turned_by_one_node_each(family: str) -> None:
    graph = captured(family)
    *_, ran = passes.run([DropAsserts(), DropNoops(), FuseRotary(64)], graph)
    assert ran.changed == operators(graph).get("specc.rotary", 0) == ROTATED.get(family, 0)
    torch.testing.assert_close(logits(graph), truth(family), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", EIGHT)
def test_queries_keys_and_values_come_from_one_product_where_nothing_stands_between(family: str) -> None:
    graph = captured(family)
    before = operators(graph)["aten.linear"]
    *_, ran = passes.run([DropAsserts(), DropNoops(), FoldConstants(), FuseRotary(64), MergeProjections()], graph)
    assert ran.changed == MERGED.get(family, 0)
    assert operators(graph)["aten.linear"] == before - 2 * ran.changed
    torch.testing.assert_close(logits(graph), truth(family), atol=1e-4, rtol=1e-4)


def test_what_is_written_in_place_is_returned_instead() -> None:
    """A router that divides its weights in place would stay alive in a draft that leaves its layer out."""
    graph = captured("mixtral")
    _, ran = passes.run([DropAsserts(), OutOfPlace()], graph)
    assert ran.changed == 3 and not any("_." in name for name in operators(graph) if name.startswith("aten.div"))
    torch.testing.assert_close(logits(graph), truth("mixtral"), atol=1e-4, rtol=1e-4)
