"""The checkpoints of speculators (vLLM): its kinds `eagle`, `eagle3`, `peagle`, `dflash` and `mtp`.

Its config.json names the kind as `speculators_model_type`, and describes the layers as `transformer_layer_config`. A
head of EAGLE-3's or of DFlash's kind that names layer i reads what goes into the model's layer i.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from specc.heads.checkpoints.dflash import dflash_parts
from specc.heads.checkpoints.eagle import PAPER, authors_taps
from specc.heads.checkpoints.format import Format, Parts
from specc.heads.checkpoints.layers import layer_parts
from specc.heads.checkpoints.names import NARROW, WIDE, layer_names, matrix, rename
from specc.heads.checkpoints.source import EPS, Source
from specc.heads.checks import MOST_COUNT
from specc.heads.config_file import CONFIG
from specc.heads.eagle3 import EACH, TOGETHER
from specc.heads.head import Target, rms_norm
from specc.heads.layer_head import NORM
from specc.runtime.errors import HeadError

KIND = "speculators_model_type"


def _is(kind: str) -> Callable[[Source], bool]:
    return lambda source: source.config.get(KIND) == kind


def _layer_config(source: Source) -> Mapping[str, Any]:
    """Return what the configuration says of the layers.

    Raises:
        HeadError: it says nothing.
    """
    config = source.config.get("transformer_layer_config")
    if not isinstance(config, dict):
        raise HeadError(f"{source.directory / CONFIG} has no transformer_layer_config; download it again")
    return config


def _convert_eagle(source: Source, model: Target) -> Parts:
    config = _layer_config(source)
    table = {
        "fusion_fc.": "fc.",
        "embedding_layernorm.weight": "token_norm",
        "pre_lm_head_layernorm.weight": "norm",
        **layer_names("transformer.", 0, NARROW),
    }
    return layer_parts(
        source,
        config,
        source.target(config, model),
        architecture="eagle",
        taps=(model.layers,),
        weights=rename(source, source.files, table),
        settings={},
    )


def _convert_eagle3(source: Source, model: Target) -> Parts:
    return _convert_layers(source, model, "eagle3")


def _convert_peagle(source: Source, model: Target) -> Parts:
    return _convert_layers(source, model, "peagle")


def _convert_dflash(source: Source, model: Target) -> Parts:
    taps = _taps(source, "aux_hidden_state_layer_ids")
    return dflash_parts(source, _layer_config(source), source.config, taps, model)


def _convert_layers(source: Source, model: Target, architecture: str) -> Parts:
    config = _layer_config(source)
    count = source.number(config, "num_hidden_layers", MOST_COUNT) if "num_hidden_layers" in config else 1
    table = {
        "fc.": "fc.",
        "fc_norm.": "fc_norm.",
        "input_norm.weight": "input_norm",
        "norm.weight": "norm",
        "lm_head.": "head.",
        "d2t": "vocabulary",
        "mask_hidden": "mask_hidden",
    }
    for index in range(count):
        table |= layer_names(f"layers.{index}.", index, WIDE if index == 0 else NARROW)
    weights = rename(source, source.files, table)
    name = "eagle_aux_hidden_state_layer_ids"
    settings = PAPER | {"layers": count, "tap_norm": _fold_norms(source, weights)}
    if "mask_hidden" in weights:
        weights |= _pseudo_slot(
            source, weights, settings["tap_norm"], source.positive(config, "rms_norm_eps", EPS, 1.0)
        )
    if source.config.get("norm_before_residual"):
        settings["residual_norm"] = 1
    if source.config.get("norm_output"):
        settings["next_state"] = NORM
    return layer_parts(
        source,
        config,
        source.target(config, model),
        architecture=architecture,
        taps=authors_taps(model.layers) if source.config.get(name) is None else _taps(source, name),
        weights=weights,
        settings=settings,
    )


def _taps(source: Source, name: str) -> tuple[int, ...]:
    """Return the layers after which a head reads states. The configuration names the layers behind them."""
    return tuple(layer - 1 for layer in source.layers(source.config, name))


def _fold_norms(source: Source, weights: dict[str, Tensor]) -> int:
    """Multiply the weights of norms before `fc` into it, and return which norm is left."""
    each = [weights.pop(name) for name in sorted(name for name in weights if name.startswith("fc_norm."))]
    together = weights.pop("input_norm", None)
    if not each and together is None:
        return 0
    product = matrix(source, weights, "fc.weight")
    scale = torch.cat([norm.flatten() for norm in each]) if together is None else together
    if scale.shape != product.shape[1:]:
        raise HeadError(
            f"{source.directory} has norms of shape {list(scale.shape)} before fc.weight of shape "
            f"{list(product.shape)}; download it again"
        )
    weights["fc.weight"] = product * scale
    return EACH if each else TOGETHER


def _pseudo_slot(source: Source, weights: dict[str, Tensor], tap_norm: int, eps: float) -> dict[str, Tensor]:
    """Return what a slot without a token stands on: the mask token's embedding, and the product of learned states.

    Raises:
        HeadError: the checkpoint has no embeddings, or names no mask token among them.
    """
    table, token = source.table(), source.config.get("mask_token_id")
    if table is None or type(token) is not int or table.ndim != 2 or not 0 <= token < len(table):
        raise HeadError(
            f"{source.directory} has no embedding of a mask token (mask_token_id is {token!r} in {CONFIG}); download "
            "it again, with embed_tokens"
        )
    taps, product = weights.pop("mask_hidden").flatten(), matrix(source, weights, "fc.weight")
    if len(taps) != product.shape[1] or len(taps) % len(product):
        raise HeadError(
            f"{source.directory} has mask_hidden of {len(taps)} numbers and fc.weight of shape {list(product.shape)}; "
            "download it again"
        )
    if tap_norm == EACH:
        taps = rms_norm(torch.unflatten(taps, 0, (-1, len(product))), None, eps).flatten()
    elif tap_norm == TOGETHER:
        taps = rms_norm(taps, None, eps)
    return {"pseudo_token": table[token], "pseudo_state": product @ taps}


EAGLE = Format(name="speculators' eagle", architecture="eagle", recognises=_is("eagle"), convert=_convert_eagle)
EAGLE3 = Format(name="speculators' eagle3", architecture="eagle3", recognises=_is("eagle3"), convert=_convert_eagle3)
PEAGLE = Format(name="speculators' peagle", architecture="peagle", recognises=_is("peagle"), convert=_convert_peagle)
DFLASH = Format(name="speculators' dflash", architecture="dflash", recognises=_is("dflash"), convert=_convert_dflash)
