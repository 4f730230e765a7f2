"""openvino-genai: plain, prompt lookup, a draft model.

Its model is a directory that optimum-cli exports. Where none is given, one is made of the weights rounded to float16,
and computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai

MODEL = "openvino_model.xml"


class Arrivals(openvino_genai.StreamerBase):  # type: ignore[misc]
    """Passes on tokens as they come."""

    def __init__(self, arrive: Callable[[list[int]], None]) -> None:
        super().__init__()
        self.arrive = arrive

    def write(self, token: int | list[int]) -> Any:
        self.arrive([token] if isinstance(token, int) else list(token))
        return openvino_genai.StreamingStatus.RUNNING

    def end(self) -> None:
        pass


class Peer:
    version = openvino_genai.get_version()

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False  # every prompt is run whole, by everyone
        settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": job["threads"]}
        if job["dtype"] == "fp32":
            settings |= {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
        model, both = self.model(job["model"], "target"), {**settings, "scheduler_config": scheduler}
        load = openvino_genai.LLMPipeline
        self.pipelines = {
            "plain": load(model, "CPU", **both),
            "prompt-lookup": load(model, "CPU", prompt_lookup=True, **both),
        }
        self.options: dict[str, dict[str, Any]] = {
            "plain": {},
            "prompt-lookup": {"max_ngram_size": 3, "num_assistant_tokens": 10},
        }
        if job["assistant"]:
            draft = openvino_genai.draft_model(self.model(job["assistant"], "draft"), "CPU", **settings)
            self.pipelines["draft"] = load(model, "CPU", draft_model=draft, **both)
            self.options["draft"] = {"num_assistant_tokens": 4}
        self.modes = list(self.pipelines)

    def model(self, source: str, name: str) -> str:
        """A directory that OpenVINO reads: as given, or made by its own reader of GGUF, which knows no float32."""
        if (Path(source) / MODEL).exists():
            return source
        if self.job["dtype"] != "fp32":
            raise ValueError(
                f"weights of type {self.job['dtype']} are exported by optimum-cli; give the directory with "
                "--peer-model openvino-genai=DIRECTORY"
            )
        directory = Path(self.job["work"]) / name
        if not (directory / MODEL).exists():
            directory.mkdir(exist_ok=True)
            gguf = self.job["gguf"](source, f"{name}/model", "fp16")
            openvino_genai.LLMPipeline(gguf, "CPU", enable_save_ov_model=True)
        return str(directory)

    def generate(self, mode: str, ids: list[int], count: int, arrive: Callable[[list[int]], None]) -> None:
        shape = np.array([ids], np.int64)
        prompt = openvino_genai.TokenizedInputs(openvino.Tensor(shape), openvino.Tensor(np.ones_like(shape)))
        self.pipelines[mode].generate(
            prompt, max_new_tokens=count, ignore_eos=True, do_sample=False, streamer=Arrivals(arrive),
            **self.options[mode],
        )  # fmt: skip
