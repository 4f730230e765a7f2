"""Guesses that attend to each other before they become tokens (Li et al. 2024, Amphista, arXiv:2406.13170).

Two decoder layers adapt the model's states to drafting: the first reads the states, the second also the last token.
Then K slots are made of each state, and every slot attends to all K of them, the later ones too. One call gives all
guesses.

The slots start as the linear guess of EAGLE-3's head here (specc/heads/eagle3.py), which starts from a closed form, and
all layers start at zero. The paper has no such guess. After short trainings a control whose slots see no later ones
guesses as well (docs/measurements.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import HeadConfig, linear, option, rms_norm, setting
from specc.heads.layer import Attend, Layer
from specc.heads.stacked import SharedProduct


class Amphista(SharedProduct):
    """K guesses of slots that attend to each other.

    Args:
        config: its settings are `guesses` (K), `parts` (the heads of the attention among slots), `hidden` (the width of
            the MLP of a slot) and those of `Layer`. An optional one is `causal` (1: a slot sees none that is later).
    """

    attends = True

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config, int(setting(config, "guesses")))
        size, hidden = config.target.hidden_size, int(setting(config, "hidden"))
        self.parts, self.causal = int(setting(config, "parts")), bool(option(config, "causal", 0))
        self.fc, self.token = linear(size, size), linear(size, size)
        self.layers = nn.ModuleList([Layer(config, 0, wide=False), Layer(config, 1)])
        self.slots = nn.Linear(size, self.count * size)
        self.query, self.key, self.value, self.output = (linear(size, size) for _ in range(4))
        self.up, self.down = linear(size, hidden), linear(hidden, size)
        self.last_norm = nn.Parameter(torch.ones(size))
        for parameter in self.added():
            nn.init.zeros_(parameter)

    def features(self, input_ids: Tensor, position_ids: Tensor, state: Tensor, attention: list[Attend]) -> list[Tensor]:
        assert self.embedding is not None, "no table was attached"
        embeddings = functional.embedding(input_ids, self.embedding)
        first, second = self.decoder_layers()
        x = first(embeddings, self.fc(rms_norm(state, None, self.eps)), position_ids, attention[0])
        x = x + self.token(rms_norm(embeddings, None, self.eps))
        x = second(embeddings, x, position_ids, attention[1])
        slots = torch.unflatten(self.slots(rms_norm(x, None, self.eps)), -1, (self.count, -1)) + x[..., None, :]
        slots = slots + self.output(self._among_slots(rms_norm(slots, None, self.eps)))
        slots = slots + self.down(functional.silu(self.up(rms_norm(slots, None, self.eps))))
        return list(rms_norm(slots, self.last_norm, self.eps).unbind(-2))

    def _among_slots(self, y: Tensor) -> Tensor:
        """Attend among the slots of a state, [B, N, K, d] to [B, N, K, d]."""
        query, key, value = (self._split(product(y)) for product in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        if self.causal:
            scores = scores.masked_fill(torch.ones(self.count, self.count, dtype=torch.bool).triu(1), -1e9)
        result: Tensor = (scores.softmax(-1) @ value).transpose(-2, -3).flatten(-2)
        return result

    def _split(self, y: Tensor) -> Tensor:
        """Turn [B, N, K, d] into [B, N, parts, K, d / parts]."""
        return torch.unflatten(y, -1, (self.parts, -1)).transpose(-2, -3)

    def attention(self) -> list[Attend]:
        return [layer.attend for layer in self.decoder_layers()]

    def decoder_layers(self) -> list[Layer]:
        """Return the two layers before the slots."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def added(self) -> list[nn.Parameter]:
        products = [product for layer in self.decoder_layers() for product in (layer.output, layer.down)]
        modules = [*products, self.slots, self.output, self.down]
        return [parameter for module in modules for parameter in module.parameters()]
