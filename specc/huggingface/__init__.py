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

CONTEXT = 2048  # tokens, unless the model has positions for fewer or the user asks for another number
LEAST_CONTEXT = 16  # tokens
UNLIMITED = 1 << 62  # positions


def load_model(source: str, revision: str | None = None, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load a model in fp32, from safetensors only.

    Args:
        source: a hub id, or a directory that save_pretrained wrote.
        revision: a branch, tag or commit of the hub's repository.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        CaptureError: there is no such model, or not one that specc can compile.
    """
    path = Path(source).expanduser()
    if source.startswith(("/", "./", "../", "~")) and not path.exists():
        raise CaptureError(f"no model directory {source}; name one that save_pretrained wrote, or a hub id")
    if path.exists() and not (path / "config.json").is_file():
        raise CaptureError(f"{source} has no config.json; name a directory that save_pretrained wrote, or a hub id")
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    with quiet():
        config = _configuration(source, options)
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                attn_implementation="eager",
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
        except Exception as e:
            remedy = "; save the model again with save_pretrained" if "file named" in str(e) else ""
            raise CaptureError(f"cannot load {source} from safetensors: {one_line(e)}{remedy}") from e
    model, report = loaded
    if absent := sorted(report["missing_keys"]) + sorted(key for key, *_ in report["mismatched_keys"]):
        raise CaptureError(
            f"{source} lacks {len(absent)} of its weights, such as {absent[0]}, or has them in another shape; "
            "they would be random: name a whole checkpoint of a causal language model"
        )
    ready: PreTrainedModel = model.eval().requires_grad_(False)
    return ready


def _configuration(source: str, options: dict[str, Any]) -> Any:
    """Load the configuration of a model. Raises CaptureError if it is not one that specc can compile."""
    try:
        config = AutoConfig.from_pretrained(source, **options)
    except Exception as e:
        remedy = "; --trust-remote-code runs its code, if you have read it" if "custom code" in str(e) else ""
        raise CaptureError(f"cannot read the configuration of {source}: {one_line(e)}{remedy}") from e
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise CaptureError(f"{source} is an encoder-decoder ({kind}); specc compiles decoder-only models")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not options["trust_remote_code"]:
        raise CaptureError(
            f"{source} has model type {kind!r}, which is not a causal language model of transformers "
            f"{transformers.__version__}; upgrade it, or --trust-remote-code if the model brings its own code"
        )
    if getattr(config, "quantization_config", None):
        raise CaptureError(f"{source} is quantised; compile the original checkpoint")
    return config


def describe(model: PreTrainedModel, source: str, max_seq_len: int | None = None) -> ModelSpec:
    """Describe a model for the manifest.

    Args:
        model: the model.
        source: where it was loaded from.
        max_seq_len: tokens that fit, prompt and answer. None takes the model's own limit, 2048 at most.

    Raises:
        CaptureError: the model does not have so many positions.
    """
    config = model.config.get_text_config()
    limit = min(getattr(config, "max_position_embeddings", None) or CONTEXT, _unscaled_positions(config))
    if max_seq_len is not None and not LEAST_CONTEXT <= max_seq_len <= limit:
        raise CaptureError(f"max_seq_len {max_seq_len} does not fit {source}; give {LEAST_CONTEXT}..{limit}")
    return ModelSpec(
        source=source,
        revision=getattr(model.config, "_commit_hash", None) or "local",
        architecture=type(model).__name__,
        vocab_size=config.vocab_size,
        layers=config.num_hidden_layers,
        context=max_seq_len or min(limit, CONTEXT),
        eos_token_ids=_eos_token_ids(model),
    )


def _unscaled_positions(config: Any) -> int:
    """Return the number of positions up to which rotary frequencies do not depend on the length of the text."""
    rope = getattr(config, "rope_parameters", None) or {}
    by_layer_type = bool(rope) and all(isinstance(r, dict) for r in rope.values())
    limits = [
        r["original_max_position_embeddings"]
        for r in (rope.values() if by_layer_type else [rope])
        if r.get("rope_type") == "longrope"
    ]
    return min(limits, default=UNLIMITED)


def _eos_token_ids(model: PreTrainedModel) -> tuple[int, ...]:
    """Return the tokens that end a text: those of the generation configuration, else of the model's."""
    for config in (getattr(model, "generation_config", None), model.config):
        eos = getattr(config, "eos_token_id", None)
        if eos is not None:
            return tuple(eos) if isinstance(eos, (list, tuple)) else (eos,)
    return ()


def one_line(error: Exception) -> str:
    """Return the first line of another library's error, without the full stop."""
    return first_line(error).strip(" .")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' bars and warnings. What matters is raised."""
    logging: Any = transformers_logging  # its functions have no types
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
