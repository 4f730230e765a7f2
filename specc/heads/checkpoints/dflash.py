"""The checkpoints of DFlash's authors: `fc`, `hidden_norm`, `norm` and some layers.

Its config.json names as `target_layer_ids` the layers after which the head reads the model's states. `mask_token_id` is
the token that stands in slots without one. Embeddings and the last product are the model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from specc.heads.checkpoints.format import Format, Parts
from specc.heads.checkpoints.layers import layer_parts
from specc.heads.checkpoints.names import NARROW, layer_names, rename
from specc.heads.checkpoints.source import Source
from specc.heads.checks import MOST_COUNT
from specc.heads.config_file import CONFIG, shown
from specc.heads.eagle3 import NOTHING
from specc.heads.head import Target
from specc.runtime.errors import HeadError

SECTION = "dflash_config"  # Its values go before those beside it.
WINDOW = "sliding_attention"
AHEAD = ("sample_from_anchor", "shift_label")  # With these, a slot guesses the token behind its own position.
SCALE = "input_embedding_scale"


def dflash_parts(
    source: Source, config: Mapping[str, Any], options: Mapping[str, Any], taps: tuple[int, ...], model: Target
) -> Parts:
    """Make a head of DFlash's kind.

    Args:
        source: the checkpoint.
        config: the part of its configuration that describes the layers.
        options: the part with `block_size` and `mask_token_id`.
        taps: the layers that the head reads.
        model: the model.

    Raises:
        HeadError: the configuration is incomplete, or the head computes something that specc does not.
    """
    target = source.target(config, model)
    _check_kind(source, config, options)
    size, mask = source.number(options, "block_size", MOST_COUNT), options.get("mask_token_id")
    if size < 2:
        raise HeadError(f"{source.directory / CONFIG} says block_size is {size}; it must be 2 or more")
    if type(mask) is not int or not 0 <= mask < target.vocab_size:
        raise HeadError(
            f"{source.directory / CONFIG} says mask_token_id is {shown(mask)}; it must be a token of the model, from 0 "
            f"to {target.vocab_size - 1}"
        )
    count = source.number(config, "num_hidden_layers", MOST_COUNT)
    table = {"fc.": "fc.", "hidden_norm.weight": "context_norm", "norm.weight": "norm"}
    table |= {"lm_head.": "head.", "d2t": "vocabulary"}
    for index in range(count):
        table |= layer_names(f"layers.{index}.", index, NARROW)
    return layer_parts(
        source,
        config,
        target,
        architecture="dflash",
        taps=taps,
        weights=rename(source, source.files, table),
        settings={
            "layers": count,
            "tap_norm": NOTHING,
            "token": 0,
            "final_norm": 1,
            "guesses": size - 1,
            "mask_token": mask,
        },
    )


def _check_kind(source: Source, config: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse a head whose configuration says that it computes something else. Raises HeadError."""
    file, both = source.directory / CONFIG, {**config, **options}
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and WINDOW in kinds:
        raise HeadError(f"{file} has layers of {WINDOW}; specc runs DFlash heads whose layers see all tokens")
    for name in AHEAD:
        if both.get(name):
            raise HeadError(f"{file} says {name} is {shown(both[name])}; specc runs DFlash heads without it")
    if both.get(SCALE, 1) != 1:
        raise HeadError(f"{file} says {SCALE} is {shown(both[SCALE])}; specc runs DFlash heads with 1")


def _convert(source: Source, model: Target) -> Parts:
    options = {**source.config, **source.section(source.config, SECTION)}
    return dflash_parts(source, source.config, options, source.layers(options, "target_layer_ids"), model)


DFLASH = Format(
    name="DFlash",
    architecture="dflash",
    recognises=lambda source: (
        {"fc.weight", "hidden_norm.weight", "layers.0.self_attn.q_proj.weight"} <= source.files.keys()
    ),
    convert=_convert,
)
