"""Processors: each changes the logits of the next token before a token is chosen. One file a kind.

A request has its own processors. Plain decoding and every recipe choose by the processed logits, so a lossless recipe
gives what plain decoding gives under the same processors.

V  vocabulary
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..block import Parents
from ..errors import PromptError

if TYPE_CHECKING:
    from ..draft import Draft, Outputs
    from ..engine import Engine
    from .logprobs import Logprobs


class Processor(ABC):
    """A change of logits that depends on the tokens before.

    The text of a request consists of its prompt and its new tokens. The constructor of a processor takes the prompt,
    and `commit` takes the new tokens. The logits of a slot depend on the text and on the path of drafted tokens down to
    the slot.

    Attributes:
        option: the option of a request that asks for it, for error messages.
        looks_ahead: whether `truncate` and `forced` say more than the defaults.
    """

    option: str
    looks_ahead: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, path: Sequence[int], logits_V: np.ndarray) -> None:
        """Change the logits of the token that follows the text and `path`.

        Args:
            path: drafted tokens that follow the text.
            logits_V: [V] float32, overwritten. A token with -inf cannot be chosen.
        """

    def allows(self, path: Sequence[int], token: int) -> bool:
        """Return whether a call leaves the logit of `token` as it is and raises no other; False if that is not known.

        The likeliest token then stays the likeliest, and the call is not needed.
        """
        return False

    def likeliest(self, path: Sequence[int], logits_V: np.ndarray, token: int) -> int | None:
        """Return the argmax of the logits as a call leaves them, which may take less time than a call.

        Args:
            path: drafted tokens that follow the text.
            logits_V: [V], left as it is.
            token: its argmax.

        Returns:
            The token, or None if all logits are -inf.
        """
        if not self.allows(path, token):
            logits_V = logits_V.astype(np.float32)  # A copy.
            self(path, logits_V)
            token = int(logits_V.argmax())
        return None if logits_V[token] == -inf else token

    # B027 asks for @abstractmethod, but some processors do not depend on the text.
    def commit(self, tokens: Sequence[int]) -> None:  # noqa: B027
        """Add new tokens to the end of the text. By default a processor forgets them."""

    def truncate(self, tokens: Sequence[int]) -> int:
        """Return how many of `tokens`, which would follow the text, can be chosen one after another; at most all."""
        return len(tokens)

    def forced(self) -> Sequence[int]:
        """Return the tokens that must follow the text; empty if there is a choice."""
        return ()


class Processing:
    """What a request does with logits: its processors in order, and the log-probabilities that it asks for.

    Attributes:
        vocab_size: how many logits there are.
        processors: the processors. Each gets what the one before it left.
        logprobs: what records log-probabilities; None if the request asks for none.
        looks_ahead: whether a processor can refuse drafted tokens before they are verified, and force tokens.
        new_tokens: how many tokens the answer has.
    """

    def __init__(self, vocab_size: int, processors: Collection[Processor], logprobs: Logprobs | None = None) -> None:
        self.vocab_size = vocab_size
        self.processors, self.logprobs = tuple(processors), logprobs
        self.looks_ahead = any(processor.looks_ahead for processor in self.processors)
        self.new_tokens = 0

    def of(self, outputs: Outputs, draft: Draft) -> ProcessedDraft | None:
        """Return the processed logits of a draft's slots; None without processors."""
        return ProcessedDraft(self, outputs, draft) if self.processors else None

    def commit(self, outputs: Outputs, slots: Sequence[int], tokens: Sequence[int]) -> None:
        """Add new tokens to the text of the request.

        Args:
            outputs: the target's outputs of the step, which chose the tokens.
            slots: for each token the slot that it follows.
            tokens: the tokens.
        """
        self.new_tokens += len(tokens)
        if self.logprobs is not None:
            self.logprobs.record(outputs, slots, tokens)
        for processor in self.processors:
            processor.commit(tokens)

    def cut(self, draft: Draft, verifiers: Sequence[Engine]) -> Draft:
        """Return a draft without the tokens that no processor lets the target choose, if that saves slots.

        It saves slots if a narrower engine runs what is left, or if the engine takes any tree. An engine with a tree of
        its own costs the same whatever its slots hold.

        A token that was sampled stays although it is refused, and only what follows it goes. A rule that compares
        distributions must reject it itself, since then the next token comes from the residual.

        Args:
            draft: the draft.
            verifiers: the target's engines, narrowest first.
        """
        if not self.looks_ahead or draft.tree.slots == 1:
            return draft
        engine = next((e for e in verifiers if e.block.fits(draft.tree)), None)
        takes_any_tree = engine is not None and isinstance(engine.block.topology, Parents)
        if engine is None or (engine is verifiers[0] and not takes_any_tree):
            return draft
        slots = self.admitted(draft)
        if len(slots) == draft.tree.slots:
            return draft
        rest = draft.only(slots)
        narrower = any(e.slots < engine.slots and e.block.fits(rest.tree) for e in verifiers)
        return rest if narrower or takes_any_tree else draft

    def admitted(self, draft: Draft) -> list[int]:
        """Return the slots of a draft that the processors let a rule reach, in ascending order.

        A refused token that was sampled is among them, and what follows it is not.
        """
        slots = {0}
        for path in _paths(draft):
            tokens = [draft.tokens[slot] for slot in path]
            count = min(processor.truncate(tokens) for processor in self.processors)
            if count < len(path) and draft.tree.parents[path[count]] in draft.probs:
                count += 1
            slots.update(path[:count])
        return sorted(slots)

    def forced(self) -> Sequence[int]:
        """Return the tokens that must follow the text, by the first processor that forces some."""
        return next(filter(None, (processor.forced() for processor in self.processors)), ())


