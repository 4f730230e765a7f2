"""Blocks of GGUF files: unpacked, they widen to what the package gguf makes of them; rows are found by their values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")

from gguf_file import KIND, SUPER_BLOCK, encoded, random_blocks, tensors, write  # noqa: E402

from specc.huggingface.gguf_blocks import BITS_OF, SMALL_BLOCK, UNPACK, BlockIndex, Rows  # noqa: E402

pytestmark = pytest.mark.torch


def widened(rows: Rows) -> np.ndarray:
    """Return the weights, computed in float64 and rounded to float32."""
    shape, scales = (*rows.scales.shape, rows.block), rows.scales.astype(np.float64)
    offsets = scales * -(2.0 ** (rows.bits - 1)) if rows.offsets is None else rows.offsets
    values = rows.numbers.reshape(shape) * scales[..., None] + offsets[..., None]
    return np.asarray(values.reshape(rows.numbers.shape), np.float32)


@pytest.mark.parametrize("kind", UNPACK)
def test_unpacked_blocks_widen_to_what_the_format_says(kind: str) -> None:
    data = random_blocks(kind, rows=5, k=3 * SUPER_BLOCK)
    rows = UNPACK[kind](data)
    assert rows.bits == BITS_OF[kind] and rows.numbers.max() < 2**rows.bits
    np.testing.assert_array_equal(widened(rows), gguf.quants.dequantize(data, KIND[kind]))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_rows_in_another_order_are_found(kind: str, tmp_path: Path) -> None:
    index = BlockIndex([write(tmp_path / "m.gguf", KIND[kind])])
    matrix = tensors()["blk.0.attn_q.weight"]
    values = gguf.quants.dequantize(gguf.quants.quantize(matrix, KIND[kind]), KIND[kind])[::-1]
    rows = index.find(values)
    assert rows is not None and rows.bits == BITS_OF[kind]
    np.testing.assert_array_equal(widened(rows), values)


def test_rows_of_several_tensors_and_formats_are_joined(tmp_path: Path) -> None:
    parts = [write(tmp_path / f"{kind}.gguf", KIND[kind]) for kind in ("Q4_0", "Q8_0")]
    matrix = tensors()["blk.0.ffn_up.weight"]
    both = [gguf.quants.dequantize(gguf.quants.quantize(matrix, k), k) for k in (KIND.Q4_0, KIND.Q8_0)]
    mixed = np.stack([both[number % 2][number] for number in range(len(matrix))])
    rows = BlockIndex(parts).find(mixed)
    assert rows is not None and rows.bits == 8 and rows.offsets is not None
    np.testing.assert_array_equal(widened(rows), mixed)


def test_rows_with_blocks_of_other_sizes_are_joined_in_the_smaller_ones(tmp_path: Path) -> None:
    name, kinds = "blk.0.ffn_down.weight", (KIND.Q4_K, KIND.Q6_K)
    parts = [write(tmp_path / f"{kind.name}.gguf", KIND.F32, others={name: kind}) for kind in kinds]
    both = [gguf.quants.dequantize(encoded(tensors()[name], kind), kind) for kind in kinds]
    mixed = np.stack([both[number % 2][number] for number in range(len(both[0]))])
    rows = BlockIndex(parts).find(mixed)
    assert rows is not None and (rows.bits, rows.block) == (8, SMALL_BLOCK) and rows.offsets is not None
    np.testing.assert_allclose(widened(rows), mixed, rtol=0, atol=1e-6 * np.abs(mixed).max())


def test_a_matrix_with_a_row_of_its_own_is_not_found(tmp_path: Path) -> None:
    index = BlockIndex([write(tmp_path / "m.gguf", KIND.Q4_0)])
    matrix = tensors()["blk.0.attn_q.weight"]
    values = gguf.quants.dequantize(gguf.quants.quantize(matrix, KIND.Q4_0), KIND.Q4_0)
    values[3, 5] += 1e-3
    assert index.find(values) is None
