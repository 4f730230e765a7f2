"""What a head learns from the model, besides recorded states: its tables and its facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from specc.heads import Target, digest
from specc.runtime.errors import HeadError


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A model as the trainer sees it.

    Attributes:
        target: its facts.
        embedding: [V, D]: the table of its tokens.
        product: [V, D]: the matrix that makes logits.
        bias: [V], or None: what is added to the logits.
        config: of its text model: heads, sizes, rotary base.
    """

    target: Target
    embedding: Tensor
    product: Tensor
    bias: Tensor | None
    config: Any


def teacher_of(model: PreTrainedModel, name: str) -> Teacher:
    """Read what the trainer needs of a model.

    Raises:
        HeadError: the embeddings have another width than the states.
    """
    config = model.config.get_text_config()
    inputs: Any = model.get_input_embeddings()
    untyped: Any = model  # The method for the head has no types in transformers.
    outputs: Any = untyped.get_output_embeddings()
    embedding, product = inputs.weight.detach().float(), outputs.weight.detach().float()
    if embedding.shape[1] != config.hidden_size or product.shape[1] != config.hidden_size:
        raise HeadError(
            f"{name} has embeddings of {embedding.shape[1]} numbers and states of {config.hidden_size}; "
            "a head can be trained only where both are as wide"
        )
    target = Target(
        name=name,
        digest=digest(embedding),
        hidden_size=config.hidden_size,
        vocab_size=embedding.shape[0],
        layers=config.num_hidden_layers,
    )
    bias = getattr(outputs, "bias", None)
    return Teacher(
        target=target,
        embedding=embedding,
        product=product,
        bias=None if bias is None else bias.detach().float(),
        config=config,
    )
