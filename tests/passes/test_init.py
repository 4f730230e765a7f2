"""The contract that all passes share: `run` cleans up, checks, counts, and says what ran before an error."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from expecttest import assert_expected_inline
from families import FAMILIES, NEAR_ANOTHER, POSITIONS
from graphs import EIGHT, captured, logits, operators, prepared, truth
from small_graphs import Layers as Stack
from small_graphs import hidden_states, small
from torch.fx import GraphModule, Node

from specc import passes
from specc.passes.drop_asserts import DropAsserts
from specc.passes.exit_after import ExitAfter
from specc.passes.find import outputs
from specc.passes.pad_heads import PadHeads
from specc.passes.protocol import Miss
from specc.runtime.block import Block, Frontier, Layers, Parents
from specc.runtime.errors import PassError, SpeccWarning
from specc.runtime.json_codec import to_json
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch


@dataclass(frozen=True)
class FindNothing(passes.Pass):
    """A pass that changes nothing."""

    def __call__(self, graph: GraphModule) -> int:
        return 0


@dataclass(frozen=True)
class MayFindNothing(FindNothing):
    """A pass that may change nothing."""

    optional: ClassVar[bool] = True


@dataclass(frozen=True)
class NearlyFinds(MayFindNothing):
    """A pass that changes nothing, and knows what it came nearest to."""

    def nearest_miss(self, graph: GraphModule) -> Miss:
        return Miss(outputs(graph)["logits"], "is too odd")


@dataclass(frozen=True)
class Breaks(passes.Pass):
    """A pass that leaves a graph which uses a value before it is computed."""

    def __call__(self, graph: GraphModule) -> int:
        last = outputs(graph)["logits"]
        first: Node = last.all_input_nodes[0]
        last.append(first)
        return 1


def doubled() -> GraphModule:
    return small(lambda x: x * 2, x=torch.ones(1))


def test_a_pass_that_finds_nothing_is_an_error_unless_it_may() -> None:
    with pytest.raises(PassError, match=r"FindNothing\(\): found nothing to change \(after DropAsserts\(\)\)"):
        passes.run([DropAsserts(), FindNothing()], doubled())
    _, record = passes.run([DropAsserts(), MayFindNothing()], doubled())
    assert (record.changed, record.nodes_before, record.note) == (0, record.nodes_after, "")


def test_a_near_miss_is_a_warning_and_a_note_of_the_record() -> None:
    graph = doubled()
    note = "NearlyFinds changed nothing; nearest: mul in model is too odd; the model compiles, but runs slower"
    with pytest.warns(SpeccWarning) as warned:
        (record,) = passes.run([NearlyFinds()], graph)
    assert [str(w.message) for w in warned] == [note] == [record.note]
    assert to_json(record)["note"] == note
    assert warned[0].filename == __file__  # the warning points at the caller


def test_a_record_without_a_note_has_an_empty_one() -> None:
    (record,) = passes.run([MayFindNothing()], doubled())
    assert to_json(record)["note"] == ""


def test_an_error_names_the_pass_its_values_and_what_ran_before() -> None:
    with pytest.raises(PassError, match=r"ExitAfter\(layers=9\): no exit after layer 9.*\(after no other pass\)"):
        passes.run([ExitAfter(9)], small(Stack(), x=hidden_states()))
    steps = [DropAsserts(), MayFindNothing(), FindNothing()]
    with pytest.raises(PassError, match=r"\(after DropAsserts\(\), MayFindNothing\(\)\)$"):
        passes.run(steps, doubled())


def test_a_pass_that_leaves_an_invalid_graph_is_named() -> None:
    with pytest.raises(PassError, match=r"^Breaks\(\): .*used before it has been defined"):
        passes.run([Breaks()], small(lambda x: x * 2 + 1, x=torch.ones(1)))


def test_dead_nodes_go_and_the_record_counts_them() -> None:
    graph = doubled()
    with graph.graph.inserting_before(graph.graph.output_node()):
        graph.graph.call_function(torch.ops.aten.neg.default, (outputs(graph)["logits"],))
    (record,) = passes.run([MayFindNothing()], graph)
    assert (record.nodes_before, record.nodes_after) == (4, 3) and 0 < record.seconds < 60


def test_dump_writes_each_stage_as_python(tmp_path: Path) -> None:
    passes.run(passes.preparation(64), captured("llama"), tmp_path / "dump" / "deep")
    files = sorted((tmp_path / "dump" / "deep").iterdir())
    names = [f"{i:02}-{type(step).__name__}.py" for i, step in enumerate(passes.preparation(64))]
    assert [file.name for file in files] == names
    assert "specc.rotary" in files[-1].read_text() and "specc.rotary" not in files[0].read_text()


def test_dump_prints_nothing_and_takes_a_directory_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        passes.run([DropAsserts(), MayFindNothing()], doubled(), tmp_path / "dump" / "deep")
    files = sorted((tmp_path / "dump" / "deep").iterdir())
    assert [file.name for file in files] == ["00-DropAsserts.py", "01-MayFindNothing.py"]
    assert "aten.mul.Tensor" in files[0].read_text() and capsys.readouterr().out == ""


def test_a_fork_has_notes_of_its_own_at_each_node() -> None:
    graph = doubled()
    pairs = [*zip(graph.graph.nodes, passes.fork(graph).graph.nodes, strict=True)]
    assert all(a.meta == b.meta and a.meta is not b.meta for a, b in pairs) and pairs[0][0].meta


def test_a_fork_shares_weights_and_leaves_the_original_alone() -> None:
    graph = prepared("llama")
    before = logits(graph)
    twin = passes.fork(graph)
    passes.run([ExitAfter(1)], twin)
    assert torch.equal(logits(graph), before) and not torch.allclose(logits(twin), before)
    originals, copies = dict(graph.named_parameters()), dict(twin.named_parameters())
    assert copies and all(copies[name].data_ptr() == originals[name].data_ptr() for name in copies)
    values = [
        (node.meta, copy.meta) for node, copy in zip(graph.graph.nodes, passes.fork(graph).graph.nodes, strict=True)
    ]
    assert all(a == b and a is not b for a, b in values)


def names(block: Block) -> list[str]:
    return [type(step).__name__ for step in passes.pipeline(block, 40)]


def test_a_pipeline_has_the_passes_that_its_block_asks_for() -> None:
    chain = Tree.chain(2)
    assert names(Block(chain)) == ["LowerAttention", "BakeTree", "ChooseOutputs"]
    assert names(Block(Parents(2))) == ["LowerAttention", "ParentsInput", "ChooseOutputs"]
    assert names(Block(Frontier(2, 4))) == ["LowerAttention", "MaskInput", "ChooseOutputs"]
    assert names(Block(chain, last_row=True)) == ["LowerAttention", "BakeTree", "KeepRow", "ChooseOutputs"]
    assert names(Block(chain, layers=Layers(exit_after=1)))[0] == "ExitAfter"
    for skipped in (Layers(skip_attention=(0,)), Layers(skip_mlp=(0,))):
        assert names(Block(chain, layers=skipped))[0] == "SkipSublayers"


def test_the_passes_of_a_preparation_get_the_positions_and_the_multiple_of_a_head() -> None:
    """All kernels take heads of a multiple of 8 sizes."""
    reprs = [repr(step) for step in passes.preparation(64)]
    assert {"BoundPositions(positions=64)", "FuseRotary(positions=64)", "PadHeads(multiple=8)"} < set(reprs)


def test_the_passes_of_a_pipeline_get_the_blocks_values() -> None:
    layers = Layers(skip_attention=(0,), skip_mlp=(1,), exit_after=2)
    block = Block(Frontier(3, 5), ("ids",), layers)
    assert [repr(step) for step in passes.pipeline(block, 40)] == [
        "ExitAfter(layers=2)",
        "SkipSublayers(attention=(0,), mlp=(1,))",
        "LowerAttention(capacity=40)",
        "MaskInput(slots=3, span=5)",
        "ChooseOutputs(outputs=('ids',))",
    ]


PLACES = {  # in three layers
    "DropAsserts": None,  # some in every model
    "DropNoops": None,
    "OutOfPlace": {"mixtral": 3},  # a router that divides in place would stay alive in a draft without its layer
    "FoldConstants": {"gemma2": 13},  # its norms' weight + 1
    "FuseRMSNorm": {"llama": 7, "qwen3": 13, "gemma2": 13, "mixtral": 7},
    "FuseRotary": {"llama": 6, "qwen3": 6, "gemma2": 6, "phi": 6, "gpt_neox": 6, "cohere2": 4, "mixtral": 6}
    | {"codegen": 6},
    "BoundPositions": {"opt": 1, "gpt2": 1, "codegen": 1},
    "MergeProjections": {"llama": 3, "qwen3": 3, "gemma2": 3, "phi": 3, "cohere2": 3, "opt": 3, "mixtral": 3},
    "PadHeads": {},  # their heads have sizes that are multiples of 8
    "CoreAten": {},
}


def test_what_is_left_of_a_llama() -> None:
    counts = "\n".join(f"{count:3} {name}" for name, count in operators(prepared("llama")).items())
    assert_expected_inline(
        counts,
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
@pytest.mark.filterwarnings("ignore::specc.runtime.errors.SpeccWarning")
def test_each_pass_finds_its_places_and_changes_no_logit(family: str) -> None:
    """One after another, for more positions than learned tables have, and with a padding of heads at the end."""
    graph = captured(family)
    before = operators(graph)
    for step in [*passes.preparation(POSITIONS + 16), PadHeads(24)]:
        (record,) = passes.run([step], graph)
        name = type(step).__name__
        places = {family: 3} if step == PadHeads(24) else PLACES[name]
        if places is None:
            assert record.changed and record.nodes_after < record.nodes_before, name
        else:
            assert record.changed == places.get(family, 0), name
        difference = (logits(graph) - truth(family)).abs() - 1e-4 * truth(family).abs()
        assert difference.max() < 1e-4, name
    counts = operators(graph)
    assert not any("assert" in name or "div_" in name for name in counts)
    merged = PLACES["MergeProjections"] or {}
    assert counts.get("aten.linear", 0) == before.get("aten.linear", 0) - 2 * merged.get(family, 0)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "opt"])
def test_preparation_keeps_the_logits(family: str) -> None:
    torch.testing.assert_close(logits(prepared(family)), truth(family), atol=1e-4, rtol=1e-4)


UNFUSED = {"FuseRotary": {"gpt_oss", "deepseek_v3"}, "FuseRMSNorm": set()}


SLOW = {family for family in FAMILIES if "-" in family} | NEAR_ANOTHER


@pytest.mark.parametrize("family", [pytest.param(f, marks=pytest.mark.slow) if f in SLOW else f for f in FAMILIES])
def test_a_family_gives_a_warning_only_where_a_rotation_or_norm_stays(family: str) -> None:
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        passes.run(passes.preparation(64), captured(family))
    notes = [str(w.message) for w in records if w.category is SpeccWarning]
    for name, families in UNFUSED.items():
        assert any(note.startswith(name) for note in notes) == (family in families), notes
    assert not any(note.startswith("MergeProjections") for note in notes)
