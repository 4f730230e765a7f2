"""Start the peers of a benchmark: find the model's files, keep what peers make from them, report what fails."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from specc import machine
from specc.bench.peers import Job, Peer, PeerOutcome
from specc.runtime.bundle import Bundle
from specc.runtime.disk_cache import cache_directory
from specc.runtime.errors import BackendError
from specc.runtime.stamps import stamp


@dataclass(frozen=True, kw_only=True)
class PeerOptions:
    """The user's choice of peers and of their models.

    Attributes:
        names: the peers to run.
        model: the directory of the original model. None takes the one that the bundle was compiled from.
        assistant: the directory of a draft model, for the peers that take one.
        pythons: the interpreter of a peer, by its name.
        models: the model in a peer's own form, by the peer's name.
    """

    names: Sequence[str] = ()
    model: str | None = None
    assistant: str | None = None
    pythons: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)


def start_peer(
    name: str, options: PeerOptions, bundle: Bundle, prompt: Sequence[int], stack: ExitStack
) -> tuple[PeerOutcome, Peer | None]:
    """Start a peer on the model that a bundle was compiled from.

    Args:
        name: the name of the peer.
        options: where its model and its interpreter are.
        bundle: the bundle that the peer is compared with.
        prompt: token ids of a prompt on which each mode is tried.
        stack: ends the peer's process and removes its temporary files when it closes.

    Returns:
        The outcome until now, and the peer if it runs.
    """
    python = options.pythons.get(name)
    try:
        model = options.models.get(name) or _directory(options.model or bundle.manifest.model.source)
        assistant = _directory(options.assistant) if options.assistant else None
        dtype = bundle.engine("decode").block.weights
        job = Job(
            model=model,
            assistant=assistant,
            dtype=dtype,
            threads=machine.describe().threads,
            context=bundle.manifest.model.context,
            work=_work_directory(stack, (name, model, assistant, dtype, python)),
            ids=list(prompt),
        )
        peer = Peer(name, job, python)
    except BackendError as e:
        return PeerOutcome(name=name, problem=str(e)), None
    stack.callback(peer.close)
    return PeerOutcome(name=name, version=peer.version, modes=list(peer.modes), failed=peer.failed), peer


def _directory(model: str) -> str:
    """Find the directory of a model on this machine, or bring it from the hub.

    Raises:
        BackendError: the model is neither here nor on the hub.
    """
    if Path(model).is_dir():
        return str(Path(model).resolve())
    try:
        from huggingface_hub import snapshot_download

        return str(snapshot_download(model))
    except Exception as e:  # A missing package, a wrong name and a lost network have no common class.
        raise BackendError(f"the model {model} is not on this machine; name its directory with --model DIR") from e


def _work_directory(stack: ExitStack, facts: Iterable[str | None]) -> str:
    """Return a directory for the files that a peer makes from exactly these models.

    It is kept in the user's cache, or lasts until the stack closes if there is no cache.

    Args:
        stack: removes a temporary directory when it closes.
        facts: everything that the files depend on. Names of directories stand for the files in them.
    """
    facts = tuple(facts)
    directories = [Path(fact) for fact in facts if fact and Path(fact).is_dir()]
    files = sorted(file for directory in directories for file in directory.iterdir() if file.is_file())
    key = repr((facts, [(str(file), stamp(file)) for file in files]))
    try:
        return str(cache_directory("peers", hashlib.sha256(key.encode()).hexdigest()[:32]))
    except OSError:
        return stack.enter_context(tempfile.TemporaryDirectory())
