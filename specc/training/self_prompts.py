"""Prompts that the model writes itself: a user's turn, sampled behind the chat template's beginning of one.

This is Magpie (Xu et al. 2024, arXiv:2406.08464), which found that a model that was tuned on conversations also writes
the user's side. It departs from the paper in three points: openings give some turns their first words, tokens come from
the 50 likeliest, and no judge but simple rules filters the turns. A model without a chat template writes on from its
beginning-of-text token.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from specc.training import processes
from specc.training.answers import answer
from specc.training.lanes import lanes_that_fit
from specc.training.positions import positions_of
from specc.training.prompts import MARK
from specc.training.whole_file import write_whole

OPENINGS = Path(__file__).with_name("self_prompts.json")
LANES = 192  # turns that are written at once at most
BEGINNING = 64  # tokens before a turn, about: the chat template's
TOKENS = 128  # the largest number of tokens of a turn, its opening not counted
TEMPERATURE = 1.0
SPARE = 2.0  # times as many turns are sampled, at most, as are asked for
SHORTEST = 3  # words of a prompt
LEAST = 8  # tokens of a turn that the positions must leave behind its opening
SHINGLE = 3  # words that are compared together
DIFFERENT = 0.5  # of a prompt's shingles must be different ones
ALIKE = 0.5  # shingles that two prompts share, of all that they have: more, and one is a copy of the other
SENTENCE = re.compile(r"[.!?:;\"')\]](?=\s|$)|\n")  # where a turn that did not end is cut


@dataclass(frozen=True)
class Start:
    """The beginning of a user's turn.

    Attributes:
        tokens: what the model sees.
        opening: the first words of the turn.
    """

    tokens: list[int]
    opening: str


def self_prompts(
    model: PreTrainedModel,
    tokenizer: Any,
    *,
    count: int,
    seed: int,
    digest: str,
    ends: Sequence[int],
    directory: Path,
    advance: Callable[[int], None] = lambda prompts: None,
) -> list[str]:
    """Let a model write prompts. Batches that are on disk are not written again.

    Args:
        model: the model, in the type in which it shall compute.
        tokenizer: of transformers.
        count: the number of prompts. Fewer are returned if too many are refused.
        seed: of the openings and the samples.
        digest: of the model's weights.
        ends: the tokens that end a text.
        directory: where the batches go.
        advance: called with the number of prompts after each batch.
    """
    stops = sorted({*ends, *_turn_end(tokenizer)})
    filtered = Filter()
    rng = random.Random(seed)
    lanes = lanes_that_fit(model, TOKENS + BEGINNING, 0, LANES)
    numbers = iter(range(-(-int(SPARE * count) // lanes)))
    while len(filtered.prompts) < count and (together := list(itertools.islice(numbers, processes.count()))):
        ours, turns = processes.share(together), []
        for number in together:
            starts = [_start(tokenizer, rng) for _ in range(min(lanes, int(SPARE * count)))]
            if number in ours:
                file = directory / f"prompts-{number:04}.json"
                turns.append(_turns(file, model, tokenizer, starts, stops, digest, seed * 100003 + number))
        for text in itertools.chain.from_iterable(processes.gather(turns)):
            filtered.add(text)
        advance(min(count, len(filtered.prompts)))
    return filtered.prompts[:count]


def _turn_end(tokenizer: Any) -> list[int]:
    """Return the token that ends a user's turn in the chat template, if it has one."""
    if not getattr(tokenizer, "chat_template", None):
        return []
    _, suffix = _around(tokenizer, None)
    return list(tokenizer(suffix, add_special_tokens=False)["input_ids"][:1])


