"""Decode golden prompts in OpenVINO, from what `specc export --to openvino` wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from specc.exactness.golden import Case

MODEL = "openvino_model.xml"
# The golden outputs were computed in float32; OpenVINO's own choice on some processors is bf16.
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}


def decode(directory: Path, cases: Sequence[Case]) -> Iterator[list[int]]:
    """Decode each case greedily, and yield as many tokens as the case has.

    Args:
        directory: what `specc export --to openvino` wrote.
        cases: golden cases.
    """
    import openvino  # A process that only names this module need not load it.

    request = openvino.compile_model(str(directory / MODEL), "CPU", SETTINGS).create_infer_request()
    for case in cases:
        request.reset_state()
        tokens: list[int] = []
        block, rows = case.prompt_ids, 0
        while len(tokens) < len(case.token_ids):
            total = rows + len(block)
            request.infer(
                {
                    "input_ids": np.array([block], np.int64),
                    "attention_mask": np.ones((1, total), np.int64),
                    "position_ids": np.arange(rows, total, dtype=np.int64)[None],
                    "beam_idx": np.zeros(1, np.int32),
                }
            )
            tokens.append(int(request.get_tensor("logits").data[0, -1].argmax()))
            block, rows = tokens[-1:], total
        yield tokens
