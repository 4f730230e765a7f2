"""The checkpoints of EAGLE's authors: EAGLE and EAGLE-2 (one format), and EAGLE-3.

EAGLE has `fc` and `layers.0`, whose input has no norm. It reads the state behind the model's final norm.
EAGLE-3 has `fc`, `midlayer`, `norm` and `lm_head`. A token i of its own vocabulary is the model's token i + d2t[i].
"""

from __future__ import annotations

from specc.heads.checkpoints.format import Format, Parts
from specc.heads.checkpoints.layers import layer_parts
from specc.heads.checkpoints.names import NARROW, WIDE, layer_names, rename
from specc.heads.checkpoints.source import Source
from specc.heads.eagle3 import NOTHING
from specc.heads.head import Target
from specc.heads.layer_head import STREAM

PAPER = {"tap_norm": NOTHING, "token": 0, "next_state": STREAM, "final_norm": 1}  # EAGLE-3 as it was published


def authors_taps(layers: int) -> tuple[int, ...]:
    """Return the layers that EAGLE-3 reads: its code keeps what goes into layer 2, a middle one and the third last."""
    return tuple(before - 1 for before in (2, layers // 2, layers - 3))


def _convert_eagle(source: Source, model: Target) -> Parts:
    return layer_parts(
        source,
        source.config,
        source.target(source.config, model),
        architecture="eagle",
        taps=(model.layers,),
        weights=rename(source, source.files, {"fc.": "fc.", **layer_names("layers.0.", 0, NARROW)}),
        settings={},
    )


def _convert_eagle3(source: Source, model: Target) -> Parts:
    table = {"fc.": "fc.", "norm.weight": "norm", "lm_head.": "head.", "d2t": "vocabulary"}
    return layer_parts(
        source,
        source.config,
        source.target(source.config, model),
        architecture="eagle3",
        taps=authors_taps(model.layers),
        weights=rename(source, source.files, table | layer_names("midlayer.", 0, WIDE)),
        settings=PAPER,
    )


EAGLE = Format(
    name="EAGLE and EAGLE-2",
    architecture="eagle",
    recognises=lambda source: {"fc.weight", "layers.0.self_attn.q_proj.weight"} <= source.files.keys(),
    convert=_convert_eagle,
)
EAGLE3 = Format(
    name="EAGLE-3",
    architecture="eagle3",
    recognises=lambda source: {"fc.weight", "midlayer.self_attn.q_proj.weight"} <= source.files.keys(),
    convert=_convert_eagle3,
)
