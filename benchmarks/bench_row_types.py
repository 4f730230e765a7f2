"""Measure attention of ONNX Runtime's CPU over rows in 8 and 4 bits: its time, and what it does to a model's text.

    python benchmarks/bench_row_types.py                               # prints the times; --json prints one object
    python benchmarks/bench_row_types.py --checkpoint DIR --text FILE  # and perplexities; needs torch and transformers

The node has the shape of SmolLM2-135M. A model has a layer after another, so thirty caches take turns, and between two
rounds other memory is read: rows come from memory and not from the processor's caches. What counts is the processor
time of thirty calls, with one thread, in turns.

A row's scales are those of its channels. They must hold at every position, and a rotary embedding turns a pair of
channels with the position. So both channels of a pair get the scale of the longest pair in a calibration text.

N  slots of a call
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from specc.cli import console
from specc.runtime.engines.ort_cpu import session_options

HEADS, KV_HEADS, SIZE, CAPACITY, LAYERS = 9, 3, 64, 4224, 30
SLOTS, ROWS = (1, 8), (256, 1024, 4096)
# By the type of rows: ONNX's type, numpy's, the width of a row, and the bits of a number; 4 bits lie two in a byte.
TYPES: dict[str, tuple[int, Any, int, int]] = {
    "fp32": (TensorProto.FLOAT, np.float32, SIZE, 32),
    "int8": (TensorProto.INT8, np.int8, SIZE, 8),
    "int4": (TensorProto.UINT8, np.uint8, SIZE // 2, 4),
}
CALIBRATION, EVALUATION = 512, 2048  # Tokens of the text.


def node(slots: int, kind: str) -> bytes:
    """Make a model of one GroupQueryAttention that updates its cache in place."""
    carrier, _, width, bits = TYPES[kind]
    cache, scales = [1, KV_HEADS, CAPACITY, width], [1, KV_HEADS, 1, SIZE]
    tensors: dict[str, tuple[int, list[int]]] = {
        "qkv": (TensorProto.FLOAT, [1, slots, (HEADS + 2 * KV_HEADS) * SIZE]),
        "past_key": (carrier, cache),
        "past_value": (carrier, cache),
        "last": (TensorProto.INT32, [1]),
        "total": (TensorProto.INT32, [1]),
    }
    names = ["qkv", "", "", "past_key", "past_value", "last", "total"]
    attributes: dict[str, Any] = {"num_heads": HEADS, "kv_num_heads": KV_HEADS}
    if kind != "fp32":
        names += ["", "", "", "", "", "k_scale", "v_scale"]
        tensors |= {"k_scale": (TensorProto.FLOAT, scales), "v_scale": (TensorProto.FLOAT, scales)}
        attributes |= {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": bits}
    outputs = {"out": (TensorProto.FLOAT, [1, slots, HEADS * SIZE]), "key": (carrier, cache), "value": (carrier, cache)}
    attention = helper.make_node("GroupQueryAttention", names, list(outputs), domain="com.microsoft", **attributes)
    graph = helper.make_graph(
        [attention],
        "one",
        [helper.make_tensor_value_info(name, *tensor) for name, tensor in tensors.items()],
        [helper.make_tensor_value_info(name, *tensor) for name, tensor in outputs.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


class Layers:
    """Thirty caches of random rows of one type, and the node that reads them."""

    def __init__(self, slots: int, kind: str) -> None:
        """Bind a node of so many slots to each cache."""
        _, carrier, width, _ = TYPES[kind]
        rng = np.random.default_rng(0)
        options = session_options(1)
        self.session = ort.InferenceSession(node(slots, kind), options, providers=["CPUExecutionProvider"])
        self.slots, self.bindings = slots, [self.session.io_binding() for _ in range(LAYERS)]
        self.last, self.total = np.zeros(1, np.int32), np.zeros(1, np.int32)
        self._bound: list[ort.OrtValue] = []
        self._arrays: list[np.ndarray] = []
        for binding in self.bindings:
            rows = (
                rng.standard_normal((2, 1, KV_HEADS, CAPACITY, width), np.float32)
                if kind == "fp32"
                else rng.integers(-100, 100, (2, 1, KV_HEADS, CAPACITY, width)).astype(carrier)
            )
            arrays = {
                "qkv": rng.standard_normal((1, slots, (HEADS + 2 * KV_HEADS) * SIZE), np.float32),
                "past_key": rows[0],
                "past_value": rows[1],
                "last": self.last,
                "total": self.total,
                "k_scale": np.full((1, KV_HEADS, 1, SIZE), 0.03, np.float32),
                "v_scale": np.full((1, KV_HEADS, 1, SIZE), 0.03, np.float32),
                "out": np.zeros((1, slots, HEADS * SIZE), np.float32),
            }
            values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
            for tensor in self.session.get_inputs():
                binding.bind_ortvalue_input(tensor.name, values[tensor.name])
            for name, value in {"out": "out", "key": "past_key", "value": "past_value"}.items():
                binding.bind_ortvalue_output(name, values[value])
            self._bound += values.values()
            self._arrays += arrays.values()

    def run(self, rows: int) -> float:
        """Return the processor time of a call over each cache, in milliseconds."""
        self.last[0], self.total[0] = rows + self.slots - 1, rows + self.slots
        start = time.process_time()
        for binding in self.bindings:
            self.session.run_with_iobinding(binding)
        return 1e3 * (time.process_time() - start)


def times(rounds: int) -> list[dict[str, float]]:
    """Return a row of the table for each number of slots and of rows."""
    other = np.zeros(300 << 17)  # Reading it drives the rows from the processor's caches.
    table = []
    for slots in SLOTS:
        layers = {kind: Layers(slots, kind) for kind in TYPES}
        for rows in ROWS:
            seconds: dict[str, list[float]] = {kind: [] for kind in TYPES}
            for number in range(rounds + 1):  # The first round warms up.
                for kind in sorted(TYPES, reverse=bool(number % 2)):
                    other += 1
                    seconds[kind].append(layers[kind].run(rows))
            medians = {kind: median(each[1:]) for kind, each in seconds.items()}
            table.append({"slots": slots, "rows": rows} | medians)
    return table


def perplexities(checkpoint: str, file: Path) -> list[dict[str, Any]]:
    """Return what rows of each type do to a model of transformers: perplexity, and the share of equal first choices.

    Args:
        checkpoint: directory of a model of the Llama family.
        file: a text. Its first tokens calibrate, and later ones are read.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.models.llama import modeling_llama

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    tokens = AutoTokenizer.from_pretrained(checkpoint)(file.read_text(), return_tensors="pt").input_ids
    keys: list[torch.Tensor] = []  # Of each layer: the scales, times the largest number of a type.
    values: list[torch.Tensor] = []
    state = {"layer": 0, "largest": 0}
    rotate = modeling_llama.apply_rotary_pos_emb

    def rounded(rows: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        scales = scales / state["largest"]
        return torch.clamp(torch.round(rows / scales), -state["largest"] - 1, state["largest"]) * scales

    def rotate_and_round(q: torch.Tensor, k: torch.Tensor, *args: Any, **options: Any) -> Any:
        q, k = rotate(q, k, *args, **options)
        layer = state["layer"]
        if layer == len(keys):
            longest = torch.linalg.vector_norm(torch.stack(k.chunk(2, -1)), dim=0).amax((0, 2))
            keys.append(torch.cat([longest, longest], -1)[None, :, None, :])
        state["layer"] += 1
        return q, rounded(k, keys[layer]) if state["largest"] else k

    def round_values(number: int, output: torch.Tensor) -> torch.Tensor:
        if number == len(values):
            values.append(1.2 * output.abs().amax((0, 1)))  # A longer text has larger ones.
        return rounded(output, values[number]) if state["largest"] else output

    modeling_llama.apply_rotary_pos_emb = rotate_and_round
    for number, layer in enumerate(model.model.layers):
        layer.self_attn.v_proj.register_forward_hook(lambda _, __, output, number=number: round_values(number, output))
    table, choices = [], None
    with torch.no_grad():
        model(tokens[:, :CALIBRATION], use_cache=False)
        text = tokens[:, CALIBRATION : CALIBRATION + EVALUATION]
        for kind, (_, _, _, bits) in TYPES.items():
            state |= {"layer": 0, "largest": 0 if kind == "fp32" else 2 ** (bits - 1) - 1}
            logits = model(text, use_cache=False).logits[0]
            choices = logits.argmax(-1) if choices is None else choices
            loss = torch.nn.functional.cross_entropy(logits[:-1], text[0, 1:])
            same = (logits.argmax(-1) == choices).float().mean()
            table.append({"rows in": kind, "perplexity": loss.exp().item(), "same first choice": same.item()})
    return table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="directory of a model of the Llama family")
    parser.add_argument("--text", type=Path, help="a text of 2600 tokens or more, with --checkpoint")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    tables: dict[str, list[dict[str, Any]]] = {"thirty calls, ms of processor time": times(args.rounds)}
    if args.checkpoint:
        tables["text"] = perplexities(args.checkpoint, args.text)
    if args.json:
        print(json.dumps(tables, indent=1))
        return
    for title, rows in tables.items():
        table = console.table(*rows[0], title=title)
        for row in rows:
            table.add_row(*(value if isinstance(value, str) else f"{value:.4g}" for value in row.values()))
        console.show(table)


if __name__ == "__main__":
    main()
