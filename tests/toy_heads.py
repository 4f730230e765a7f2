"""Trained heads for the tiny model, fitted to its own text in seconds, so that drafts are accepted now and then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import PreTrainedModel

from specc.heads import Head, HeadConfig, Target, build_head, digest, save_head
from specc.heads.eagle3 import Eagle3
from specc.heads.sequential import Sequential
from specc.heads.stacked import Stacked

PROMPT, TOKENS = 24, 56  # of a text
LAYER: dict[str, float] = {"heads": 4, "key_heads": 2, "head_size": 16, "mlp_size": 96, "rope_theta": 1e4, "eps": 1e-5}
SETTINGS: dict[str, dict[str, float]] = {
    "eagle3": LAYER,
    "medusa": {"heads": 3, "eps": 1e-5},
    "blockwise": {"heads": 3, "hidden": 48, "eps": 1e-5},
    "hydra": {"depths": 3, "hidden": 32, "eps": 1e-5},
    "hydra_plus_plus": {**LAYER, "depths": 3, "hidden": 32, "layers": 1, "mlp_layers": 2},
    "recurrent_drafter": {"recurrent": 24, "hidden": 48, "eps": 1e-5},
    "clover": {**LAYER, "layers": 1, "parts": 4},
    "clover_2": {**LAYER, "layers": 2, "parts": 4, "cosine": 1, "hidden": 32},
    "amphista": {**LAYER, "guesses": 3, "parts": 4, "hidden": 48},
}
TAPS = {name: (0, 1, -1) if name == "eagle3" else (-1,) for name in SETTINGS}


def target_of(model: PreTrainedModel) -> Target:
    """Return the facts by which a head knows a model."""
    table: Any = model.get_input_embeddings().weight
    config = model.config.get_text_config()
    return Target(
        name="tiny",
        digest=digest(table),
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        layers=config.num_hidden_layers,
    )


def make_head(architecture: str, model: PreTrainedModel, tokens: Tensor | None = None, **changes: Any) -> Head:
    """Build a head with random weights, attached to a model.

    Args:
        architecture: a key of SETTINGS.
        model: the target.
        tokens: the tokens that the head knows; None for all.
        **changes: fields of the head's configuration that differ.
    """
    torch.manual_seed(3)
    target = target_of(model)
    config = HeadConfig(
        architecture=architecture,
        target=target,
        taps=TAPS[architecture],
        draft_vocab_size=target.vocab_size if tokens is None else len(tokens),
        settings=SETTINGS[architecture],
    )
    head = build_head(replace(config, **changes))
    if tokens is not None:
        assert head.vocabulary is not None
        head.vocabulary.copy_(tokens)
    table: Any = model.get_input_embeddings().weight
    head.attach(table)
    return head


@torch.no_grad()
def taps_of(model: PreTrainedModel, ids: Tensor, taps: Sequence[int]) -> Tensor:
    """Return a model's states after some layers, side by side, [texts, tokens, taps * size]."""
    states: dict[int, Tensor] = {}
    layers: Any = model.get_submodule("model.layers")
    hooks = [
        layer.register_forward_hook(lambda module, args, output, index=index: states.update({index: output}))
        for index, layer in enumerate(layers)
    ]
    try:
        model(input_ids=ids)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat([states[tap % len(layers)] for tap in taps], -1)


def fit(head: Head, model: PreTrainedModel, prompts: Sequence[Sequence[int]], steps: int = 120) -> None:
    """Teach a head the model's own greedy text after prompts, and leave the known tokens as they are."""
    ids = torch.cat([_text(model, prompt) for prompt in prompts])
    taps, positions = taps_of(model, ids, head.taps), torch.arange(TOKENS - 1)[None]
    optimizer = torch.optim.Adam(head.parameters(), 5e-3)
    for _ in range(steps):
        logits = _logits(head, ids[:, 1:], positions, head.fuse(taps)[:, :-1])
        loss = _loss(head, logits, ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    head.eval().requires_grad_(False)


def _logits(head: Head, ids: Tensor, positions: Tensor, state: Tensor) -> Tensor:
    """Run a head's forward with attention that has gradients."""
    if isinstance(head, Eagle3):
        return head.logits(head.run_layers(ids, positions, state, [_attend] * len(head.layers)))
    if isinstance(head, Sequential):
        x, _ = head.step(ids, head.run_layers(positions, state, [_attend] * head.context_layers))
        return head.logits(x)
    if isinstance(head, Stacked):
        return head.logits(head.features(ids, positions, state, [_attend] * len(head.attention())))
    raise TypeError(f"{type(head).__name__} has no way to be fitted")


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)


def _text(model: PreTrainedModel, prompt: Sequence[int]) -> Tensor:
    """Return a prompt, cut to PROMPT tokens, and the model's greedy text after it, [1, TOKENS]."""
    ids = torch.tensor([list(prompt[:PROMPT])])
    with torch.no_grad():
        while ids.shape[1] < TOKENS:
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], 1)
    return ids


def _loss(head: Head, logits: Tensor, ids: Tensor) -> Tensor:
    """Return the cross-entropy of the tokens that follow. `ids` [texts, N]: those beside the states."""
    places = torch.full((head.config.target.vocab_size,), -100)
    tokens_known = torch.arange(len(places)) if head.vocabulary is None else head.vocabulary
    places[tokens_known] = torch.arange(len(tokens_known))
    stacked = logits if logits.ndim == 4 else logits[:, :, None]
    losses = []
    for ahead in range(1, 1 + stacked.shape[2]):
        guesses = stacked[:, : ids.shape[1] - ahead, ahead - 1]
        losses.append(cross_entropy(guesses.flatten(0, 1), places[ids[:, ahead:]].flatten()))
    return torch.stack(losses).mean()


def save_fitted(directory: Path, source: Path, texts: Sequence[str]) -> dict[str, Path]:
    """Write a fitted head of each architecture for the model at `source`; return their directories.

    The head of EAGLE-3 knows six of seven tokens, in no order.
    """
    from specc.huggingface import load_model, load_tokenizer

    model, tokenizer = load_model(str(source)), load_tokenizer(str(source))
    prompts = [tokenizer.encode(text) for text in texts]
    vocabulary = model.config.get_text_config().vocab_size
    tokens_known = torch.tensor([token for token in range(vocabulary) if token % 7])
    shuffled = tokens_known[torch.randperm(len(tokens_known), generator=torch.Generator().manual_seed(0))]
    for architecture in SETTINGS:
        head = make_head(architecture, model, shuffled if architecture == "eagle3" else None)
        fit(head, model, prompts)
        save_head(head, directory / architecture, {"card.json": "{}", "README.md": "A head for tests.\n"})
    return {architecture: directory / architecture for architecture in SETTINGS}
