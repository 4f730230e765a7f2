"""A model: a loaded bundle, which serves conversations and requests from any thread."""

from __future__ import annotations

import time
from typing import Unpack

from .bundle import Bundle
from .device import CPU, Device
from .drafters import Suggestion
from .errors import PromptError
from .handle import Handle
from .request import RequestOptions, check_names
from .scheduler import Scheduler, SchedulerPolicy
from .session import Session
from .shared import Shared, UsesShared
from .stream import Generation, Stream
from .submission import Task, seconds
from .text import Prompt


class Model(UsesShared):
    """A loaded bundle. Any thread may use it.

    `generate` and `stream` go on with one conversation. `session` begins another one. `submit` lets a thread of the
    model run a request, in turns with others.

    A model is a context manager, which closes it at the end.

    Attributes:
        shared: what all requests share.
        conversation: the session of `generate` and `stream`.
    """

    def __init__(self, bundle: Bundle, device: Device = CPU, policy: SchedulerPolicy | None = None) -> None:
        """Check the bundle and make the caches of the first conversation.

        Args:
            bundle: the bundle.
            device: where the engines run.
            policy: how many submitted requests run and wait.

        Raises:
            BundleError: a file was altered.
            BackendError: no backend of the bundle runs on the device, or the caches do not fit.
        """
        self.shared = Shared(bundle, device)
        self.conversation = Session(self.shared)
        self._scheduler = Scheduler(self.shared, policy or SchedulerPolicy())

    def close(self) -> None:
        """Free the engines and the caches. Later requests, and those that have not ended, raise a SpeccError."""
        self.shared.close()
        self._scheduler.wake()

    def session(self) -> Session:
        """Begin a conversation with caches of its own.

        If the machine or the backend has no room for them, conversations share one cache and take turns on it. Then
        each switch computes rows anew.

        Raises:
            SpeccError: the model is closed.
        """
        self.engines.check_open()
        return Session(self.shared)

    def generate(
        self, prompt: Prompt, max_new_tokens: int | None = 128, **options: Unpack[RequestOptions]
    ) -> Generation:
        """Decode to the end, as `Session.generate` does, which describes the arguments."""
        check_names("Model.generate", options)
        return self.conversation.generate(prompt, max_new_tokens, **options)

    def suggest(self, prompt: Prompt, max_new_tokens: int = 10, *, recipe: str | None = None) -> list[Suggestion]:
        """Return several texts that may follow a prompt. `Session.suggest` describes the arguments."""
        return self.conversation.suggest(prompt, max_new_tokens, recipe=recipe)

    def stream(self, prompt: Prompt, max_new_tokens: int | None = 128, **options: Unpack[RequestOptions]) -> Stream:
        """Return an iterator over pieces of the answer's text, as `Session.stream` does."""
        check_names("Model.stream", options)
        return self.conversation.stream(prompt, max_new_tokens, **options)

    def submit(
        self,
        prompt: Prompt,
        max_new_tokens: int | None = 128,
        *,
        priority: int = 0,
        deadline: float | None = None,
        **options: Unpack[RequestOptions],
    ) -> Handle:
        """Let a thread of the model run a request, and return at once.

        Each request has caches of its own while it runs. If the bundle has engines with lanes, of `specc compile
        --lanes`, a step of all requests is one run of the target. Otherwise they take turns, step by step.

        Args:
            prompt: text, token ids, or messages for the model's chat template.
            max_new_tokens: tokens of the answer at most; the context may have room for fewer. None fills the context.
            priority: requests of a higher one begin first; those that run go on.
            deadline: seconds from 0 on, after which the request is cancelled; None waits for ever.
            options: those of `Session.stream`, which describes them. Where requests run together, `guard` lets the
                scheduler shorten drafts by the load.

        Returns:
            A handle on the answer.

        Raises:
            BusyError: too many requests wait already.
            PromptError: the prompt or an option is out of range.
            RecipeError: the recipe or the rule does not exist, or the two do not go together.
            SpeccError: the model is closed.
            TypeError: there is no option of such a name.
        """
        check_names("Model.submit", options, "priority", "deadline")
        session = Session(self.shared, self.shared.lanes.first, together=self._scheduler.together)
        stream = session.stream(prompt, max_new_tokens, **options)
        if type(priority) is not int:
            raise PromptError(f"priority is {priority!r}; give a whole number")
        end = None if deadline is None else time.monotonic() + seconds("deadline", deadline)
        return Handle(self._scheduler.submit(Task(session=session, stream=stream, priority=priority, deadline=end)))
