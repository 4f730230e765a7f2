"""Lay weights out for the operators: panels of 32 columns, so that a kernel reads them once, from first to last.

Columns that fill the last panel are zeros and are never written to a result.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Scalar = TypeVar("Scalar", bound=np.generic)

PANEL = 32


def bf16(weights_KxN: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Pack bf16 weights, as 16-bit words, for LinearBF16.

    Returns:
        [panels, ceil(K / 2), 32, 2]: two values of k side by side, for each column of a panel.
    """
    k, _ = weights_KxN.shape
    panels = _panels(np.pad(weights_KxN, ((0, k % 2), (0, 0))))
    split = panels.reshape(len(panels), -1, 2, PANEL)
    return np.ascontiguousarray(split.transpose(0, 1, 3, 2))


def f32(weights_KxN: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Pack fp32 weights for LinearF32: [panels, K, 32]."""
    return np.ascontiguousarray(_panels(weights_KxN))


def to_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round fp32 to bf16, to the nearest and ties to even. Infinities stay; a NaN stays a NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def from_bf16(words: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Widen bf16, held as 16-bit words, to fp32."""
    return (words.astype(np.uint32) << 16).view(np.float32)


def nbits(weights_KxN: npt.NDArray[np.uint8], bits: int, block: int) -> npt.NDArray[np.uint8]:
    """Pack unsigned weights of 4 or 8 bits, one a byte, for LinearNBits.

    Args:
        weights_KxN: values from 0 to 2**bits - 1.
        bits: 4 or 8.
        block: how many values of k share a scale: 32 or 64, or 16 if they have 8 bits. Zeros fill the last block.

    Returns:
        4 bits: [panels, blocks, block / 4, 64]; a byte holds a weight of the first 16 columns in its lower half and
        one of the other 16 in its upper half. 8 bits: [panels, blocks, block / 4, 2, 64]. In 64 bytes, 16 columns
        have four values of k each.
    """
    k, _ = weights_KxN.shape
    panels = _panels(np.pad(weights_KxN, ((0, -k % block), (0, 0))))
    # panel, block, step, value of the step, half of the panel, column of the half
    split = panels.reshape(len(panels), -1, block // 4, 4, 2, 16).transpose(0, 1, 2, 4, 5, 3)
    halves = split.reshape(*split.shape[:4], 64)
    if bits == 8:
        return np.ascontiguousarray(halves)
    first, second = halves[..., 0, :], halves[..., 1, :]
    return np.ascontiguousarray(first | second << 4)


def per_block(values_BxN: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """Pack scales or zero points, one for each block and column, for LinearNBits: [panels, blocks, 32]."""
    return np.ascontiguousarray(_panels(values_BxN))


def _panels(values_RxN: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """Cut the columns into panels: [panels, R, 32]."""
    rows, columns = values_RxN.shape
    padded = np.pad(values_RxN, ((0, 0), (0, -columns % PANEL)))
    return padded.reshape(rows, -1, PANEL).transpose(1, 0, 2)
