"""Cut a draft model from a model: all of its width, and few of its layers.

Decoding Speculative Decoding (Yan et al. 2024, arXiv:2402.01528) finds that the time of a draft, which grows with its
layers, counts for more than how good its text is. So its drafts are wide and shallow. The paper prunes by learned masks
(Sheared LLaMA) and trains the result on text; here layers at equal distances stay, and distillation follows.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from specc.huggingface.recursive import loops_of
from specc.runtime.errors import HeadError
from specc.training.states import layers_of


def kept_layers(layers: int, count: int) -> list[int]:
    """Return `count` of a model's layers, the first one among them, at distances that are as equal as may be.

    Raises:
        HeadError: the model does not have so many, or has no layer to leave out.
    """
    if not 1 <= count < layers:
        raise HeadError(f"a draft of {count} layers cannot be cut from a model of {layers}; give 1..{layers - 1}")
    return [round(index * (layers - 1) / max(1, count - 1)) for index in range(count)]


@torch.no_grad()
def cut(model: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Return a model of some of the layers of another one, with copies of its weights.

    Raises:
        HeadError: the layers share their matrices.
    """
    if loops_of(model) > 1:
        raise HeadError("a recursive model has few layers of its own; name the model that it was made of")
    stack = layers_of(model)
    prefix = next(name for name, module in model.named_modules() if module is stack)
    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    text.num_hidden_layers = len(layers)
    if types := getattr(text, "layer_types", None):
        text.layer_types = [types[layer] for layer in layers]
    draft: PreTrainedModel = type(model)(config)
    places = {f"{prefix}.{layer}.": f"{prefix}.{index}." for index, layer in enumerate(layers)}
    weights = {}
    for name, weight in model.state_dict().items():
        if not name.startswith(f"{prefix}."):
            weights[name] = weight
            continue
        start = name[: name.index(".", len(prefix) + 1) + 1]
        if start in places:
            weights[places[start] + name.removeprefix(start)] = weight
    draft.load_state_dict(weights)
    draft.tie_weights()
    draft.train(False)
    return draft
