"""The operators that passes put into graphs: what they mean, by other means."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from specc.passes import operators

pytestmark = pytest.mark.torch


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


Q, K, V = random(1, 4, 5, 8), random(1, 2, 5, 8, seed=1), random(1, 2, 5, 6, seed=2)


def expected(visible: Tensor, query: Tensor = Q, key: Tensor = K, value: Tensor = V, scale: float = 0.3) -> Tensor:
    return scaled_dot_product_attention(query, key, value, visible, scale=scale, enable_gqa=True)


def test_attention_is_causal_and_heads_share_keys() -> None:
    out = torch.ops.specc.attention(Q, K, V, None, 0.3, 0, 0.0, 0)
    torch.testing.assert_close(out, expected(torch.ones(5, 5).tril().bool()))


def test_a_window_of_two_sees_its_own_row_and_the_one_before() -> None:
    out = torch.ops.specc.attention(Q, K, V, None, 0.3, 2, 0.0, 0)
    torch.testing.assert_close(out, expected((torch.ones(5, 5).tril() - torch.ones(5, 5).tril(-2)).bool()))


def test_scores_are_bounded_and_a_sink_takes_its_share() -> None:
    sinks = random(4, seed=3)
    out = torch.ops.specc.attention(Q, K, V, sinks, 0.3, 0, 1.5, 0)
    for head in range(4):
        scores = 1.5 * torch.tanh(Q[0, head] @ K[0, head // 2].T * 0.3 / 1.5)
        for slot in range(5):
            weights = scores[slot, : slot + 1].exp() / (scores[slot, : slot + 1].exp().sum() + sinks[head].exp())
            torch.testing.assert_close(out[0, head, slot], weights @ V[0, head // 2, : slot + 1])


@pytest.mark.parametrize("window", [0, 3])
def test_cached_attention_writes_its_rows_and_sees_what_the_mask_shows(window: int) -> None:
    """Three slots behind four rows; two are alternatives of one another."""
    mask = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 1]], dtype=torch.bool)
    positions = torch.tensor([[4, 5, 5]])
    caches = random(1, 2, 9, 8, seed=4), random(1, 2, 9, 6, seed=5)
    query, key, value = Q[:, :, :3], K[:, :, :3], V[:, :, :3]
    out, keys, values = torch.ops.specc.cached_attention(
        query, key, value, *caches, torch.tensor([4]), mask, positions, None, 0.3, window, 0.0, 0
    )
    for new, cache, rows in ((keys, caches[0], key), (values, caches[1], value)):
        assert torch.equal(new[:, :, 4:7], rows) and torch.equal(new[:, :, :4], cache[:, :, :4])
        assert torch.equal(new[:, :, 7:], cache[:, :, 7:])
    visible = torch.cat([torch.ones(3, 4, dtype=torch.bool), mask], 1)
    places = torch.tensor([0, 1, 2, 3, 4, 5, 5])
    if window:
        visible &= positions[0][:, None] - places < window
    torch.testing.assert_close(out, expected(visible, query, keys[:, :, :7], values[:, :, :7]))


def test_the_rows_of_a_mask_that_is_wider_than_the_slots_stand_at_their_own_numbers() -> None:
    """Two slots that see chosen ones of the last four rows, under a window of three positions."""
    mask = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 1]], dtype=torch.bool)
    caches = random(1, 2, 9, 8, seed=4), random(1, 2, 9, 6, seed=5)
    positions = torch.tensor([[4, 3]])
    out, keys, values = torch.ops.specc.cached_attention(
        Q[:, :, :2], K[:, :, :2], V[:, :, :2], *caches, torch.tensor([3]), mask, positions, None, 0.3, 3, 0.0, 0
    )
    visible = torch.cat([torch.ones(2, 1, dtype=torch.bool), mask], 1)
    visible &= positions[0][:, None] - torch.arange(5) < 3
    torch.testing.assert_close(out, expected(visible, Q[:, :, :2], keys[:, :, :5], values[:, :, :5]))


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_turns_pairs_as_complex_numbers(interleaved: bool) -> None:
    x, angles, positions = random(1, 2, 3, 8), random(5, 3, seed=1), torch.tensor([[4, 0, 2]])
    out = torch.ops.specc.rotary(x, angles.cos(), angles.sin(), positions, interleaved)
    pairs = [(2 * i, 2 * i + 1) if interleaved else (i, i + 3) for i in range(3)]
    for i, (a, b) in enumerate(pairs):
        turned = torch.complex(x[..., a], x[..., b]) * torch.polar(torch.ones(3), angles[positions[0], i])
        torch.testing.assert_close(out[..., a], turned.real)
        torch.testing.assert_close(out[..., b], turned.imag)
    assert torch.equal(out[..., 6:], x[..., 6:])


def test_rms_norm_is_torchs() -> None:
    x, weight = random(2, 3, 8), random(8, seed=1)
    torch.testing.assert_close(
        torch.ops.specc.rms_norm(x, weight, 1e-2), torch.nn.functional.rms_norm(x, (8,), weight, 1e-2)
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_linear_unpacks_low_bits_first_and_centres_them(bits: int) -> None:
    """Two rows of five columns in blocks of four: the second block is padded."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(0, 1 << bits, (2, 2, 4), generator=generator)
    per_byte = 8 // bits
    parts = numbers.view(2, 2, 4 // per_byte, per_byte)
    packed = torch.stack([parts[..., i] << bits * i for i in range(per_byte)]).sum(0).to(torch.uint8)
    scales = torch.tensor([[0.5, 2.0], [1.0, 0.25]])
    matrix = ((numbers - 2 ** (bits - 1)) * scales[..., None]).reshape(2, 8)[:, :5]
    x = random(1, 3, 5)
    torch.testing.assert_close(torch.ops.specc.quantized_linear(x, packed, scales, 5, bits, 4), x @ matrix.T)


def in_panels(matrix: torch.Tensor) -> torch.Tensor:
    """Lay a matrix [K, columns] out in panels of 32 columns, with zeros to fill up, value by value."""
    rows, columns = matrix.shape
    panels = torch.zeros(-(-columns // 32), rows, 32)
    for k in range(rows):
        for column in range(columns):
            panels[column // 32, k, column % 32] = matrix[k, column]
    return panels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_panels_hold_columns_side_by_side_and_bf16_ones_two_rows_beside_each_other(dtype: torch.dtype) -> None:
    """35 columns are two panels; with 5 rows the last pair of bf16 has a zero."""
    matrix = random(5, 35).to(dtype).to(torch.float32)
    panels = in_panels(matrix)
    if dtype == torch.bfloat16:
        panels = torch.stack([torch.cat([panels, torch.zeros(2, 1, 32)], 1)[:, i::2] for i in (0, 1)], -1).to(dtype)
    x, ids = random(1, 3, 5, seed=1), torch.tensor([[34, 0, 7]])
    torch.testing.assert_close(torch.ops.specc.panel_linear(x, panels, 35, 5), x @ matrix)
    if dtype == torch.bfloat16:
        assert torch.equal(torch.ops.specc.panel_embedding(ids, panels, 35, 5), matrix.T[ids])


@pytest.mark.parametrize("bits", [4, 8])
def test_panels_of_few_bits_hold_four_rows_of_sixteen_columns_beside_each_other(bits: int) -> None:
    """Six rows in blocks of 8, which are filled up: one block, two steps of four rows."""
    numbers = torch.randint(0, 1 << bits, (6, 35), generator=torch.Generator().manual_seed(0))
    bytes_of = torch.zeros(2, 1, 2, 2, 64, dtype=torch.uint8)  # panel, block, step, half of the panel, byte
    for k in range(6):
        for column in range(35):
            half, place = column % 32 // 16, column % 16 * 4 + k % 4
            bytes_of[column // 32, 0, k // 4, half, place] = numbers[k, column]
    panels = bytes_of if bits == 8 else bytes_of[..., 0, :] | bytes_of[..., 1, :] << 4
    scales = random(2, 1, 32).abs()
    x, matrix = random(1, 3, 6, seed=1), (numbers - 2 ** (bits - 1)) * scales.reshape(1, 64)[:, :35]
    result = torch.ops.specc.panel_quantized_linear(x, panels, scales, 35, bits, 8, 6)
    torch.testing.assert_close(result, x @ matrix, atol=1e-4, rtol=1e-5)  # Values reach 127 times the scale.


BF16_PANELS = torch.zeros(2, 3, 32, 2, dtype=torch.bfloat16)
CASES = {
    "attention": (Q, K, V, None, 0.3, 0, 0.0, 0),
    "rotary": (Q, random(5, 4), random(5, 4), torch.arange(5)[None], False),
    "rms_norm": (Q, random(8), 1e-5),
    "quantized_linear": (random(1, 3, 5), torch.zeros(3, 2, 2, dtype=torch.uint8), random(3, 2), 5, 4, 4),
    "panel_linear": (random(1, 3, 5), torch.zeros(2, 5, 32), 35, 5),
    "panel_embedding": (torch.tensor([[3, 4]]), BF16_PANELS, 35, 5),
    "panel_quantized_linear": (
        random(1, 3, 6), torch.zeros(2, 1, 2, 64, dtype=torch.uint8), random(2, 1, 32), 35, 4, 8, 6,
    ),
    "cached_attention": (
        *(t[:, :, :2] for t in (Q, K, V)), random(1, 2, 9, 8), random(1, 2, 9, 6), torch.tensor([3]),
        torch.ones(2, 2, dtype=torch.bool).tril(), torch.tensor([[3, 4]]), None, 0.3, 0, 0.0, 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_shape_without_data_is_the_shape_with_data(name: str) -> None:
    operator = getattr(operators, name)
    torch.library.opcheck(operator, CASES[name], test_utils=("test_schema", "test_faketensor"))
