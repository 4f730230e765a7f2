"""What all requests of a loaded bundle share."""

from __future__ import annotations

from typing import Self

from .bundle import Bundle
from .checked_files import check_once
from .device import CPU, Device
from .engines import Engines
from .engines.memory import trim
from .guard import Guard
from .lanes import FairLock, Lanes
from .method import RunnableMethod
from .recipe import Recipe
from .text import Text
from .width_invariance import is_width_invariant


class Shared:
    """The engines, the tokenizer and the drafters of a bundle, and the lanes that requests run in.

    Attributes:
        bundle: the bundle.
        engines: the engines. Each is loaded by the first request that needs it.
        text: the tokenizer and the chat template.
        lanes: the caches of conversations and requests.
        lock: held while engines run.
        drafters: the drafters in use, each under its guard, by `RunnableMethod.key`.
    """

    def __init__(self, bundle: Bundle, device: Device = CPU) -> None:
        """Check the bundle, and make the first lane.

        Args:
            bundle: the bundle.
            device: where the engines run.

        Raises:
            BundleError: a file was altered.
            BackendError: no backend of the bundle runs on the device, or the caches do not fit.
        """
        self.bundle = bundle
        self.engines = Engines(bundle, device, check_once(bundle))
        self.text = Text(bundle)
        trim()  # To read the tokenizer takes far more memory than to keep it, and malloc would keep that too.
        self.lanes = Lanes(self.engines, is_width_invariant(bundle.manifest, self.engines.backend))
        self.lock = FairLock()
        self.drafters: dict[tuple[str, ...], Guard] = {}

    def close(self) -> None:
        """Free the engines and the caches. Requests that have not ended raise a SpeccError at their next step."""
        if self.engines.forked:
            return
        with self.lock:
            self.engines.close()
            self.drafters.clear()
            self.lanes.drop()
            trim()  # Engines are freed in many parts, which malloc would keep.

    def leave_to_parent(self) -> None:
        """Refuse every use, in the child of a fork at which a thread of the parent was using the engines."""
        self.engines.leave_to_parent()
        self.lock.reset()

    def guarded_drafter(self, method: RunnableMethod) -> Guard:
        """Return a method's drafter under its guard. Both last, with what they learned."""
        self.engines.load(*method.recipe.engine_names)
        if method.key not in self.drafters:
            engines = {role: self.engines[name] for role, name in method.recipe.engines.items()}
            self.drafters[method.key] = Guard(method.make_drafter(engines, self.bundle.file))
        return self.drafters[method.key]

    def release(self, recipe: Recipe, keep: Recipe) -> None:
        """Unload what `recipe` uses and `keep` does not, drafters and engines. They load again on demand."""
        with self.lock:
            self.drafters = {key: drafter for key, drafter in self.drafters.items() if key[0] != recipe.name}
            self.engines.release(*set(recipe.engine_names).difference(keep.engine_names))


class UsesShared:
    """A context manager over what requests share: a model or one of its sessions.

    Attributes:
        shared: what the requests share.
    """

    shared: Shared

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Free what belongs to this object alone."""
        raise NotImplementedError

    @property
    def bundle(self) -> Bundle:
        """The bundle."""
        return self.shared.bundle

    @property
    def engines(self) -> Engines:
        """The engines."""
        return self.shared.engines

    @property
    def text(self) -> Text:
        """The tokenizer and the chat template."""
        return self.shared.text
