"""The tokenizer and the draft model that a compile needs beside the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from transformers import AutoTokenizer, PreTrainedModel

from specc.compiler.options import Options
from specc.huggingface import describe, load_model
from specc.runtime.errors import CaptureError, RecipeError, first_line
from specc.runtime.manifest import ModelSpec


class Tokenizer(Protocol):
    """A tokenizer of transformers, as far as a compile uses it."""

    def encode(self, text: str) -> list[int]: ...


def load_tokenizer(options: Options, directory: Path) -> Tokenizer:
    """Load the tokenizer and write its files into the bundle.

    Raises:
        CaptureError: there is none, or none that the runtime can read.
    """
    source = options.model
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=options.revision, trust_remote_code=options.trust_remote_code
        )
        tokenizer.save_pretrained(directory)
    except Exception as e:
        raise CaptureError(f"{source} has no tokenizer that loads; save one beside the model ({first_line(e)})") from e
    if not (directory / "tokenizer.json").exists():
        raise CaptureError(
            f"{source} has no fast tokenizer, and the runtime reads no other; save it again with a tokenizer.json"
        )
    return tokenizer


def encode_prompts(texts: Sequence[str], tokenizer: Tokenizer, context: int) -> list[tuple[str, list[int]]]:
    """Return each golden prompt with its tokens, cut so that half of the context is left for the answer."""
    return [(text, tokenizer.encode(text)[: context // 2]) for text in texts]


def load_assistant(source: str, options: Options, target: ModelSpec) -> tuple[PreTrainedModel, ModelSpec]:
    """Load a draft model.

    Returns:
        The model, and its description with the target's context.

    Raises:
        CaptureError: it does not load.
        RecipeError: it cannot draft for the target.
    """
    model = load_model(source, trust_remote_code=options.trust_remote_code)
    spec = describe(model, source)
    if spec.vocab_size != target.vocab_size:
        raise RecipeError(
            f"{source} has a vocabulary of {spec.vocab_size} and {target.source} one of {target.vocab_size}; "
            "a draft model must share the target's tokenizer"
        )
    if spec.context < target.context:
        raise RecipeError(
            f"{source} has positions for {spec.context} tokens and the bundle for {target.context}; "
            f"give --max-seq-len {spec.context} or less"
        )
    return model, replace(spec, context=target.context)
