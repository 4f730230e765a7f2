"""Load a Hugging Face checkpoint and describe it for the manifest."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from specc.huggingface.adapter import merge_adapter
from specc.huggingface.directory import check_directory, check_pointers, without_adapter
from specc.huggingface.generation_config import choice_of_tokens
from specc.huggingface.gguf import find_gguf, join_parts, read_gguf, read_once
from specc.huggingface.gguf_rotary import apply_scaling, check_rotary_size
from specc.huggingface.hub import hub_options
from specc.huggingface.quantized import describe_rounding, widen_loaded, widening
from specc.huggingface.recursive import ENTRY, load_recursive
from specc.runtime.errors import CaptureError, first_line
from specc.runtime.extras import package
from specc.runtime.manifest import ModelSpec

CONTEXT = 2048  # tokens, unless the model has positions for fewer or the user asks for another number
LEAST_CONTEXT = 16  # tokens
UNLIMITED = 1 << 62  # positions
ROUNDING = "weights_rounded_from"  # the key of the manifest's extra notes


def load_model(
    source: str, revision: str | None = None, trust_remote_code: bool = False, adapter: str | Path | None = None
) -> PreTrainedModel:
    """Load a causal language model with weights in fp32.

    Args:
        source: a hub id, a directory that `save_pretrained` wrote, a GGUF file, or a directory that holds one.
        revision: a branch, tag or commit of the hub's repository.
        trust_remote_code: whether Python code of the model's repository may run.
        adapter: a directory that peft wrote; it is merged into the weights.

    Returns:
        The model in evaluation mode. `rounding` says how its weights were stored.

    Raises:
        CaptureError: the checkpoint cannot be read, lacks weights, or is no decoder-only language model.
    """
    path = _local_path(source)
    parts = find_gguf(path) if path else None
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    with quiet(), read_once(), tempfile.TemporaryDirectory(prefix="specc-model-") as scratch:
        if parts:
            model, stored = _load_gguf(source, parts, Path(scratch))
        else:
            name = source
            if path:
                check_directory(path)
                name = str(without_adapter(path, Path(scratch)))
            else:
                options |= hub_options(source, revision)
            model, stored = _load_safetensors(name, source, options)
        if adapter is not None:
            model = merge_adapter(model, Path(adapter))
    setattr(model, ROUNDING, stored)
    untyped: Any = model
    ready: PreTrainedModel = untyped.eval().requires_grad_(False)
    return ready


def rounding(model: PreTrainedModel) -> dict[str, Any]:
    """Return how the weights of a loaded model were stored, if in fewer bits than 16; empty for an ordinary checkpoint.

    For a GGUF file: its method "gguf" and the number of tensors of each type. For others: the method and the bits.
    """
    stored: dict[str, Any] = getattr(model, ROUNDING, {})
    return stored


def load_tokenizer(source: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """Load a model's tokenizer.

    Raises:
        CaptureError: there is none, or a package that it needs is not installed.
    """
    path = _local_path(source)
    parts = find_gguf(path) if path else None
    name, options = source, {} if path else hub_options(source, revision)
    if path and path.is_dir() and not parts:
        check_pointers(path.iterdir())  # A pointer in place of tokenizer.json would be an obscure error.
    try:
        with quiet(), read_once():
            if parts:
                read_gguf(parts)
                name, options = str(parts[0].parent), {"gguf_file": parts[0].name}
            return AutoTokenizer.from_pretrained(
                name, revision=revision, trust_remote_code=trust_remote_code, **options
            )
    except CaptureError:
        raise
    except Exception as e:
        if not parts:  # The tokenizer's class depends on the configuration, whose faults would be taken for its own.
            _read_config(name, source, {"revision": revision, "trust_remote_code": trust_remote_code, **options})
        line = one_line(e)
        reason = "" if line.endswith(":") else f" ({line})"  # A colon begins a list, whose lines are left out.
        raise CaptureError(f"{source} has no tokenizer that loads{_tokenizer_remedy(path)}{reason}") from e


def _tokenizer_remedy(path: Path | None) -> str:
    """Say what to do about a tokenizer that does not load."""
    if path and path.is_dir() and (path / "tokenizer.model").is_file() and not (path / "tokenizer.json").is_file():
        return "; tokenizer.model needs pip install sentencepiece protobuf tiktoken"
    return "; save one beside the model"


def _local_path(source: str) -> Path | None:
    """Return the path that a source names, or None for a hub id. Raises CaptureError for a path that is not there."""
    path = Path(source).expanduser()
    if path.exists():
        if path.is_dir() and not (path / "config.json").is_file() and not find_gguf(path):
            check_directory(path)  # names an adapter or a git-lfs pointer, where that is the reason
            raise CaptureError(
                f"{source} has no config.json; name a directory that save_pretrained wrote, a GGUF file, or a hub id"
            )
        if path.is_file() and find_gguf(path) is None:
            raise CaptureError(f"{source} is a file and not GGUF; name a model directory, a .gguf file, or a hub id")
        return path
    if source.startswith(("/", "./", "../", "~")) or source.endswith(".gguf"):
        raise CaptureError(f"there is no {source}; name a model directory, a .gguf file, or a hub id")
    return None


def _load_gguf(source: str, parts: Sequence[Path], scratch: Path) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load a GGUF checkpoint, widened to fp32, and say which types its weights had."""
    try:
        import accelerate  # noqa: F401  transformers needs it for GGUF, and says so late
        from transformers import GgufConfig
    except ImportError as e:
        raise CaptureError(f"{source} is a GGUF file, and {e.name} is missing; pip install {package('gguf')}") from e
    checkpoint = read_gguf(parts)
    file = join_parts(checkpoint.parts, scratch / "joined.gguf")
    options: dict[str, Any] = {"gguf_file": file.name}
    config = _read_config(str(file.parent), source, options)
    options |= {"quantization_config": GgufConfig(dequantize=True)}
    model = _from_pretrained(str(file.parent), source, config, options)
    check_rotary_size(model, checkpoint.rotary_size, source)
    apply_scaling(model, checkpoint.scaling, source)
    for holder in (model.config, model.config.get_text_config()):
        if hasattr(holder, "quantization_config"):
            del holder.quantization_config
    return model, {"method": "gguf", "types": dict(checkpoint.rounded)} if checkpoint.rounded else {}


