"""The base class of heads. A head is a small torch module that drafts from the states of a model.

B  sequences, one in an engine      N  slots      T  taps      d  the model's hidden size      s  size of a state
V'  tokens that the head knows
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from specc.runtime.errors import HeadError


@dataclass(frozen=True, kw_only=True)
class Target:
    """The facts by which a head knows the model that it was trained for.

    Attributes:
        name: where the model was loaded from.
        digest: of the embedding table, as `specc.heads.digest` computes it.
        hidden_size: numbers of a state.
        vocab_size: tokens.
        layers: layers.
    """

    name: str
    digest: str
    hidden_size: int
    vocab_size: int
    layers: int


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The configuration of a head, as its `config.json` has it.

    Attributes:
        architecture: a key of `specc.heads.ARCHITECTURES`.
        target: the model that the head was trained for.
        taps: the layers after which the head reads the model's states. -1 is the last one, before the final norm. The
            number of layers stands for the state behind that norm, which the model's last product reads.
        draft_vocab_size: tokens that the head knows; `vocab_size` of the target for all.
        settings: numbers of the architecture.
    """

    architecture: str
    target: Target
    taps: tuple[int, ...]
    draft_vocab_size: int
    settings: Mapping[str, float] = field(default_factory=dict)


class Head(nn.Module):
    """A module that drafts from states. It has two parts, which are captured apart.

    `fuse` joins the engines of the model. `forward` is a block of its own: with a cache if it has attention.

    Attributes:
        config: the configuration.
        vocabulary: the token of each of the head's V' outputs, [V'] int64; None if the head knows all tokens.
        recurrent: whether `forward` returns a state for its own next slot.
        attends: whether `forward` attends to the tokens before, so that its blocks need rows of their own.
        reads: the model whose states it reads: `target`, or `assistant` for a draft model.
        context_layers: how many layers, from the first on, run the model's own tokens only. What they said of them is
            in the state of a draft, so that the blocks of drafts leave them out.
        guesses: how many tokens it guesses in one call, by slots that stand on no token; 0 if it has no such slots.
        embedding: the model's table [V, d] after `attach`. It is not saved with the head.
        borrows_product: whether the head makes logits by the model's last product.
        product: its rows for the head's tokens, [V', d], after `attach` to a head that borrows them. Not saved.
    """

    recurrent = False
    attends = True
    borrows_product = False
    reads = "target"
    context_layers = 0
    guesses = 0
    vocabulary: Tensor | None
    embedding: Tensor | None
    product: Tensor | None

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        is_pruned = config.draft_vocab_size < config.target.vocab_size
        self.register_buffer("vocabulary", torch.arange(config.draft_vocab_size) if is_pruned else None)
        self.register_buffer("embedding", None, persistent=False)
        self.register_buffer("product", None, persistent=False)

    @property
    def architecture(self) -> str:
        """The architecture, a key of `specc.heads.ARCHITECTURES`."""
        return self.config.architecture

    @property
    def taps(self) -> tuple[int, ...]:
        """The layers after which the head reads the model's states."""
        return self.config.taps

    @property
    def state_size(self) -> int:
        """The number of numbers, s, that a cache keeps of each committed token."""
        return self.config.target.hidden_size

    def step_slots(self, drafted: int) -> int:
        """Return how many slots a step of the model has that verifies a chain of so many tokens."""
        return 1 + drafted

    def draft_cost(self, drafted: int, parameters: int) -> float:
        """Return what a draft of so many tokens costs, as a share of a decode, by the bytes that both read.

        Args:
            drafted: the tokens.
            parameters: of the model.
        """
        return drafted * sum(parameter.numel() for parameter in self.parameters()) / parameters

    def attach(self, embedding: Tensor, product: Tensor | None = None) -> None:
        """Give the head the model's tables.

        Args:
            embedding: [V, d]: the embeddings.
            product: [V, d]: the matrix that makes logits; None if it is the embeddings.

        Raises:
            HeadError: a table has another shape.
        """
        shape = (self.config.target.vocab_size, self.config.target.hidden_size)
        tables = {"embedding": embedding, "output": embedding if product is None else product}
        for name, table in tables.items():
            if tuple(table.shape) != shape:
                raise HeadError(
                    f"the head was trained for {self.config.target.name}, whose {name} table has the shape {shape}; "
                    f"this model's has {tuple(table.shape)}: name a head that was trained for this model"
                )
        self.embedding = embedding.detach()
        if self.borrows_product:
            rows = tables["output"].detach()
            self.product = rows if self.vocabulary is None else rows[self.vocabulary]

    def fuse(self, taps: Tensor) -> Tensor:
        """Make the states that a cache keeps.

        Args:
            taps: [B, N, T * d]: the model's states after the layers `taps`, side by side.

        Returns:
            [B, N, s].
        """
        raise NotImplementedError

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        """Draft from tokens that stand beside states.

        Args:
            input_ids: [B, N] int64: token i + 1 of the text stands in slot i.
            position_ids: [B, N] int64: the position of slot i is i.
            state: [B, N, s]: that of token i, by `fuse`; or, behind a draft, by `forward`.

        Returns:
            `logits` [B, N, V'] of the token after `input_ids`; of several tokens, [B, N, K, V']. A recurrent head adds
            `state` [B, N, s], with which the next slot of a draft starts.
        """
        raise NotImplementedError


class LastStateHead(Head):
    """A head that reads the model's last state after its norm.

    Attributes:
        eps: of the norm, the setting `eps`.
        norm: the weight of the norm, [d]. It starts as the model's own. None if the tap lies behind the model's norm,
            as the optional setting `norm` says by 0.
    """

    norm: nn.Parameter | None

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.eps = setting(config, "eps")
        weight = nn.Parameter(torch.ones(config.target.hidden_size)) if option(config, "norm", 1) else None
        self.register_parameter("norm", weight)

    def fuse(self, taps: Tensor) -> Tensor:
        return taps if self.norm is None else rms_norm(taps, self.norm, self.eps)


def setting(config: HeadConfig, name: str) -> float:
    """Return a number of the architecture.

    Raises:
        HeadError: the configuration lacks it.
    """
    try:
        return config.settings[name]
    except KeyError:
        raise HeadError(
            f"the head's config.json has no setting {name!r}, which {config.architecture} needs; train the head again"
        ) from None


def option(config: HeadConfig, name: str, default: float) -> float:
    """Return a number of the architecture that a configuration may leave out."""
    return config.settings.get(name, default)


def parts(x: Tensor, count: int) -> list[Tensor]:
    """Return so many equal parts of the last axis. They are slices, which all backends have, unlike `chunk`."""
    size = x.shape[-1] // count
    return [x[..., size * number : size * (number + 1)] for number in range(count)]


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Divide by the root of the mean square of the last axis (Zhang & Sennrich 2019, arXiv:1910.07467).

    It is written out, so that the pass `FuseRMSNorm` finds it with a weight and without.
    """
    normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return normed if weight is None else normed * weight


def linear(inputs: int, outputs: int, bias: bool = False) -> nn.Linear:
    """Make a product with small random weights. Its bias, if it has one, is zero."""
    product = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(product.weight, std=0.02)
    if bias:
        nn.init.zeros_(product.bias)
    return product
