"""The tokenizer and the draft model that a compile needs beside the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedModel

from specc import huggingface
from specc.compiler.options import Options
from specc.huggingface import describe, load_model
from specc.runtime.errors import BundleError, CaptureError, RecipeError, first_line
from specc.runtime.manifest import ModelSpec
from specc.runtime.panics import LibraryErrors


class Tokenizer(Protocol):
    """A tokenizer of transformers, as far as a compile uses it."""

    def encode(self, text: str, *, add_special_tokens: bool = True, verbose: bool = True) -> list[int]: ...

    def get_vocab(self) -> dict[str, int]: ...

    def save_pretrained(self, directory: Path) -> object: ...


def load_tokenizer(options: Options, directory: Path) -> Tokenizer:
    """Load the tokenizer and write its files into the bundle.

    Raises:
        CaptureError: there is none, or none that the runtime can read.
        BundleError: its files cannot be written.
    """
    tokenizer: Tokenizer = huggingface.load_tokenizer(options.model, options.revision, options.trust_remote_code)
    try:
        tokenizer.save_pretrained(directory)
    except Exception as e:  # The tokenizers library raises a bare Exception where the disk is full.
        message = f"cannot write the tokenizer into {directory}: {first_line(e)}"
        raise BundleError(f"{message}; free some space, or choose another output") from e
    if not (directory / "tokenizer.json").exists():
        raise CaptureError(
            f"{options.model} has no fast tokenizer, and the runtime reads no other; "
            "save it again with a tokenizer.json"
        )
    return tokenizer


def check_assistant_tokenizer(source: str, options: Options, target: Tokenizer, prompts: Sequence[str]) -> None:
    """Check that a draft model has the target's tokenizer. Equal sizes do not tell.

    Args:
        source: the draft model.
        options: name the target.
        target: the target's tokenizer.
        prompts: texts that both must encode alike.

    Raises:
        RecipeError: the tokenizers differ.
    """
    draft: Tokenizer = huggingface.load_tokenizer(source, trust_remote_code=options.trust_remote_code)
    ours, theirs = target.get_vocab(), draft.get_vocab()
    if ours != theirs:
        token = min(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
        raise RecipeError(
            f"{source} has another tokenizer than {options.model}: token {token!r} {_place(theirs, token)} there and "
            f"{_place(ours, token)} here; a draft model must share the target's tokenizer"
        )
    for prompt in prompts:
        if target.encode(prompt) != draft.encode(prompt):
            raise RecipeError(
                f"{source} splits text into other tokens than {options.model}, such as {prompt[:40]!r}; "
                "a draft model must share the target's tokenizer"
            )


def _place(vocabulary: Mapping[str, int], token: str) -> str:
    """Say which number a token has in a vocabulary, or that it is missing."""
    return f"has the number {vocabulary[token]}" if token in vocabulary else "is missing"


def encode_prompts(texts: Sequence[str], tokenizer: Tokenizer, context: int) -> list[tuple[str, list[int]]]:
    """Return each golden prompt with its tokens, cut so that half of the context is left for the answer.

    A prompt that has the tokens of an earlier one is left out, since a copy of a golden case proves nothing.

    Raises:
        CaptureError: the tokenizer fails. A panic of its library is no Exception.
    """

    def failed(reason: str) -> CaptureError:
        return CaptureError(f"the model's tokenizer fails on a golden prompt ({reason}); give others by --prompts")

    with LibraryErrors(failed):
        encoded: dict[tuple[int, ...], str] = {}
        for text in texts:
            encoded.setdefault(tuple(tokenizer.encode(text)[: context // 2]), text)
    return [(text, list(tokens)) for tokens, text in encoded.items()]


def load_assistant(source: str, options: Options, target: ModelSpec) -> PreTrainedModel:
    """Load a draft model with as many rows of embeddings as the target has.

    Raises:
        CaptureError: it does not load.
        RecipeError: it cannot draft for the target.
    """
    model = load_model(source, trust_remote_code=options.trust_remote_code)
    if describe(model, source).vocab_size != target.vocab_size:
        # The tokenizers are the same, so what differs is padding of the embeddings. Drafts are verified, so what a
        # padded row proposes changes no output.
        model.resize_token_embeddings(target.vocab_size, mean_resizing=False)
    spec = describe(model, source)
    if spec.context < target.context:
        raise RecipeError(
            f"{source} has positions for {spec.context} tokens and the bundle for {target.context}; "
            f"give --max-seq-len {spec.context} or less"
        )
    return model
