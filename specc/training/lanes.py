"""Texts that a model writes side by side: one lane a text, one column a token.

L  lanes      C  columns      T  taps      D  the model's hidden size      V  tokens of the model
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, StaticCache

from specc.training import processes
from specc.training.device import free_memory, on_gpu
from specc.training.lane_attention import ATTENTION
from specc.training.states import run_with_cache, tapped

SHARE = 1.5  # of the model's memory, which the rows and states of texts may take
LEAST = 1 << 28  # bytes that they may take in any case: a small model's own memory is nothing beside torch's
GPU_SHARE = 0.5  # of the free memory of a GPU, in place of SHARE and LEAST
GPU_TIMES = 16  # times as many texts as on a processor keep a GPU busy
# Prompts have so many columns, or a multiple. Products then have few shapes, see `specc.training.batches.STEP`.
COLUMNS = 16
FEWEST = 16  # texts; products of fewer rows use little of a processor
# Tokens of prompts, padding included, that are read at once. On a processor, their states fit its cache.
SLICE, GPU_SLICE = 1024, 65536


def lanes_that_fit(model: PreTrainedModel, columns: int, taps: int, most: int) -> int:
    """Return how many texts may be written at once in each process, so that they take no more memory than allowed.

    Args:
        model: the model, in the type in which it shall compute.
        columns: tokens of a text, prompt and answer.
        taps: the layers after which states are kept.
        most: the largest number on a processor, for models that are large beside their rows.
    """
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    number = next(model.parameters()).element_size()
    rows = 2 * config.num_hidden_layers * heads * size * number
    states = (taps + 1) * config.hidden_size * torch.bfloat16.itemsize if taps else 0
    if on_gpu():
        most, allowed = GPU_TIMES * most, GPU_SHARE * free_memory()
    else:
        allowed = max(SHARE * sum(parameter.nbytes for parameter in model.parameters()), LEAST)
    fitting = min(most, max(FEWEST, int(allowed / (columns * (rows + states)))))
    return min(processes.gather([fitting]))


class Lanes:
    """Prompts and what the model writes behind them, with the cache and the states that are kept.

    Prompts end in one column, so that all lanes write the next column together.

    Args:
        model: the model, in the type in which it shall compute.
        prompts: the tokens of each prompt.
        count: the largest number of tokens that are written behind a prompt.
        taps: the layers after which states are kept; none keeps no states.

    Attributes:
        start: the column of the first token that is written.
        end: the columns that have tokens.
        lanes: the lanes that are computed. Few of them have ended.
    """

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], count: int, taps: Sequence[int]
    ) -> None:
        model.set_attn_implementation(ATTENTION)
        longest = max(map(len, prompts))
        self.start = self.end = longest + -longest % COLUMNS
        self.columns = self.start + count
        self.lanes = torch.arange(len(prompts))
        self._model, self._taps = model, tuple(taps)
        self._padding = torch.tensor([self.start - len(prompt) for prompt in prompts])
        self._tokens = torch.zeros(len(prompts), self.columns, dtype=torch.long)
        for lane, prompt in enumerate(prompts):
            self._tokens[lane, self._padding[lane] : self.start] = torch.tensor(prompt)
        size = model.config.get_text_config().hidden_size
        shape = (len(prompts), self.columns if taps else 0)
        self._states = torch.empty(*shape, len(taps) * size, dtype=torch.bfloat16)
        self._final = torch.empty(*shape, size, dtype=torch.bfloat16)
        self._cache: Any = None

    def read_prompts(self) -> Tensor:
        """Run the model on the prompts, some lanes at a time.

        Returns:
            The logits of the first token that is written, [L, V].
        """
        at_once = max(1, (GPU_SLICE if on_gpu() else SLICE) // self.start)
        caches, logits = [], []
        for lanes in torch.split(self.lanes, at_once):
            cache: Any = StaticCache(config=self._model.config, max_cache_len=self.columns)
            logits.append(self._run(lanes, cache, 0, self.start))
            caches.append(cache)
        self._cache = _joined(caches)
        return torch.cat(logits)

    def write(self, tokens: Tensor) -> None:
        """Put a token [L] behind the text of each lane that writes."""
        self._tokens[self.lanes, self.end] = tokens
        self.end += 1

    def read_column(self) -> Tensor:
        """Run the model on the last column. Return the logits [L, V] of the next."""
        return self._run(self.lanes, self._cache, self.end - 1, self.end)

    def keep(self, those: Tensor) -> None:
        """Let the other lanes go.

        Args:
            those: [L] bool, of the lanes that stay.
        """
        self.lanes = self.lanes[those]
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[those], layer.values[those]

    def text(self, lane: int, end: int) -> list[int]:
        """Return the tokens of a lane, the prompt's included, before the column `end`."""
        tokens: list[int] = self._tokens[lane, self._padding[lane] : end].tolist()
        return tokens

    def states(self, lane: int, end: int) -> tuple[Tensor, Tensor]:
        """Return the states beside `text`: those of the taps [N, T * D], and what the last product reads [N, D]."""
        columns = slice(int(self._padding[lane]), end)
        return self._states[lane, columns], self._final[lane, columns]

    def _run(self, lanes: Tensor, cache: Any, start: int, end: int) -> Tensor:
        """Run the model on columns of some lanes, and keep its states. Return the logits of the last column."""
        columns = torch.arange(end)
        padding = self._padding[lanes, None]
        with tapped(self._model, self._taps) as values:
            logits: Tensor = run_with_cache(
                self._model,
                cache,
                input_ids=self._tokens[lanes, start:end],
                attention_mask=(columns >= padding).long(),
                position_ids=(columns[start:] - padding).clamp(min=0),
                cache_position=columns[start:],
                logits_to_keep=torch.tensor([end - start - 1]),  # a slice would make torch copy the table for each lane
            ).logits[:, -1]
        if self._taps:
            self._states[lanes, start:end] = torch.cat([values[tap] for tap in self._taps], -1).bfloat16()
            self._final[lanes, start:end] = values["final"].bfloat16()
        return logits


def _joined(caches: Sequence[Any]) -> Any:
    """Put the lanes of several caches into the first one, a layer at a time, so that little memory is held twice."""
    first = caches[0]
    for index, layer in enumerate(first.layers):
        parts = [cache.layers[index] for cache in caches]
        layer.keys = torch.cat([part.keys for part in parts])
        layer.values = torch.cat([part.values for part in parts])
        for part in parts[1:]:
            part.keys = part.values = None
    return first
