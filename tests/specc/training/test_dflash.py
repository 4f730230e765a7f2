"""A block is trained as it is drafted: its slots see one another and the text before, and nothing behind it."""

from __future__ import annotations

import pytest
import torch
from block_attention import block_attention
from small_head import head, recordings
from torch import Tensor

from specc.heads.dflash import Dflash
from specc.runtime.drafters.dflash import PENDING
from specc.training.batches import Batch, collate
from specc.training.dflash import COURSE

pytestmark = pytest.mark.torch
STEPS = 3


def drafted(module: Dflash, batch: Batch, root: int, hidden: tuple[int, int] | None = None) -> Tensor:
    """Return the logits [STEPS, V'] of the block behind token `root` + 1 of the first text.

    Args:
        module: the head.
        batch: the texts.
        root: the slot of the last token that the model has run.
        hidden: a slot of the block, and one that it does not see.
    """
    rows, block = root + 1, 1 + STEPS
    state = module.fuse(batch.states[:1, :rows].float())
    slots = state[:, -1:].repeat(1, block, 1)
    slots[0, :, -1] = torch.arange(PENDING, PENDING + block)
    attend = block_attention(rows, block, hidden)
    tokens = torch.cat([batch.tokens[:1, 1 : rows + 1], batch.tokens[:1, rows : rows + 1].expand(-1, block)], 1)
    stream = module.run_layers(
        tokens, torch.arange(rows + block)[None], torch.cat([state, slots], 1), [attend for _ in module.layers]
    )
    return module.logits(stream)[0, rows + 1 :]


def test_each_depth_has_the_logits_of_a_slot_of_a_block() -> None:
    module = head("dflash")
    assert isinstance(module, Dflash)
    batch = collate(recordings(2, "dflash", length=9))
    unrolled = [COURSE.product(module, k, rows) for k, rows in enumerate(COURSE.unroll(module, batch, STEPS))]
    for root in range(batch.slots - STEPS):
        logits = drafted(module, batch, root)
        for depth in range(STEPS):
            torch.testing.assert_close(unrolled[depth][0, root + depth], logits[depth], atol=1e-4, rtol=1e-4)


def test_a_slot_sees_those_behind_it() -> None:
    module = head("dflash")
    assert isinstance(module, Dflash)
    batch = collate(recordings(2, "dflash", length=9))
    whole, without = drafted(module, batch, 4), drafted(module, batch, 4, hidden=(1, STEPS))
    assert (whole[0] - without[0]).abs().max() > 1e-3


def test_the_mask_and_the_products_of_states_are_trained() -> None:
    module = head("dflash").train()
    streams = COURSE.unroll(module, collate(recordings(2, "dflash")), STEPS)
    torch.autograd.backward(streams[STEPS - 1].sum())
    for name in ("mask", "context_norm", "fc.weight", "layers.0.key.weight", "layers.1.value.weight"):
        gradient = module.get_parameter(name).grad
        assert gradient is not None and gradient.abs().max() > 0
