"""QuantizedRows: attention reads older rows from their codes, and the cache gets exact ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from blocks import CAPACITY, build, prefilled, presents, run
from graphs import prepared, tokens
from torch import Tensor

from specc import passes
from specc.passes.find import outputs
from specc.passes.lower_attention import LowerAttention
from specc.passes.quantized_rows import QuantizedRows
from specc.runtime.block import Block
from specc.runtime.errors import PassError
from specc.runtime.quantized_rows import QuantizedRows as Copy
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

GROUP = 4
BLOCK = Block(Tree.chain(2), quantized_group=GROUP)
NEXT = torch.tensor([[5, 9]])


def copies(past: dict[str, Tensor], rows: int, bits: int = 4) -> dict[str, Tensor]:
    """Return the inputs of a block that say what the older of so many rows are in 4 or 8 bits."""
    inputs: dict[str, Tensor] = {}
    for layer in sorted({name.split("_")[3] for name in past}):
        names = [f"past_key_values_{layer}_{kind}" for kind in ("key", "value")]
        copy = Copy(names, np.concatenate([past[name].numpy() for name in names]), GROUP)
        if bits == 8:
            copy.keep_lower()
        inputs["quantized_rows"] = torch.tensor([copy.follow(rows)])
        for name in names:
            inputs |= {f"{name}_{part}": torch.from_numpy(array) for part, array in copy.values[name].items()}
    return inputs


def coarse(past: dict[str, Tensor], parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a cache that holds what the codes say, where there are any."""
    ops = torch.ops.specc
    return {
        name: ops.dequantized_rows(
            rows,
            *(parts[f"{name}_{part}"] for part in ("codes", "scales", "least")),
            parts["quantized_rows"],
            parts.get(f"{name}_lower"),
        )
        for name, rows in past.items()
    }


@pytest.mark.parametrize(("family", "bits"), [("llama", 4), ("gemma2", 4), ("gpt_neox", 4), ("llama", 8)])
def test_a_block_reads_what_the_codes_say_and_leaves_exact_rows(family: str, bits: int) -> None:
    """The reference is a block over a cache that holds the widened numbers."""
    past, count = prefilled(family), tokens().shape[1]
    parts = copies(past, count, bits)
    assert int(parts["quantized_rows"]) == 8 and any(name.endswith("lower") for name in parts) == (bits == 8)
    got = run(build(family, replace(BLOCK, quantized_bits=bits)), NEXT, past, count, **parts)
    want = run(build(family, Block(Tree.chain(2))), NEXT, coarse(past, parts), count)
    torch.testing.assert_close(got["logits"], want["logits"], atol=1e-5, rtol=1e-5)
    for name, rows in presents(got).items():
        assert torch.equal(rows[:, :, :count], past[name][:, :, :count])
        assert not torch.equal(rows[:, :, count : count + 2], past[name][:, :, count : count + 2])


def test_codes_would_show() -> None:
    """The control of the test above: numbers of 4 bits are not the exact ones."""
    past, count = prefilled("llama"), tokens().shape[1]
    exact = run(build("llama", Block(Tree.chain(2))), NEXT, past, count)["logits"]
    got = run(build("llama", BLOCK), NEXT, past, count, **copies(past, count))["logits"]
    assert not torch.allclose(got, exact, atol=1e-4)


def test_numbers_of_8_bits_are_nearer_to_the_exact_ones_than_those_of_4() -> None:
    """They have 16 times as many steps. Few rows are in a group here, and 4 bits say the ends of its range exactly."""
    past, count = prefilled("llama"), tokens().shape[1]
    wrong = {}
    for bits in (4, 8):
        rows = coarse(past, copies(past, count, bits))
        wrong[bits] = sum(float((rows[name] - past[name]).abs().sum()) for name in past)
    assert 0 < wrong[8] < wrong[4] / 8


def test_without_codes_the_block_is_the_model() -> None:
    past, count = prefilled("llama"), tokens().shape[1]
    parts = copies(past, count) | {"quantized_rows": torch.tensor([0])}
    exact = run(build("llama", Block(Tree.chain(2))), NEXT, past, count)["logits"]
    torch.testing.assert_close(run(build("llama", BLOCK), NEXT, past, count, **parts)["logits"], exact)


def test_the_record_counts_layers_and_every_layer_has_its_inputs() -> None:
    graph = prepared("llama")
    *_, record = passes.run([LowerAttention(CAPACITY), QuantizedRows(GROUP)], graph)
    assert record.changed == 3
    names = [str(node.target) for node in graph.graph.find_nodes(op="placeholder")]
    assert sum(name.endswith("_codes") for name in names) == 6 and names.count("quantized_rows") == 1
    written = [node.target for name, node in outputs(graph).items() if name.startswith("present.")]
    assert written == [torch.ops.specc.write_rows.default] * 6


def test_a_cache_smaller_than_a_group_is_refused() -> None:
    steps: list[Any] = [LowerAttention(CAPACITY), QuantizedRows(CAPACITY + 1)]
    with pytest.raises(PassError, match=r"a cache of 40 rows; groups of 41 rows in 4 bits need"):
        passes.run(steps, prepared("llama"))
