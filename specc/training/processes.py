"""Processes that train together, one a GPU: each has its share of the text, and all have the same weights.

`torchrun` starts them, or another launcher that sets its environment variables. Each process computes the gradients of
its own batches, and all take the mean. So an update of N processes is one of N times as many batches in a process
alone, but for the rounding of sums. All processes read and write one work folder. The first one writes what is not
shared out: checkpoints, the output and what the user sees.

Without such a launcher there is one process, and all functions here give back what they got.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous

from specc.runtime.environment import threads
from specc.runtime.errors import HeadError, first_line

T = TypeVar("T")
PATIENCE = timedelta(days=1)  # A process may record for hours longer than the others.
JOINING = timedelta(minutes=3)  # in which all processes must have come
POLL = 0.05  # seconds
LARGEST_PORT = 65535
REMEDY = "start the training with torchrun, which sets its variables, or unset WORLD_SIZE"
NUMBERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")
VARIABLES = (*NUMBERS, "MASTER_ADDR")  # of the environment, that torchrun sets


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place of this process among those that train together.

    Attributes:
        number: of this process, from 0.
        number_here: of this process among those of its machine, from 0.
        count: the processes.
        count_here: those of this machine.
    """

    number: int
    number_here: int
    count: int
    count_here: int


def place() -> Place | None:
    """Return this process's place, as a launcher said it; None if the process was started alone.

    Raises:
        HeadError: some variables of a launcher are missing, or have values that cannot be.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    if missing := [name for name in VARIABLES if not os.environ.get(name)]:
        raise HeadError(f"{', '.join(missing)} not set, but other variables of torchrun are; {REMEDY}")
    numbers = {name: _number(name) for name in NUMBERS}
    count = numbers["WORLD_SIZE"]
    count_here = _number("LOCAL_WORLD_SIZE") if os.environ.get("LOCAL_WORLD_SIZE") else count
    if not (numbers["RANK"] < count and numbers["LOCAL_RANK"] < count_here <= count):
        raise HeadError(
            f"RANK {numbers['RANK']}, LOCAL_RANK {numbers['LOCAL_RANK']} and WORLD_SIZE {count} do not fit together; "
            f"{REMEDY}"
        )
    return Place(number=numbers["RANK"], number_here=numbers["LOCAL_RANK"], count=count, count_here=count_here)


def _number(name: str) -> int:
    """Return the number in a variable of the environment. Raises HeadError if it is none that can be."""
    text = os.environ[name]
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(LARGEST_PORT)) and int(text) <= LARGEST_PORT):
        raise HeadError(f"{name} is {text!r}, and a number up to {LARGEST_PORT} is needed; {REMEDY}")
    return int(text)


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the processes that were started together.

    Args:
        device: of this process. GPUs talk by NCCL, processors by Gloo.

    Raises:
        HeadError: not all of them have come in time.
    """
    ours = place()
    if ours is None:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store = _meet(ours)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=ours.number, world_size=ours.count, timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _meet(ours: Place) -> Any:
    """Wait until all processes have come. Return the store by which they talk first."""
    deadline = time.monotonic() + JOINING.total_seconds()
    try:
        store, _, _ = next(rendezvous("env://", ours.number, ours.count, timeout=JOINING))
        store.set(f"specc-{ours.number}", "here")
        others = [f"specc-{number}" for number in range(ours.count)]
        while missing := [name for name in others if not store.check([name])]:
            if time.monotonic() > deadline:
                raise HeadError(f"{len(missing)} of {ours.count} processes have not come; {REMEDY}")
            time.sleep(POLL)
    except RuntimeError as e:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise HeadError(f"cannot meet the other processes at {where} ({first_line(e)}); {REMEDY}") from e
    return store


def use_threads() -> None:
    """Give torch the threads of this machine that fall to this process."""
    ours = place()
    torch.set_num_threads(max(1, threads() // (ours.count_here if ours else 1)))


def count() -> int:
    """Return the number of processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def number() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def command(line: str) -> str:
    """Return the command that starts this training again, with its number of processes.

    Args:
        line: the command line of this process, from `specc` on.
    """
    return line if count() == 1 else f"torchrun --nproc-per-node {count()} -m {line}"


def is_first() -> bool:
    """Tell whether this process writes and shows what is not shared out."""
    return number() == 0


def wait() -> None:
    """Wait until all processes are here."""
    if count() > 1:
        _exchange(None)


def once(action: Callable[[], object]) -> None:
    """Let the first process do something while the others wait."""
    if is_first():
        action()
    wait()


def share(items: Iterable[T]) -> list[T]:
    """Return each item that falls to this process, if they are dealt out in turns."""
    return [item for index, item in enumerate(items) if index % count() == number()]


def gather(results: Sequence[T]) -> list[T]:
    """Return the results of all processes in the order in which `share` dealt the items out."""
    if count() == 1:
        return list(results)
    parts = _exchange(list(results))
    longest = max(map(len, parts))
    return [part[index] for index in range(longest) for part in parts if index < len(part)]


def agree(value: T) -> T:
    """Return the first process's value, which all then have."""
    first: T = _exchange(value)[0] if count() > 1 else value
    return first


def mean(tensor: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes."""
    if count() == 1:
        return tensor
    total = tensor.clone()
    with _together():
        distributed.all_reduce(total)
    return total / count()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Put the mean over all processes in the place of each gradient.

    A gradient that is missing in some processes counts as zero there. One that is missing in all stays so.
    """
    if count() == 1:
        return
    weights = [parameter for parameter in parameters if parameter.requires_grad]
    shares = mean(torch.tensor([one.grad is not None for one in weights], dtype=torch.float32)).tolist()
    with_gradient = [one for one, share_of_processes in zip(weights, shares, strict=True) if share_of_processes > 0]
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in with_gradient]
    means = mean(torch.cat([gradient.flatten() for gradient in gradients]))
    for one, gradient in zip(with_gradient, torch.split(means, [one.numel() for one in with_gradient]), strict=True):
        one.grad = gradient.view_as(one)


def take_weights_of_first(module: nn.Module) -> None:
    """Give all processes the first one's weights. Those of a start in closed form may differ in their last bits."""
    if count() > 1:
        with _together():
            for tensor in (*module.parameters(), *module.buffers()):
                distributed.broadcast(tensor.data, 0)


def check_alone(what: str) -> None:
    """Refuse to run in several processes.

    Raises:
        HeadError: there are several.
    """
    if count() > 1:
        raise HeadError(f"{what} runs in one process; start it without torchrun")


def _exchange(value: Any) -> list[Any]:
    """Return the values of all processes. They are pickled by this program, and no file is read."""
    values: list[Any] = [None] * count()
    with _together():
        distributed.all_gather_object(values, value)
    return values


@contextmanager
def _together() -> Iterator[None]:
    """Say in one line that another process has ended. Raises HeadError."""
    try:
        yield
    except RuntimeError as e:  # Gloo and NCCL raise it if a process is gone.
        raise HeadError(
            "another process of this training has ended, for a reason that it has printed itself; the same command "
            "goes on from the last checkpoint"
        ) from e
