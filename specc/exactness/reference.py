"""The original model in transformers, decoded greedily: what every engine is compared with."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from specc.exactness.golden import Case
from specc.exactness.perplexity import Sample
from specc.huggingface import describe, load_model, quiet
from specc.runtime.errors import CaptureError
from specc.runtime.manifest import ModelSpec

ROWS = 64  # rows of logits at once, since cross entropy copies them: 64 of 262,144 tokens are 64 MB


@torch.no_grad()
def reference(
    model: PreTrainedModel,
    prompts: Sequence[tuple[str, list[int]]],
    tokens: int,
    eos: Sequence[int],
    advance: Callable[[], None] = lambda: None,
) -> list[Case]:
    """Decode prompts greedily, by the model's own code and cache.

    Args:
        model: the original model.
        prompts: each a text and its tokens.
        tokens: tokens to decode after each prompt at most.
        eos: tokens that end a text.
        advance: a function that is called after each prompt.

    Returns:
        A golden case for each prompt.
    """
    # Logits of every row of a prompt fill 1 GB for 1,024 tokens of a vocabulary of 262,144.
    last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    cases = []
    for text, ids in prompts:
        feed, cache = torch.tensor([ids]), None
        answer: list[int] = []
        gaps: list[float] = []
        while len(answer) < tokens and (not answer or answer[-1] not in eos):
            with quiet(), warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # transformers 5.24 renames the argument that 5.20 wants
                out = model(input_ids=feed, past_key_values=cache, use_cache=True, **last)
                cache = out.past_key_values
            best = out.logits[0, -1].float().topk(2)
            answer.append(int(best.indices[0]))
            gaps.append(round(float(best.values[0] - best.values[1]), 6))
            feed = torch.tensor([answer[-1:]])
        cases.append(Case(text, list(ids), answer, gaps))
        advance()
    return cases


@torch.no_grad()
def perplexity(model: PreTrainedModel, sample: Sample) -> float:
    """Measure the perplexity of the original model, by its own code."""
    surprise = 0.0
    for run in sample.runs:
        ids = torch.tensor([list(run)])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        pairs = zip(torch.split(logits, ROWS), torch.split(ids[0, 1:], ROWS), strict=True)
        surprise += sum(float(cross_entropy(rows.float(), tokens, reduction="sum")) for rows, tokens in pairs)
    return sample.perplexity(surprise)


def perplexities(model: PreTrainedModel, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Return the original model's perplexity on each sample, as the manifest keeps it."""
    return [
        {"text": s.name, "sha256": s.sha256, "tokens": s.tokens, "original": round(perplexity(model, s), 4)}
        for s in samples
    ]


def recompute(source: str, target: ModelSpec, cases: Sequence[Case], sample: Sample) -> tuple[list[Case], float | None]:
    """Decode the golden prompts anew by another model, and measure its perplexity.

    Args:
        source: a hub id or a directory, for transformers to load.
        target: the bundle's model.
        cases: the bundle's golden cases; each is decoded for as many tokens as it has.
        sample: what perplexity is measured on.

    Returns:
        The new cases, and the perplexity or None if the sample is empty.

    Raises:
        CaptureError: the model does not load, or has another vocabulary than the bundle.
    """
    model = _load(source, target)
    anew = [
        case
        for old in cases
        for case in reference(model, [(old.prompt, old.prompt_ids)], len(old.token_ids), target.eos_token_ids)
    ]
    return anew, perplexity(model, sample) if sample.tokens else None


def decode_with(
    source: str,
    target: ModelSpec,
    prompts: Sequence[tuple[str, list[int]]],
    tokens: int,
    advance: Callable[[int, int], None],
) -> list[Case]:
    """Decode prompts greedily by a model that transformers loads.

    Args:
        source: a hub id or a directory.
        target: the bundle's model.
        prompts: each a text and its tokens.
        tokens: tokens to decode after each prompt at most.
        advance: is called with the prompts that are decoded, and their number.

    Raises:
        CaptureError: the model does not load, or has another vocabulary than the bundle.
    """
    model, done = _load(source, target), iter(range(1, len(prompts) + 1))
    return reference(model, prompts, tokens, target.eos_token_ids, lambda: advance(next(done), len(prompts)))


def _load(source: str, target: ModelSpec) -> PreTrainedModel:
    """Load a model that a bundle may be compared with. Raises CaptureError if it has another vocabulary."""
    revision = target.revision if source == target.source and target.revision != "local" else None
    model = load_model(source, revision)
    vocabulary = describe(model, source).vocab_size
    if vocabulary != target.vocab_size:
        raise CaptureError(
            f"{source} has a vocabulary of {vocabulary} and the bundle one of {target.vocab_size}; "
            f"name the model that it was compiled from, {target.source}"
        )
    return model
