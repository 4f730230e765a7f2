"""A toy engine with lanes: each lane is a toy of its own width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from toys import STATE_SIZE, Toy, ToyKV

from specc.runtime.block import Block
from specc.runtime.tree import Tree


class ToyLanes:
    """A `LanesRunner` of chains of any width. `runs` has the widths of each run."""

    any_width = True

    def __init__(self, block: Block, spare: ToyKV, vocabulary: int, model: type[Toy] = Toy) -> None:
        self.block, self.most, self.spare, self.vocabulary, self.model = block, block.slots, spare, vocabulary, model
        self.stores = [spare] * block.lanes
        self.runs: list[list[int]] = []
        self.inputs: dict[str, np.ndarray] = {
            "input_ids": np.zeros((1, self.most), np.int64),
            "past_len": np.zeros(block.lanes, np.int64),
            "widths": np.zeros(block.lanes, np.int64),
        }
        self.outputs: dict[str, np.ndarray] = {
            "ids": np.zeros((1, self.most), np.int64),
            "logits": np.zeros((1, self.most, vocabulary), np.float32),
        }
        for output in block.outputs:
            if output.startswith("state:"):
                name = output.replace("state:", "state_")
                self.outputs[name] = np.zeros((1, self.most, STATE_SIZE), np.float32)

    def bind(self, stores: Sequence[ToyKV | None]) -> None:
        self.stores = [store or self.spare for store in stores]

    def arrays(self, slots: int) -> dict[str, np.ndarray]:
        flat = {"input_ids": self.inputs["input_ids"], **self.outputs}
        return self.inputs | {name: array[:, :slots] for name, array in flat.items()}

    def run(self, slots: int) -> None:
        widths = [int(width) for width in self.inputs["widths"]]
        self.runs.append(widths)
        assert sum(widths) == slots
        start = 0
        for lane, width in enumerate(widths):
            if width:
                toy = self.model(
                    replace(self.block, topology=Tree.chain(width), lanes=1), self.stores[lane], self.vocabulary
                )
                toy.inputs["input_ids"][:] = self.inputs["input_ids"][:, start : start + width]
                toy.inputs["past_len"][0] = self.inputs["past_len"][lane]
                toy.run()
                for name, array in self.outputs.items():
                    array[:, start : start + width] = toy.outputs[name]
            start += width
