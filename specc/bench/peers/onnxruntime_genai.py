"""Run onnxruntime-genai: plain, n-grams of fixed and of adaptive width, a draft model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime_genai as og

PRECISIONS = {"fp32": ["fp32"], "int4": ["int4", "--extra_options", "int4_accuracy_level=4"]}
NGRAM = {"ngram_size": 3, "max_draft_tokens": 8, "ngram_chained_lookup": True}
CONFIG = "genai_config.json"


class Peer:
    """A model in onnxruntime-genai, on the CPU."""

    version = og.__version__

    def __init__(self, job: dict[str, Any]) -> None:
        if job["dtype"] not in PRECISIONS:
            raise ValueError(f"onnxruntime-genai on the CPU builds {' and '.join(PRECISIONS)}, not {job['dtype']}")
        self.job = job
        target = self.build(job["model"], "target")
        self.models = {"": og.Model(str(target))}
        self.options: dict[str, tuple[str, dict[str, Any]]] = {
            "plain": ("", {}),
            "ngram": ("", NGRAM),
            "ngram-auto": ("", NGRAM | {"min_adaptive_k": 2}),
        }
        if job["assistant"]:
            both = self.compose(target, self.build(job["assistant"], "draft"))
            self.models["draft"] = og.Model(str(both))
            self.options["draft"] = ("draft", {"max_draft_tokens": 4})
            self.options["draft-auto"] = ("draft", {"min_adaptive_k": 2})
        self.modes = list(self.options)

    def build(self, model: str, name: str) -> Path:
        """Build a model with onnxruntime-genai's own builder, once.

        Returns:
            The directory of the model that was built.

        Raises:
            ValueError: the builder failed. The message has its last line.
        """
        out = Path(self.job["work"]) / name
        if not (out / CONFIG).exists():
            command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", model, "-o", str(out)]
            command += ["-e", "cpu", "-p", *PRECISIONS[self.job["dtype"]]]
            result = subprocess.run(command, cwd=out.parent, stdout=2, stderr=subprocess.PIPE, text=True)
            if result.returncode:
                lines = result.stderr.strip().splitlines() or ["no reason was given"]
                raise ValueError(f"the builder of onnxruntime-genai failed: {lines[-1]}")
        settings = json.loads((out / CONFIG).read_text())
        settings["model"]["decoder"]["session_options"]["intra_op_num_threads"] = self.job["threads"]
        (out / CONFIG).write_text(json.dumps(settings))
        return out

    def compose(self, target: Path, draft: Path) -> Path:
        """Write a configuration that names both models into the directory above them, and return that directory."""
        out = target.parent
        for file in target.iterdir():
            if file.suffix not in (".onnx", ".data"):
                shutil.copy(file, out)
        both, small = (json.loads((directory / CONFIG).read_text()) for directory in (target, draft))
        both["model"]["draft"] = small["model"]["decoder"]
        for role, directory in (("decoder", target), ("draft", draft)):
            both["model"][role]["filename"] = f"{directory.name}/{both['model'][role]['filename']}"
        (out / CONFIG).write_text(json.dumps(both))
        return out

    def generate(
        self, mode: str, ids: list[int], count: int, arrive: Callable[[list[int]], None]
    ) -> dict[str, int] | None:
        """Decode `count` tokens greedily, and pass them to `arrive` as they come.

        Returns:
            How many drafts there were and how many of their tokens were accepted; None for plain decoding.
        """
        model, speculative = self.options[mode]
        params = og.GeneratorParams(self.models[model])
        length = len(ids) + count
        params.set_search_options(max_length=length, min_length=length, do_sample=False)
        if speculative:
            params.set_speculative_options(**speculative)
        generator = og.Generator(self.models[model], params)
        generator.append_tokens(ids)
        for _ in range(count):
            generator.generate_next_token()
            arrive([int(generator.get_next_tokens()[0])])
        if not speculative:
            return None
        stats = generator.get_speculative_stats()
        return {"drafts": int(stats["rounds"]), "accepted": int(stats["draft_tokens_accepted"])}
