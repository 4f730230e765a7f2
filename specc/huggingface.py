"""Load a Hugging Face checkpoint and describe it for the manifest."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from specc.runtime.errors import CaptureError, first_line
from specc.runtime.manifest import ModelSpec

CONTEXT = 2048  # tokens, unless the model or the user says less or more


def load_model(source: str, revision: str | None = None, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model in fp32, from safetensors only. Raises CaptureError."""
    path = Path(source).expanduser()
    if source.startswith(("/", "./", "../", "~")) and not path.exists():
        raise CaptureError(f"no model directory {source}; name one that save_pretrained wrote, or a hub id")
    if path.exists() and not (path / "config.json").is_file():
        raise CaptureError(f"{source} has no config.json; name a directory that save_pretrained wrote, or a hub id")
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    with quiet():
        try:
            config = AutoConfig.from_pretrained(source, **options)
        except Exception as e:
            remedy = "; --trust-remote-code runs its code, if you have read it" if "custom code" in str(e) else ""
            raise CaptureError(f"cannot read the configuration of {source}: {one_line(e)}{remedy}") from e
        kind = config.model_type
        if getattr(config, "is_encoder_decoder", False):
            raise CaptureError(f"{source} is an encoder-decoder ({kind}); specc compiles decoder-only models")
        if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not trust_remote_code:
            raise CaptureError(
                f"{source} has model type {kind!r}, which is no causal language model of transformers "
                f"{transformers.__version__}; upgrade it, or --trust-remote-code if the model brings its own code"
            )
        if getattr(config, "quantization_config", None):
            raise CaptureError(f"{source} is quantised; compile the original checkpoint")
        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                source, config=config, dtype=torch.float32, use_safetensors=True, attn_implementation="eager",
                output_loading_info=True, ignore_mismatched_sizes=True, **options,
            )  # fmt: skip
        except Exception as e:
            remedy = "; save the model again with save_pretrained" if "file named" in str(e) else ""
            raise CaptureError(f"cannot load {source} from safetensors: {one_line(e)}{remedy}") from e
    if absent := sorted(report["missing_keys"]) + sorted(key for key, *_ in report["mismatched_keys"]):
        raise CaptureError(
            f"{source} lacks {len(absent)} of its weights, such as {absent[0]}, or has them in another shape; "
            "they would be random: name a whole checkpoint of a causal language model"
        )
    return model.eval().requires_grad_(False)


def describe(model: PreTrainedModel, source: str, max_seq_len: int | None = None) -> ModelSpec:
    """What the manifest says of a model. Raises CaptureError where `max_seq_len` does not fit it."""
    config = model.config.get_text_config()
    limit = min(getattr(config, "max_position_embeddings", None) or CONTEXT, _unscaled(config))
    if max_seq_len is not None and not 16 <= max_seq_len <= limit:
        raise CaptureError(f"max_seq_len {max_seq_len} does not fit {source}; give 16..{limit}")
    return ModelSpec(
        source=source,
        revision=getattr(model.config, "_commit_hash", None) or "local",
        architecture=type(model).__name__,
        vocab_size=config.vocab_size,
        layers=config.num_hidden_layers,
        context=max_seq_len or min(limit, CONTEXT),
        eos_token_ids=_eos(model),
    )


def _unscaled(config: Any) -> int:
    """Up to which length rotary frequencies that change with the length do not."""
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = rope.values() if rope and all(isinstance(r, dict) for r in rope.values()) else [rope]
    limits = (r["original_max_position_embeddings"] for r in kinds if r.get("rope_type") == "longrope")
    return min(limits, default=1 << 62)


def _eos(model: PreTrainedModel) -> tuple[int, ...]:
    generation = getattr(model, "generation_config", None)
    eos = getattr(generation, "eos_token_id", None)
    eos = getattr(model.config, "eos_token_id", None) if eos is None else eos
    return () if eos is None else tuple(eos) if isinstance(eos, (list, tuple)) else (eos,)


def one_line(error: Exception) -> str:
    return first_line(error).strip(" .")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bars and warnings: what matters is raised."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.enable_progress_bar()
