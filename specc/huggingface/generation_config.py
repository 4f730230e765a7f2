"""Read what a checkpoint's `generation_config.json` says about sampling."""

from __future__ import annotations

import json
from typing import Any

from transformers import PreTrainedModel

# The fields of transformers' GenerationConfig that change which tokens are chosen, each with the value that changes
# nothing. Fields such as max_length and pad_token_id say nothing of the choice.
NEUTRAL: dict[str, Any] = {
    "do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "top_h": 1.0, "typical_p": 1.0,
    "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "bad_words_ids": None, "force_words_ids": None,
    "suppress_tokens": None, "begin_suppress_tokens": None, "sequence_bias": None, "forced_bos_token_id": None,
    "forced_eos_token_id": None, "exponential_decay_length_penalty": None, "min_length": 0, "min_new_tokens": 0,
    "num_beams": 1, "num_beam_groups": 1, "diversity_penalty": 0.0, "length_penalty": 1.0, "penalty_alpha": 0.0,
    "guidance_scale": 1.0, "watermarking_config": None, "stop_strings": None,
}  # fmt: skip
REALS = ("temperature", "top_p")  # A file may write 1 for 1.0; the manifest has one form.


def choice_of_tokens(model: PreTrainedModel) -> dict[str, Any]:
    """Return the fields of a model's generation config that change which tokens are chosen, as plain JSON data.

    A field is left out if the file does not name it, even where transformers itself has a default that changes
    something: its `top_k` of 50 is a choice of that library, not of the model's makers.
    """
    config = getattr(model, "generation_config", None)
    fields: dict[str, Any] = config.to_diff_dict() if config is not None else {}
    named = {
        name: fields[name]
        for name, neutral in NEUTRAL.items()
        if fields.get(name) is not None and fields[name] != neutral and fields[name] not in ([], {})
    }
    numbers = {name: float(named[name]) for name in REALS if name in named}
    plain: dict[str, Any] = json.loads(json.dumps(named | numbers, default=str, skipkeys=True))
    return plain
