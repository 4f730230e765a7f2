"""Run llama.cpp through llama-cpp-python: plain and prompt lookup, which are the modes of its Python package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llama_cpp
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding


class Peer:
    """A model in llama.cpp, one copy of it for each mode."""

    version = llama_cpp.__version__
    modes = ("plain", "prompt-lookup")

    def __init__(self, job: dict[str, Any]) -> None:
        options: dict[str, Any] = {
            "model_path": job["gguf"](job["model"], "model"),
            "n_ctx": job["context"],
            "n_threads": job["threads"],
            "n_threads_batch": job["threads"],
            "verbose": False,
        }
        if job["dtype"] == "fp32":
            options |= {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}
        self.models = {
            "plain": llama_cpp.Llama(**options),
            "prompt-lookup": llama_cpp.Llama(**options, draft_model=LlamaPromptLookupDecoding(3, 10)),
        }

    def generate(self, mode: str, ids: list[int], count: int, arrive: Callable[[list[int]], None]) -> None:
        """Decode `count` tokens greedily, and pass them to `arrive` as they come.

        The rows of the last prompt are dropped first, since they could save the prefill of this one.
        """
        model = self.models[mode]
        model.reset()
        model.n_tokens = 0
        tokens = model.generate(ids, top_k=1, temp=0.0)
        for _ in range(count):
            arrive([next(tokens)])
