"""A check that the rows of all lanes fit in this machine's memory, before the model is loaded."""

from __future__ import annotations

from typing import Any

from specc.compiler.options import Options
from specc.compiler.plans import MARGIN
from specc.huggingface import context_of, read_text_config
from specc.runtime.block import MOST_LANES
from specc.runtime.engines.memory import free_memory
from specc.runtime.errors import RecipeError


def check_lanes(options: Options) -> None:
    """Refuse more lanes than may be, or than this machine has memory for when all of their rows are full.

    The size of a row comes from the model's configuration. A GGUF file has none, so its lanes are not measured.

    Raises:
        RecipeError: there are too many. The message says how many fit.
        CaptureError: the configuration cannot be read, or has fewer positions than the options ask for.
    """
    if options.lanes == 1:
        return
    config, free = read_text_config(options.model, options.revision, options.trust_remote_code), free_memory()
    if config is None or free is None:
        fits, reason = MOST_LANES, ""
    else:
        context = context_of(config, options.model, options.max_seq_len)
        lane = (context + MARGIN) * row_bytes(config, half=options.dtype in ("fp16", "bf16"))
        fits = min(MOST_LANES, max(1, free // lane))
        reason = f" (a lane of {context} tokens takes up to {lane >> 20} MiB, and {free >> 20} MiB are free)"
    if options.lanes > fits:
        raise RecipeError(
            f"lanes is {options.lanes}, and {fits} fit{reason}; give at most {fits}, or a smaller --max-seq-len"
        )


def row_bytes(config: Any, *, half: bool) -> int:
    """Return the bytes of the keys and values of one token in all layers.

    Args:
        config: the configuration of the language model.
        half: whether they are of two bytes each, and not of four.
    """
    shared = 1 if getattr(config, "multi_query", False) else config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or shared
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * (2 if half else 4))
