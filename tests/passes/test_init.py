"""The contract that all passes share: `run` cleans up, checks, counts, and says what ran before an error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from graphs import captured, logits, prepared, truth
from torch.fx import GraphModule

from specc import passes
from specc.passes.drop_asserts import DropAsserts
from specc.passes.exit_after import ExitAfter
from specc.runtime.errors import PassError

pytestmark = pytest.mark.torch


@dataclass(frozen=True)
class FindNothing(passes.Pass):
    def __call__(self, graph: GraphModule) -> int:
        return 0


@dataclass(frozen=True)
class MayFindNothing(FindNothing):
    optional: ClassVar[bool] = True


def test_a_pass_that_finds_nothing_is_an_error_unless_it_may() -> None:
    with pytest.raises(PassError, match=r"FindNothing\(\): found nothing to change \(after DropAsserts\(\)\)"):
        passes.run([DropAsserts(), FindNothing()], captured("llama"))
    _, ran = passes.run([DropAsserts(), MayFindNothing()], captured("llama"))
    assert (ran.changed, ran.nodes_before) == (0, ran.nodes_after)


def test_an_error_names_the_pass_its_values_and_what_ran_before() -> None:
    with pytest.raises(PassError, match=r"ExitAfter\(layers=9\): no exit after layer 9.*\(after no other pass\)"):
        passes.run([ExitAfter(9)], prepared("llama"))


def test_dump_writes_each_stage_as_python(tmp_path: Path) -> None:
    passes.run(passes.preparation(64), captured("llama"), tmp_path / "dump")
    files = sorted((tmp_path / "dump").iterdir())
    assert [f.stem.split("-")[1] for f in files] == [type(p).__name__ for p in passes.preparation(64)]
    assert "specc.rotary" in files[-1].read_text() and "specc.rotary" not in files[0].read_text()


def test_a_fork_shares_weights_and_leaves_the_original_alone() -> None:
    graph = prepared("llama")
    before = logits(graph)
    twin = passes.fork(graph)
    passes.run([ExitAfter(1)], twin)
    assert torch.equal(logits(graph), before) and not torch.allclose(logits(twin), before)
    mine, theirs = dict(graph.named_parameters()), dict(twin.named_parameters())
    assert theirs and all(theirs[n].data_ptr() == mine[n].data_ptr() for n in theirs)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "opt"])
def test_preparation_keeps_the_logits(family: str) -> None:
    torch.testing.assert_close(logits(prepared(family)), truth(family), atol=1e-4, rtol=1e-4)
