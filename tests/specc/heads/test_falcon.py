"""The LSTM layers of Falcon, and the block of two slots that see one another."""

from __future__ import annotations

import pytest
import torch
from small_head import SIZE, head
from torch import Tensor
from torch.nn import functional

from specc.heads.falcon import LAYERS, PARTS, Falcon
from specc.heads.head import rms_norm
from specc.heads.layer import rotate
from specc.passes.cell_operators import run_cells

pytestmark = pytest.mark.torch
SLOTS = 7
TOKENS = torch.randint(1, 24, (1, SLOTS), generator=torch.Generator().manual_seed(5))
STATES = torch.randn(1, SLOTS, SIZE, generator=torch.Generator().manual_seed(6))


def falcon() -> Falcon:
    module = head("falcon")
    assert isinstance(module, Falcon)
    return module


@torch.no_grad()
def behind_the_lstm(module: Falcon) -> Tensor:
    """Return the outputs of torch's own LSTM over embeddings beside states, [N, d]."""
    assert module.embedding is not None
    inputs = [rms_norm(part, None, module.eps) for part in (module.embedding[TOKENS], STATES)]
    x = torch.cat(inputs, -1)
    for layer in module.lstm:
        x = layer(x)[0]
    return x[0]


@torch.no_grad()
def test_the_layers_remember_what_torchs_lstm_does() -> None:
    module = falcon()
    nothing = torch.zeros(1, SLOTS, 2 * LAYERS * SIZE)
    x = module.beside(TOKENS, STATES)
    _, block = module.remember(x, nothing, nothing[..., :1], run_cells)
    truth = behind_the_lstm(module)
    torch.testing.assert_close(block[0, :, 1], truth)
    torch.testing.assert_close(block[0, 1:, 0], truth[:-1])


@torch.no_grad()
def test_a_block_is_two_slots_under_a_mask_that_is_causal_between_blocks_alone() -> None:
    """For each end of a block, the reference attends from both of its slots to all rows up to the end."""
    module = falcon()
    layer = module.block_layer
    output = module(TOKENS, torch.arange(SLOTS)[None], module.fuse(STATES))
    outputs, x = behind_the_lstm(module), module.beside(TOKENS, STATES)[0]
    read = rms_norm(outputs, layer.state_norm, layer.eps)
    key, value = (
        product(read).view(SLOTS, layer.key_heads, -1).transpose(0, 1)[None] for product in (layer.key, layer.value)
    )
    key = rotate(key, *layer.angles(torch.arange(SLOTS)[None]))
    for end in range(1, SLOTS):
        pair = torch.arange(end - 1, end + 1)
        query = layer.query(read[pair]).view(2, layer.heads, -1).transpose(0, 1)[None]
        query = rotate(query, *layer.angles(torch.tensor([[end, end]])))
        mask = torch.arange(SLOTS)[None] <= torch.tensor([[end], [end]])
        attended = functional.scaled_dot_product_attention(query, key, value, mask, enable_gqa=True)
        stream = layer.after_mlp(outputs[pair] + layer.output(attended[0].transpose(0, 1).flatten(1)))
        guesses = torch.stack([module.fc(x[end]), module.second(x[end])]) + module.correction(
            rms_norm(stream, None, module.eps)
        )
        torch.testing.assert_close(output["logits"][0, end], module.logits(guesses), atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_the_first_slot_of_a_block_sees_the_second_one() -> None:
    """The control sees slots up to its own. Its first guess is another one."""
    module = falcon()
    nothing = torch.zeros(1, SLOTS, 2 * LAYERS * SIZE)
    x, positions = module.beside(TOKENS, STATES), torch.arange(SLOTS)[None]
    _, block = module.remember(x, nothing, nothing[..., :1], run_cells)

    def causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        groups = module.block_layer.heads // module.block_layer.key_heads
        is_first = torch.arange(query.shape[1]) % (2 * groups) < groups
        rows = torch.arange(SLOTS)[:, None] - is_first[:, None, None].long() >= torch.arange(SLOTS)
        rows |= torch.arange(SLOTS) == 0
        return functional.scaled_dot_product_attention(query, key, value, rows, enable_gqa=True)

    ours = module.guess(x, block, positions, module.block_layer.attend)
    theirs = module.guess(x, block, positions, causal)
    torch.testing.assert_close(ours[:, 1:, 1], theirs[:, 1:, 1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(ours[:, 2:, 0], theirs[:, 2:, 0], atol=1e-2)


@torch.no_grad()
def test_a_second_call_goes_on_from_what_the_first_one_remembers() -> None:
    """Its slots alone are compared: without rows of the first call, attention sees less."""
    module = falcon()
    whole, first = (
        module(TOKENS[:, :end], torch.arange(end)[None], module.fuse(STATES[:, :end])) for end in (SLOTS, 4)
    )
    size = SIZE * 2 * LAYERS
    state = module.fuse(STATES[:, 4:])
    state[:, 0, SIZE : SIZE + size] = first["state"][:, -1, SIZE : SIZE + size]
    memories = {}
    for starts in (0.0, 1.0):
        state[:, 0, SIZE + size] = starts
        rest = module(TOKENS[:, 4:], torch.arange(4, SLOTS)[None], state)["state"]
        memories[starts] = rest[..., SIZE : SIZE + size]
    truth = whole["state"][:, 4:, SIZE : SIZE + size]
    torch.testing.assert_close(memories[1.0], truth)
    assert not torch.allclose(memories[0.0], truth, atol=1e-3)


def test_a_slot_reads_and_returns_six_parts_and_a_call_makes_two_tokens() -> None:
    module = falcon()
    assert module.state_size == PARTS * SIZE == module.fuse(STATES).shape[-1]
    assert module.draft_cost(4, 10**6) == pytest.approx(module.draft_cost(2, 10**6) * 2)
    assert module.draft_cost(3, 10**6) == module.draft_cost(4, 10**6)
