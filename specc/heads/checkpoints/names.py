"""The names of a decoder layer's tensors, in transformers' checkpoints and in a head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from specc.heads.checkpoints.source import Source
from specc.runtime.errors import HeadError

LAYER = {
    "self_attn.q_proj.": "query.",
    "self_attn.k_proj.": "key.",
    "self_attn.v_proj.": "value.",
    "self_attn.o_proj.": "output.",
    "self_attn.q_norm.weight": "query_norm",
    "self_attn.k_norm.weight": "key_norm",
    "mlp.gate_proj.": "gate.",
    "mlp.up_proj.": "up.",
    "mlp.down_proj.": "down.",
    "post_attention_layernorm.weight": "mlp_norm",
}
NARROW = LAYER | {"input_layernorm.weight": "state_norm"}
WIDE = LAYER | {"input_layernorm.weight": "token_norm", "hidden_norm.weight": "state_norm"}
# Copies of what the model has, masks of a vocabulary, and constants that are computed again.
UNREAD = ("embed_tokens.weight", "t2d", "verifier_lm_head.weight", "verifier_norm.weight", "inv_freq")


def rename(source: Source, names: Iterable[str], table: Mapping[str, str]) -> dict[str, Tensor]:
    """Read tensors and give them a head's names.

    Args:
        source: the checkpoint.
        names: the tensors that belong to the head.
        table: the beginning of a name in the checkpoint, and what stands for it in the head.

    Raises:
        HeadError: a tensor is in no entry of the table, so that the head computes something that specc does not.
    """
    weights: dict[str, Tensor] = {}
    for name in names:
        if name.endswith(UNREAD):
            continue
        prefix = next((prefix for prefix in table if name.startswith(prefix)), None)
        if prefix is None or name.endswith("o_proj.bias") or (".mlp." in name and name.endswith(".bias")):
            raise HeadError(
                f"{source.directory} has the tensor {name}, which specc's heads do not have; they have plain attention "
                "and one gated MLP a layer: name a head of that form"
            )
        ours = table[prefix] + name.removeprefix(prefix)
        weights[ours], source.names[ours] = source.read(name), name
    return weights


def matrix(source: Source, weights: Mapping[str, Tensor], name: str) -> Tensor:
    """Return a matrix of a head.

    Raises:
        HeadError: the checkpoint lacks it, or has another shape there.
    """
    if name not in weights:
        raise HeadError(f"{source.directory} lacks what becomes {name} of a head; name a head with a gated MLP a layer")
    weight = weights[name]
    if weight.ndim != 2 or not weight.numel():
        raise HeadError(
            f"{source.directory} has {source.names.get(name, name)} of shape {list(weight.shape)}; it must be a "
            "matrix: download it again"
        )
    return weight


def layer_names(prefix: str, index: int, names: Mapping[str, str]) -> dict[str, str]:
    """Return the entries of one layer for `rename`: its prefix in the checkpoint, and its number in the head."""
    return {prefix + theirs: f"layers.{index}.{ours}" for theirs, ours in names.items()}
