"""Run transformers, not compiled: plain, prompt lookup, an early exit of the model's own layers, a draft model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers.generation.streamers import BaseStreamer

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Arrivals(BaseStreamer):
    """A streamer that passes on the tokens after the prompt."""

    def __init__(self, arrive: Callable[[list[int]], None]) -> None:
        self.arrive, self.prompt = arrive, True

    def put(self, value: Any) -> None:
        """Pass tokens on. The first call has the prompt, which is left out."""
        if not self.prompt:
            self.arrive(value.flatten().tolist())
        self.prompt = False

    def end(self) -> None:
        """Do nothing at the end of an answer."""


class Peer:
    """A model in transformers, on the CPU."""

    version = transformers.__version__

    def __init__(self, job: dict[str, Any]) -> None:
        if job["dtype"] not in DTYPES:
            raise ValueError(f"transformers on the CPU has no weights of type {job['dtype']}, only {', '.join(DTYPES)}")
        torch.set_num_threads(job["threads"])
        self.dtype = DTYPES[job["dtype"]]
        self.model = self.load(job["model"])
        layers = max(1, self.model.config.num_hidden_layers // 4)
        self.options: dict[str, dict[str, Any]] = {
            "plain": {},
            "prompt-lookup": {"prompt_lookup_num_tokens": 10},
            "early-exit": {"assistant_early_exit": layers},
        }
        if job["assistant"]:
            self.options["assistant"] = {"assistant_model": self.load(job["assistant"])}
        self.modes = list(self.options)

    def load(self, source: str) -> Any:
        """Load a model that never ends an answer, so that all answers are equally long."""
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=self.dtype)
        model.eval()
        config: Any = transformers.GenerationConfig  # It has no types.
        model.generation_config = config(pad_token_id=0)  # Without an end, and without the checkpoint's penalties.
        return model

    def generate(self, mode: str, ids: list[int], count: int, arrive: Callable[[list[int]], None]) -> None:
        """Decode `count` tokens greedily, and pass them to `arrive` as they come."""
        prompt = torch.tensor([ids])
        with torch.inference_mode():
            self.model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=count,
                streamer=Arrivals(arrive),
                **self.options[mode],
            )
