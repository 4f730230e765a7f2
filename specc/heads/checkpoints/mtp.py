"""Modules for multi-token prediction that come with a model (DeepSeek-V3, arXiv:2412.19437).

The forms:

- DeepSeek's: `enorm`, `hnorm`, `eh_proj` and `shared_head`, in the layer behind the last.
- MiMo's: `mtp_layers.0` with `token_layernorm`, `hidden_layernorm` and `input_proj`, which reads the state first.
- That of speculators: `token_layernorm`, `hidden_layernorm` and `input_proj`.

The first module is run again for each depth. Layers with latent attention or with experts are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from specc.heads.checkpoints.format import Format, Parts
from specc.heads.checkpoints.layers import layer_parts
from specc.heads.checkpoints.names import NARROW, layer_names, matrix, rename
from specc.heads.checkpoints.source import Source
from specc.heads.head import Target
from specc.heads.layer_head import NORM, STREAM


class _Form(NamedTuple):
    """A way to write a module.

    Attributes:
        marks: the tensor that tells it. Its group is the prefix of the module's tensors.
        names: what is beside the layer's own tensors.
        state_first: whether the product reads the state before the token.
        next_state: what the next depth reads.
    """

    marks: re.Pattern[str]
    names: Mapping[str, str]
    state_first: bool
    next_state: int


_DEEPSEEK = _Form(
    re.compile(r"(model\.layers\.\d+\.)eh_proj\.weight"),
    {
        "enorm.weight": "token_norm",
        "hnorm.weight": "state_norm",
        "eh_proj.": "fc.",
        "shared_head.norm.weight": "norm",
        "shared_head.head.": "head.",
    },
    state_first=False,
    next_state=STREAM,
)
_LAYERNORMS = {
    "token_layernorm.weight": "token_norm",
    "hidden_layernorm.weight": "state_norm",
    "input_proj.": "fc.",
    "final_layernorm.weight": "norm",
}
_MIMO = _Form(re.compile(r"(model\.mtp_layers\.0\.)input_proj\.weight"), _LAYERNORMS, True, NORM)
_SPECULATORS = _Form(re.compile(r"(mtp_layers\.0\.)input_proj\.weight"), _LAYERNORMS, False, NORM)
FORMS = (_DEEPSEEK, _MIMO, _SPECULATORS)


def _match(source: Source) -> tuple[_Form, str] | None:
    """Return the form of a checkpoint, and the prefix of its first module."""
    for form in FORMS:
        matches = [match for name in source.files if (match := form.marks.fullmatch(name))]
        if matches:
            return form, min((match[1] for match in matches), key=lambda prefix: (len(prefix), prefix))
    return None


def _convert(source: Source, model: Target) -> Parts:
    match = _match(source)
    assert match is not None, "the format was not recognised"
    form, prefix = match
    table = {prefix + theirs: ours for theirs, ours in form.names.items()} | layer_names(prefix, 0, NARROW)
    weights = rename(source, (name for name in source.files if name.startswith(prefix)), table)
    if form.state_first:
        product = matrix(source, weights, "fc.weight")
        weights["fc.weight"] = product.roll(product.shape[1] // 2, 1)
    parts = (source.section(source.config, name) for name in ("transformer_layer_config", "text_config"))
    config = next((part for part in parts if part), source.config)
    return layer_parts(
        source,
        config,
        source.target(config, model),
        architecture="mtp",
        taps=(model.layers,),
        weights=weights,
        settings={"next_state": form.next_state, "token_norm": 1, "state_norm": 1, "final_norm": 1},
    )


MTP = Format(name="MTP", architecture="mtp", recognises=lambda source: _match(source) is not None, convert=_convert)