def _around(tokenizer: Any, system: str | None) -> tuple[str, str]:
    """Return what the chat template puts before a user's words, and behind them."""
    messages = [{"role": "user", "content": MARK}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    try:
        text: str = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except Exception:  # some templates refuse a system message, with errors of jinja2 and others
        if system is None:
            raise
        return _around(tokenizer, None)
    before, _, behind = text.partition(MARK)
    return before, behind


def _start(tokenizer: Any, rng: random.Random) -> Start:
    """Choose the beginning of a turn."""
    roles = json.loads(OPENINGS.read_text(encoding="utf-8"))["roles"]
    if not getattr(tokenizer, "chat_template", None):
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        return Start([first or 0], "")
    role = rng.choice(roles)
    opening = rng.choice(role["openings"])
    before, _ = _around(tokenizer, role["system"])
    tokens: list[int] = tokenizer(before + opening, add_special_tokens=False)["input_ids"]
    return Start(tokens, opening)


def _turns(
    file: Path,
    model: PreTrainedModel,
    tokenizer: Any,
    starts: Sequence[Start],
    stops: Sequence[int],
    digest: str,
    seed: int,
) -> list[str]:
    """Return the turns of one batch, from its file if it is there."""
    positions = positions_of(model)
    if positions is not None:
        starts = [start for start in starts if len(start.tokens) + LEAST <= positions]
    if not starts:
        return []
    tokens = [start.tokens for start in starts]
    longest = max(map(len, tokens))
    notes = {"model": digest, "seed": seed, "starts": hashlib.sha256(repr(tokens).encode()).hexdigest()[:16]}
    if file.is_file():
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            if data["notes"] == notes:
                return [str(turn) for turn in data["turns"]]
        except (ValueError, KeyError, TypeError):  # A damaged file is written again.
            pass
    order = sorted(range(len(starts)), key=lambda index: len(tokens[index]))
    written = answer(
        model,
        [tokens[index] for index in order],
        count=TOKENS if positions is None else min(TOKENS, positions - longest),
        ends=stops,
        temperatures=[TEMPERATURE] * len(order),
        seed=seed,
    )
    turns = []
    for index, text in zip(order, written, strict=True):
        new = text.tokens[text.prompt :]
        ended = new[-1] in stops
        turn = starts[index].opening + tokenizer.decode(new[: len(new) - ended], skip_special_tokens=True)
        turns.append(turn if ended else _cut(turn))
    write_whole(file, json.dumps({"notes": notes, "turns": turns}, indent=1))
    return turns


def _cut(turn: str) -> str:
    """Cut a turn that did not end behind its last sentence or line."""
    ends = [match.end() for match in SENTENCE.finditer(turn)]
    return turn[: ends[-1]] if ends else turn


class Filter:
    """A list of prompts without empty and repetitive ones, and without near copies of those before.

    Two prompts are near copies if they share most of their shingles, runs of SHINGLE words (Broder 1997, "On the
    resemblance and containment of documents").
    """

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self._shingles: list[set[str]] = []
        self._with: dict[str, list[int]] = defaultdict(list)

    def add(self, text: str) -> bool:
        """Add a prompt if it is fit. Tell whether it was."""
        text = text.strip()
        words = re.findall(r"\w+|[^\w\s]", text.lower())
        if sum(word.isalnum() for word in words) < SHORTEST or "\ufffd" in text:
            return False
        shingles = list(_shingles(words))
        different = set(shingles)
        if len(different) < DIFFERENT * len(shingles) or self._has_like(different):
            return False
        for shingle in different:
            self._with[shingle].append(len(self.prompts))
        self.prompts.append(text)
        self._shingles.append(different)
        return True

    def _has_like(self, shingles: set[str]) -> bool:
        """Tell whether a prompt before shares too many shingles."""
        shared: dict[int, int] = defaultdict(int)
        for shingle in shingles:
            for index in self._with[shingle]:
                shared[index] += 1
        return any(both > ALIKE * (len(shingles) + len(self._shingles[index]) - both) for index, both in shared.items())


def _shingles(words: Sequence[str]) -> Iterator[str]:
    size = min(SHINGLE, len(words))
    return (" ".join(words[i : i + size]) for i in range(len(words) - size + 1))
