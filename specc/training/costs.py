"""Costs that `specc tune` measured hold for the model of their bundle, and for others of its size."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel

from specc.runtime.bundle import open_bundle
from specc.runtime.errors import HeadError


def check_costs(bundle: Path | None, model: PreTrainedModel, source: str) -> None:
    """Refuse costs of a bundle whose model is of another size. A model that was tuned further is not.

    Args:
        bundle: the bundle; None if there are no costs.
        model: the model that is trained for.
        source: where it was loaded from, for the message.

    Raises:
        HeadError: the architecture, the vocabulary or the number of layers is another one.
        BundleError: the bundle cannot be read.
    """
    if bundle is None:
        return
    spec, config = open_bundle(bundle).manifest.model, model.config.get_text_config()
    for what, measured, ours in (
        ("architecture", spec.architecture, type(model).__name__),
        ("number of tokens", spec.vocab_size, config.vocab_size),
        ("number of layers", spec.layers, config.num_hidden_layers),
    ):
        if measured != ours:
            raise HeadError(
                f"--costs {bundle} is a bundle of another model, {spec.source}: its {what} is {measured}, and that of "
                f"{source} is {ours}; give a tuned bundle of {source}, or leave --costs out"
            )