class ProcessedDraft:
    """The logits of a draft's slots as the processors of a request leave them."""

    def __init__(self, processing: Processing, outputs: Outputs, draft: Draft) -> None:
        """Keep what the logits are computed from, when they are asked for.

        Args:
            processing: the processors, one at least.
            outputs: the target's outputs for the draft.
            draft: the draft.
        """
        self.processing, self.outputs, self.draft = processing, outputs, draft

    def logits(self, slot: int) -> np.ndarray:
        """Return the logits of the token after a slot: a new array, [V] float32.

        Raises:
            PromptError: no token is left.
        """
        path, logits_V = self._path(slot), self._row(slot).astype(np.float32)  # A copy: the processors overwrite it.
        for processor in self.processing.processors:
            processor(path, logits_V)
        if logits_V.max() == -inf:
            raise self._empty(path)
        return logits_V

    def likeliest(self, slot: int) -> int:
        """Return the argmax of these logits. The last processor does not run if it allows the token that is likeliest.

        Raises:
            PromptError: no token is left.
        """
        *others, last = self.processing.processors
        path, logits_V = self._path(slot), self._row(slot)
        if others:
            logits_V = logits_V.astype(np.float32)
            for processor in others:
                processor(path, logits_V)
        token = int(logits_V.argmax()) if others else int(self.outputs.ids_N[slot])
        likeliest = last.likeliest(path, logits_V, token)
        if likeliest is None:
            raise self._empty(path)
        return likeliest

    def _row(self, slot: int) -> np.ndarray:
        assert self.outputs.logits_NV is not None
        row: np.ndarray = self.outputs.logits_NV[slot]
        return row

    def _path(self, slot: int) -> list[int]:
        """Return the tokens on the way down to `slot`, without the pending one."""
        return [self.draft.tokens[s] for s in _path(self.draft, slot)]

    def _empty(self, path: Sequence[int]) -> PromptError:
        """Return the error that no token is left after `path`."""
        options = ", ".join(processor.option for processor in self.processing.processors)
        count = self.processing.new_tokens + len(path)
        return PromptError(f"no token is left after {count} new tokens, by the options {options}; relax one")


def _path(draft: Draft, slot: int) -> list[int]:
    """Return the slots on the way down to `slot`, without slot 0."""
    slots: list[int] = []
    while slot > 0:
        slots.append(slot)
        slot = draft.tree.parents[slot]
    return slots[::-1]


def _paths(draft: Draft) -> Iterator[list[int]]:
    """Yield the path to each slot without children."""
    if draft.tree.is_chain:
        yield list(range(1, draft.tree.slots))
        return
    for slot, children in enumerate(draft.tree.children):
        if not children:
            yield _path(draft, slot)
