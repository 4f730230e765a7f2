"""The checkpoints of Medusa's authors: head k is `k.0.linear`, a residual block, and `k.1`, its product.

They read the state behind the model's final norm. vLLM's copies name them `blocks.k.layers.0` and `lm_heads.k`.
"""

from __future__ import annotations

import re

from specc.heads.checkpoints.format import Format, Parts
from specc.heads.checkpoints.names import matrix
from specc.heads.checkpoints.source import EPS, Source
from specc.heads.config_file import CONFIG
from specc.heads.head import HeadConfig, Target
from specc.runtime.errors import HeadError

BLOCK = re.compile(r"(?:medusa_head\.)?(\d+)\.0\.linear\.(weight|bias)|blocks\.(\d+)\.layers\.0\.(weight|bias)")
PRODUCT = re.compile(r"(?:medusa_head\.)?(\d+)\.1\.weight|lm_heads\.(\d+)\.weight")


def _recognises(source: Source) -> bool:
    return any(BLOCK.fullmatch(name) for name in source.files)


def _convert(source: Source, model: Target) -> Parts:
    weights = {}
    for name in source.files:
        if match := BLOCK.fullmatch(name):
            number, part, other_number, other_part = match.groups()
            weights[f"blocks.{number or other_number}.{part or other_part}"] = source.read(name)
        elif match := PRODUCT.fullmatch(name):
            weights[f"heads.{match[1] or match[2]}.weight"] = source.read(name)
        elif not name.startswith(("model.", "lm_head.")):  # A merged checkpoint has the model, too.
            raise HeadError(
                f"{source.directory} has the tensor {name}; specc runs Medusa heads of one residual block and one "
                f"product, which is medusa_num_layers 1 in {CONFIG}"
            )
    numbers = {name.split(".")[1] for name in weights if name.startswith("heads.")}
    product = matrix(source, weights, "heads.0.weight")
    target = Target(
        name=source.model_name(),
        digest=model.digest,
        hidden_size=product.shape[1],
        vocab_size=product.shape[0],
        layers=model.layers,
    )
    config = HeadConfig(
        architecture="medusa",
        target=target,
        taps=(model.layers,),
        draft_vocab_size=product.shape[0],
        settings={"heads": len(numbers), "eps": EPS, "norm": 0},
    )
    return Parts(config=config, weights=weights)


MEDUSA = Format(name="Medusa", architecture="medusa", recognises=_recognises, convert=_convert)
