"""What all heads have in common: the model's table, and that torch.export captures them for any number of slots."""

from __future__ import annotations

import pytest
import torch
from small_head import SIZE, TAPS, VOCABULARY, head, tables
from torch import Tensor, nn

from specc.heads import Head
from specc.heads.in_model import InModelHead
from specc.heads.rows_head import RowsHead
from specc.runtime.errors import HeadError

pytestmark = pytest.mark.torch
ARCHITECTURES = pytest.mark.parametrize("architecture", TAPS)
WITH_STATES = pytest.mark.parametrize(
    "architecture", [name for name in TAPS if not isinstance(head(name), InModelHead | RowsHead)]
)


class Fuse(nn.Module):
    def __init__(self, owner: Head) -> None:
        super().__init__()
        self.owner = owner

    def forward(self, taps: Tensor) -> Tensor:
        return self.owner.fuse(taps)


def inputs(slots: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(slots)
    tokens = torch.randint(VOCABULARY, (1, slots), generator=generator)
    return tokens, torch.arange(slots)[None], torch.randn(1, slots, size, generator=generator)


@WITH_STATES
def test_forward_is_captured_for_any_number_of_slots(architecture: str) -> None:
    module = head(architecture).requires_grad_(False)
    slots = {1: torch.export.Dim("slots", min=2, max=1 << 16)}
    graph = torch.export.export(
        module, inputs(7, module.state_size), dynamic_shapes=(slots, slots, slots), strict=False
    ).module()
    for count in (2, 11):
        example = inputs(count, module.state_size)
        result, truth = graph(*example), module(*example)
        assert result.keys() == truth.keys()
        for name, value in truth.items():
            torch.testing.assert_close(result[name], value)


@WITH_STATES
def test_fuse_is_captured_for_any_number_of_slots(architecture: str) -> None:
    module = Fuse(head(architecture).requires_grad_(False))
    taps = torch.randn(1, 11, SIZE * len(TAPS[architecture]))
    slots = ({1: torch.export.Dim("slots", min=2, max=1 << 16)},)
    graph = torch.export.export(module, (taps[:, :7],), dynamic_shapes=slots, strict=False).module()
    torch.testing.assert_close(graph(taps), module(taps))
    assert module(taps).shape == (1, 11, module.owner.state_size)


@ARCHITECTURES
def test_a_table_of_another_model_is_refused(architecture: str) -> None:
    with pytest.raises(HeadError, match=r"trained for toy, whose .* \(40, 32\); this model's has \(40, 8\): name a"):
        head(architecture).attach(torch.zeros(VOCABULARY, 8))


def test_a_head_that_knows_all_tokens_has_no_vocabulary() -> None:
    assert head("eagle3", VOCABULARY).vocabulary is None and head("eagle3").vocabulary is not None


def test_the_table_is_the_models_own() -> None:
    table = tables()
    module = head("eagle3")
    module.attach(table)
    assert module.embedding is not None and module.embedding.data_ptr() == table.data_ptr()