def _load_safetensors(name: str, source: str, options: dict[str, Any]) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load an ordinary, a quantised or a recursive checkpoint, and say how its weights were rounded.

    Args:
        name: what transformers loads.
        source: what the user named, for messages.
        options: keyword arguments for `from_pretrained`.
    """
    config = _read_config(name, source, options)
    if hasattr(config, ENTRY):
        return load_recursive(Path(name), source, config), {}
    stored = getattr(config, "quantization_config", None)
    if not stored:
        return _from_pretrained(name, source, config, options | {"use_safetensors": True}), {}
    stored = stored if isinstance(stored, dict) else stored.to_dict()
    choice = widening(source, stored)
    arguments = options | {"use_safetensors": True} | choice.arguments(stored)
    return widen_loaded(_from_pretrained(name, source, config, arguments), choice), describe_rounding(stored)


def _read_config(name: str, source: str, options: dict[str, Any]) -> Any:
    """Read the configuration, and refuse what is not a decoder-only language model of transformers."""
    try:
        config = AutoConfig.from_pretrained(name, **options)
    except Exception as e:
        remedy = "; --trust-remote-code runs its code, if you have read it" if "custom code" in str(e) else ""
        raise CaptureError(f"cannot read the configuration of {source}: {one_line(e)}{remedy}") from e
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise CaptureError(f"{source} is an encoder-decoder ({kind}); specc compiles decoder-only models")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not options.get("trust_remote_code"):
        raise CaptureError(
            f"{source} has model type {kind!r}, which is not a causal language model of transformers "
            f"{transformers.__version__}; upgrade it, or --trust-remote-code if the model brings its own code"
        )
    return config


def _from_pretrained(name: str, source: str, config: Any, options: dict[str, Any]) -> PreTrainedModel:
    """Load the weights in fp32 and check that none is missing."""
    try:
        result: Any = AutoModelForCausalLM.from_pretrained(
            name,
            config=config,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    except Exception as e:
        remedy = "; save the model again with save_pretrained" if "file named" in str(e) else ""
        raise CaptureError(f"cannot load {source}: {one_line(e)}{remedy}") from e
    model: PreTrainedModel
    model, report = result
    if absent := sorted(report["missing_keys"]) + sorted(key for key, *_ in report["mismatched_keys"]):
        raise CaptureError(
            f"{source} lacks {len(absent)} of its weights, such as {absent[0]}, or has them in another shape; "
            "they would be random: name a whole checkpoint of a causal language model"
        )
    if getattr(model, "_hf_peft_config_loaded", False):  # transformers applies an adapter that it finds.
        raise CaptureError(f"{source} holds an adapter beside its weights; download it, and name the directory")
    return model


def read_text_config(source: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """Read the configuration of the language model without its weights. None for a GGUF file, which has no such part.

    Raises:
        CaptureError: it cannot be read, or is not that of a decoder-only language model.
    """
    path = _local_path(source)
    if path and find_gguf(path):
        return None
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    with quiet(), tempfile.TemporaryDirectory(prefix="specc-model-") as scratch:
        name = str(without_adapter(path, Path(scratch))) if path else source
        return _read_config(name, source, options | ({} if path else hub_options(source, revision))).get_text_config()


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
    return ModelSpec(
        source=source,
        revision=getattr(model.config, "_commit_hash", None) or "local",
        architecture=type(model).__name__,
        vocab_size=config.vocab_size,
        layers=config.num_hidden_layers,
        context=context_of(config, source, max_seq_len),
        eos_token_ids=_eos_token_ids(model),
        generation_config=choice_of_tokens(model),
    )


def context_of(config: Any, source: str, max_seq_len: int | None = None) -> int:
    """Return how many tokens fit, prompt and answer.

    Args:
        config: the configuration of the language model.
        source: where it was read from.
        max_seq_len: the number that a user asks for. None takes the model's own limit, 2048 at most.

    Raises:
        CaptureError: the model does not have so many positions.
    """
    positions, unscaled = getattr(config, "max_position_embeddings", None) or CONTEXT, _unscaled_positions(config)
    limit = min(positions, unscaled)
    if max_seq_len is not None and not LEAST_CONTEXT <= max_seq_len <= limit:
        reason = ""
        if unscaled < max_seq_len <= positions:
            reason = f" (longrope turns by other angles after {unscaled} tokens, which no cached row would fit)"
        raise CaptureError(f"max_seq_len {max_seq_len} does not fit {source}{reason}; give {LEAST_CONTEXT}..{limit}")
    return max_seq_len or min(limit, CONTEXT)


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
