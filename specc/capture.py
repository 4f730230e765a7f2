"""A Hugging Face causal language model to an fx graph, attention kept as one operator. Knows no model family.

The graph takes `input_ids` and `position_ids`, both [1, slots] int64 with a symbolic number of slots, and returns
logits [1, slots, vocabulary]. Its weights are the model's own tensors, not copies.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.graph import CodeGen
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from specc.passes import ops  # noqa: F401  registers specc::attention
from specc.runtime.errors import CaptureError
from specc.runtime.manifest import ModelSpec

ATTENTION = "specc"
CONTEXT = 2048  # tokens, unless the model or the user says less or more


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None,
    scaling: float | None = None, dropout: float = 0.0, sliding_window: int | None = None,
    softcap: float | None = None, s_aux: Tensor | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """The attention function that transformers calls: one operator, with all that it must carry."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = sliding_window or getattr(module, "sliding_window", None) or 0
    out = torch.ops.specc.attention(query, key, value, s_aux, float(scale), window, softcap or 0.0, module.layer_idx)
    return out.transpose(1, 2), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, lambda *_, **__: None)


class _Logits(nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
        return logits


def load_model(source: str, revision: str | None = None, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model in fp32, from safetensors only. Raises CaptureError."""
    path = Path(source)
    if path.exists() and not (path / "config.json").is_file():
        raise CaptureError(f"{source} has no config.json; name a directory that save_pretrained wrote, or a hub id")
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    with _quiet():
        try:
            config = AutoConfig.from_pretrained(source, **options)
        except Exception as e:
            raise CaptureError(f"cannot read the configuration of {source}: {_line(e)}") from e
        if getattr(config, "is_encoder_decoder", False):
            raise CaptureError(f"{source} is an encoder-decoder ({config.model_type}); specc compiles decoder-only models")
        if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not trust_remote_code:
            raise CaptureError(f"{source} has model type {config.model_type!r}, which is no causal language model of this transformers; upgrade it, or --trust-remote-code")
        if getattr(config, "quantization_config", None):
            raise CaptureError(f"{source} is quantised; compile the original checkpoint")
        try:
            model = AutoModelForCausalLM.from_pretrained(
                source, config=config, dtype=torch.float32, use_safetensors=True, attn_implementation="eager", **options
            )
        except Exception as e:
            raise CaptureError(f"cannot load {source} from safetensors: {_line(e)}") from e
    return model.eval().requires_grad_(False)  # type: ignore[no-any-return]


def capture(model: PreTrainedModel) -> GraphModule:
    """Export the model. Raises CaptureError where attention does not go through transformers' interface."""
    slots = torch.export.Dim("slots", min=2, max=1 << 16)
    example = torch.zeros(1, 7, dtype=torch.long), torch.arange(7)[None]
    eager = model.config._attn_implementation
    with _quiet(), torch.no_grad():
        try:
            model.set_attn_implementation(ATTENTION)
            program = torch.export.export(
                _Logits(model), example, dynamic_shapes=({1: slots}, {1: slots}), strict=False
            )
        except Exception as e:
            raise CaptureError(f"torch.export cannot capture {type(model).__name__}: {_line(e)}") from e
        finally:
            model.set_attn_implementation(eager)
    graph = program.module(check_guards=False)
    assert isinstance(graph, GraphModule)
    graph.graph.set_codegen(CodeGen())  # inputs in a row and outputs by name, for passes to add to
    graph.graph.output_node().args = ({"logits": graph.graph.output_node().args[0][0]},)  # type: ignore[index]
    for node in reversed(graph.graph.find_nodes(op="placeholder")):
        next(iter(graph.graph.nodes)).prepend(node)
    graph.recompile()
    if not any(n.target is torch.ops.specc.attention.default for n in graph.graph.nodes):
        raise CaptureError(
            f"{type(model).__name__} has no attention that transformers' AttentionInterface reaches; "
            "specc needs it to place the cache, so this architecture cannot be compiled"
        )
    return graph


def describe(model: PreTrainedModel, source: str, max_seq_len: int | None = None) -> ModelSpec:
    """What the manifest says of a model. Raises CaptureError where `max_seq_len` does not fit it."""
    config = model.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None) or CONTEXT
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


def _eos(model: PreTrainedModel) -> tuple[int, ...]:
    generation = getattr(model, "generation_config", None)
    eos = getattr(generation, "eos_token_id", None)
    eos = getattr(model.config, "eos_token_id", None) if eos is None else eos
    return () if eos is None else tuple(eos) if isinstance(eos, (list, tuple)) else (eos,)


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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

