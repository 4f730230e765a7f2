"""What every backend starts from: a graph traced at its block's shapes, names as users know them, weights' places."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule

from specc.runtime.block import Block


def export(graph: GraphModule, block: Block) -> torch.export.ExportedProgram:
    """Trace once more with the block's own shapes: it checks the graph and folds what became constant."""
    inputs = [n for n in graph.graph.nodes if n.op == "placeholder"]
    example = [torch.zeros(1, block.slots, dtype=torch.long), *(n.meta["val"] for n in inputs[1:])]
    with quiet(), torch.no_grad():
        return torch.export.export(graph, tuple(example), strict=False)


def public(name: str) -> str:
    """An input as users know it: past_key_values.0.key."""
    start, rest = "past_key_values", name.removeprefix("past_key_values_")
    return name if rest == name else f"{start}.{rest.replace('_', '.')}"


def read_header(weights: Path) -> tuple[dict[str, Any], int]:
    """What a safetensors file holds, and where its data begins."""
    with weights.open("rb") as f:
        size = int.from_bytes(f.read(8), "little")
        return json.loads(f.read(size)), 8 + size


@contextlib.contextmanager
def quiet() -> Any:
    """Without torch's prints and warnings: what matters is raised."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
