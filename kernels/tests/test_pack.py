"""The layouts of weights, and rounding to bf16."""

from __future__ import annotations

import numpy as np
import pytest
from specc_kernels import pack


def test_rounding_to_bf16_is_to_the_nearest_with_ties_to_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -1.00390625, 3.4e38, np.inf, -np.inf, 0.0, -0.0], np.float32)
    expected = np.array([1.0, 1.0, 1.015625, -1.0, np.inf, np.inf, -np.inf, 0.0, -0.0], np.float32)
    result = pack.from_bf16(pack.to_bf16(values))
    assert np.array_equal(result.view(np.uint32), expected.view(np.uint32))


def test_a_nan_stays_a_nan_in_bf16() -> None:
    payload = np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(pack.from_bf16(pack.to_bf16(payload))).all()


@pytest.mark.parametrize(("k", "columns"), [(1, 1), (5, 33), (64, 64)])
def test_bf16_panels_hold_each_weight_once_and_zeros_beside_them(k: int, columns: int) -> None:
    weights = np.arange(1, k * columns + 1, dtype=np.uint16).reshape(k, columns)
    packed = pack.bf16(weights)
    assert packed.shape == (-(-columns // 32), -(-k // 2), 32, 2)
    for i in range(k):
        for n in range(columns):
            assert packed[n // 32, i // 2, n % 32, i % 2] == weights[i, n]
    assert np.count_nonzero(packed) == k * columns


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [32, 64])
def test_packed_bits_take_their_share_of_a_byte(bits: int, block: int) -> None:
    weights = np.random.default_rng(0).integers(0, 2**bits, (2 * block, 64), np.uint8)
    assert pack.nbits(weights, bits, block).nbytes * 8 == weights.size * bits
