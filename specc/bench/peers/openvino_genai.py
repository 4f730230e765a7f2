"""Run openvino-genai: plain, prompt lookup, a draft model.

It reads a directory that optimum-cli exports. If the model is in another form, it is converted with weights that are
rounded to float16, and computed in float32.
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
    """A streamer that passes tokens on as they come."""

    def __init__(self, arrive: Callable[[list[int]], None]) -> None:
        super().__init__()
        self.arrive = arrive

    def write(self, token: int | list[int]) -> Any:
        """Pass one token or several on, and ask for more."""
        self.arrive([token] if isinstance(token, int) else list(token))
        return openvino_genai.StreamingStatus.RUNNING

    def end(self) -> None:
        """Do nothing at the end of an answer."""


class Peer:
    """A model in OpenVINO, on the CPU."""

    version = openvino_genai.get_version()

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False  # Every system of a benchmark runs every prompt whole.
        settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": job["threads"]}
        if job["dtype"] == "fp32":
            settings |= {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
        model = self.model(job["model"], "target")
        target_settings = {**settings, "scheduler_config": scheduler}
        load = openvino_genai.LLMPipeline
        self.pipelines = {
            "plain": load(model, "CPU", **target_settings),
            "prompt-lookup": load(model, "CPU", prompt_lookup=True, **target_settings),
        }
        self.options: dict[str, dict[str, Any]] = {
            "plain": {},
            "prompt-lookup": {"max_ngram_size": 3, "num_assistant_tokens": 10},
        }
        if job["assistant"]:
            draft = openvino_genai.draft_model(self.model(job["assistant"], "draft"), "CPU", **settings)
            self.pipelines["draft"] = load(model, "CPU", draft_model=draft, **target_settings)
            self.options["draft"] = {"num_assistant_tokens": 4}
        self.modes = list(self.pipelines)

    def model(self, source: str, name: str) -> str:
        """Return a directory that OpenVINO reads: the source, or one that OpenVINO makes from a GGUF file.

        OpenVINO reads no float32 from GGUF, so the weights are rounded to float16.

        Args:
            source: a directory in OpenVINO's or in Hugging Face's form, or a GGUF file.
            name: the name of the directory that is made.

        Raises:
            ValueError: the weights have a type that cannot be converted.
        """
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
        """Decode `count` tokens greedily, and pass them to `arrive` as they come."""
        shape = np.array([ids], np.int64)
        prompt = openvino_genai.TokenizedInputs(openvino.Tensor(shape), openvino.Tensor(np.ones_like(shape)))
        self.pipelines[mode].generate(
            prompt,
            max_new_tokens=count,
            ignore_eos=True,
            do_sample=False,
            streamer=Arrivals(arrive),
            **self.options[mode],
        )
