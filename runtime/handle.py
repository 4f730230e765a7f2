"""A handle: a submitted request as its reader sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Self

from .stats import Stats
from .stream import Generation
from .submission import Submission


class Handle:
    """A submitted request: an iterator over pieces of its text, for `for` and for `async for`.

    A request that is far ahead of its reader pauses, and may lose its turn to others. `result` reads all of it.
    A request that nobody reads on keeps its place in the queue: a `with` or `async with` block cancels it at its end,
    `cancel` does so at once, and a deadline at its time. Any thread may use a handle.

    Attributes:
        submission: the request as the scheduler sees it.
    """

    def __init__(self, submission: Submission) -> None:
        self.submission = submission

    def __repr__(self) -> str:
        tokens = len(self.token_ids)
        return f"<Handle: recipe {self.stats.recipe}, {self.state}, {tokens} token{'' if tokens == 1 else 's'}>"

    @property
    def token_ids(self) -> list[int]:
        """The new tokens so far."""
        return self.submission.stream.token_ids

    @property
    def stats(self) -> Stats:
        """Counts and times of the request so far."""
        return self.submission.stream.stats

    @property
    def prompt_tokens(self) -> int:
        """The number of tokens of the prompt."""
        return self.submission.stream.prompt_tokens

    @property
    def finish_reason(self) -> str | None:
        """`eos`, `stop`, `length`, `cancelled` or `error`; None while the answer goes on."""
        return self.submission.finish_reason

    @property
    def state(self) -> str:
        """`waiting` for its turn, `running`, or `paused` until somebody reads; the finish reason after the end."""
        if self.submission.finish_reason is not None:
            return self.submission.finish_reason
        if self.submission.paused:
            return "paused"
        return "running" if self.submission.running else "waiting"

    def cancel(self) -> None:
        """End the request after the step that runs. What it has answered stays. One that has ended stays as it is.

        A long prompt is read in several steps, of one call each.
        """
        self.submission.cancel()

    def result(self, timeout: float | None = None) -> Generation:
        """Wait for the end, and return the whole answer. A cancelled one has the text until then.

        Args:
            timeout: seconds to wait; None waits for ever.

        Raises:
            PromptError: the timeout is no number, or negative, or not finite.
            TimeoutError: the answer is not whole in time. The request goes on.
            SpeccError: the request failed.
        """
        return self.submission.result(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Cancel the request if it has not ended."""
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        """Cancel the request if it has not ended."""
        self.cancel()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = self.submission.take()
        if piece is None:
            raise StopIteration
        return piece

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        piece = await self.submission.take_async()
        if piece is None:
            raise StopAsyncIteration
        return piece
