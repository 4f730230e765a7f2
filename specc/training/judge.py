"""Train the head that judges tokens (Judge Decoding, Bachmann et al. 2025, arXiv:2501.19309).

The paper has people mark where answers of language models go wrong. Lines of `--data` with an `answer` are those.
Where the data has prompts alone, the model answers them, and tokens of its answers are replaced by random ones: those
are wrong. The layer is fitted by a cross-entropy in which good and wrong tokens weigh alike.

N  tokens      D  hidden size
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from specc.bounded_read import read_text, reason_of
from specc.huggingface import quiet
from specc.runtime.errors import PromptError
from specc.training.device import generator
from specc.training.distil import Text
from specc.training.held_out import held_out_count
from specc.training.positions import kept_places
from specc.training.prompt_files import check_regular
from specc.training.prompts import encode
from specc.training.record import RecordingOptions
from specc.training.states import layers_of, tapped

REPLACED = 0.15  # of the tokens of an answer
STEPS = 60  # of L-BFGS
DECAY = 1e-3
LABELS = ("prompt", "answer")  # fields of a marked line


@dataclass(frozen=True, kw_only=True)
class Marked:
    """An answer whose tokens are marked.

    Attributes:
        tokens: [n] int64, with the prompt.
        good: [n] bool: whether the token is good.
        counts: [n] bool: whether the mark counts. Tokens of the prompt, and those behind a mistake, do not.
    """

    tokens: Tensor
    good: Tensor
    counts: Tensor


def corrupt(texts: Sequence[Text], vocab_size: int, seed: int) -> list[Marked]:
    """Replace some tokens of answers by random ones, which are wrong."""
    random = generator(seed)
    result = []
    for text in texts:
        is_answer = torch.arange(len(text)) >= text.prompt
        others = torch.randint(vocab_size, (len(text),), generator=random)
        swap = is_answer & (torch.rand(len(text), generator=random) < REPLACED) & (others != text.tokens)
        result.append(Marked(tokens=torch.where(swap, others, text.tokens), good=~swap, counts=is_answer))
    return result


def read_marked(file: Path, tokenizer: Any) -> list[Marked]:
    """Return the marked answers of a file; none if its first line has no `answer`.

    A line is JSON: `prompt`, `answer`, and `wrong_from`, the number of characters of the answer before its first
    mistake, if it has one. The token with that character is wrong, and what follows does not count.

    Raises:
        PromptError: a line has another form.
    """
    result: list[Marked] = []
    check_regular(file)
    if file.suffix.lower() != ".jsonl":
        return result
    try:
        with file.open("rb") as opened:
            lines = read_text(opened, file).split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise PromptError(f"cannot read {file}: {reason_of(e)}; give JSON lines in UTF-8") from e
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except ValueError as e:
            raise PromptError(f"{file}, line {number}: {e}; give JSON lines") from e
        if not result and not (isinstance(data, dict) and "answer" in data):
            return []
        result.append(_marked(data, tokenizer, f"{file}, line {number}"))
    return result


def _marked(data: Any, tokenizer: Any, where: str) -> Marked:
    """Make the marks of one line."""
    wrong = data.get("wrong_from") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not all(isinstance(data.get(name), str) for name in LABELS):
        raise PromptError(f"{where}: expected a prompt and an answer, both text")
    if wrong is not None and (type(wrong) is not int or not 0 <= wrong < len(data["answer"])):
        raise PromptError(f"{where}: wrong_from is {wrong!r}; give a number of characters of the answer, from 0 on")
    prompt = encode(data["prompt"], tokenizer)
    with quiet():  # see `encode`
        answer = tokenizer(data["answer"], add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = answer["input_ids"], answer["offset_mapping"]
    first = len(ids) if wrong is None else next(i for i, (_, end) in enumerate(offsets) if end > wrong)
    tokens = torch.tensor([*prompt, *ids])
    places = torch.arange(len(tokens)) - len(prompt)
    return Marked(tokens=tokens, good=places < first, counts=(places >= 0) & (places <= first))


@torch.no_grad()
def judged_rows(model: PreTrainedModel, texts: Sequence[Marked]) -> tuple[Tensor, Tensor]:
    """Return the states that the model's last product reads after tokens that count, [N, D], and their marks, [N]."""
    model.set_attn_implementation("sdpa")
    layers, states = len(layers_of(model)), []
    for text in texts:
        with tapped(model, (layers,)) as values:
            model(input_ids=text.tokens[None], use_cache=False)
        states.append(values["final"][0][text.counts].float())
    return torch.cat(states), torch.cat([text.good[text.counts] for text in texts])


def fit(states: Tensor, good: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a linear layer: the weight [1, D] and the bias [1] of the logit that a token is good."""
    mean, scale = states.mean(0), states.std(0).clamp(min=1e-6)
    rows, labels = (states - mean) / scale, good.float()
    share = labels.mean().clamp(1e-6, 1 - 1e-6)
    weights = torch.where(good, 0.5 / share, 0.5 / (1 - share))
    weight, bias = torch.zeros(rows.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(rows @ weight + bias, labels, weights)
        total = loss + DECAY * weight.pow(2).sum()
        torch.autograd.backward(total)
        return float(total.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]  # torch has no types here
    own = (weight / scale).detach()
    return own[None], (bias - own @ mean).detach()


def auc(scores: Tensor, good: Tensor) -> float:
    """Return how often a good token has a higher score than a wrong one; of equals, half."""
    right, wrong = scores[good], scores[~good].sort().values
    below = torch.searchsorted(wrong, right, right=False)
    up_to = torch.searchsorted(wrong, right, right=True)
    return float((below + up_to).float().mean() / 2 / max(1, len(wrong)))


def fitting(marked: Marked, text: RecordingOptions) -> Marked:
    """Return a marked answer as far as it fits the positions, with its prompt."""
    places = kept_places(len(marked.tokens), int(marked.counts.int().argmax()), text)
    return Marked(tokens=marked.tokens[places], good=marked.good[places], counts=marked.counts[places])


def split(texts: Sequence[Marked], held_out: int, seed: int) -> tuple[list[Marked], list[Marked]]:
    """Return the texts to train on and those to measure on, a fifth of all at most."""
    order = list(texts)
    random.Random(seed).shuffle(order)
    count = held_out_count(held_out, len(order), "marked answers")
    return order[count:], order[:count]
