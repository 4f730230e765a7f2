"""Processes that train together, one a GPU: each has its share of the text, and all have the same weights.

`torchrun` starts them, or another launcher that sets its environment variables. Each process computes the gradients of
its own batches, and all take the mean. So an update of N processes is one of N times as many batches in a process
alone, but for the rounding of sums. All processes read and write one work folder. The first one writes what is not
shared out: checkpoints, the output and what the user sees.

Without such a launcher there is one process, and all functions here give back what they got.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from specc.runtime.environment import threads
from specc.runtime.errors import HeadError

T = TypeVar("T")
PATIENCE = timedelta(days=1)  # A process may record for hours longer than the others.
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # that torchrun sets


def number_on_machine() -> int | None:
    """Return the number of this process among those of its machine; None if it was started alone.

    Raises:
        HeadError: some variables of torchrun are set, and others are missing or no numbers.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if missing:
        raise HeadError(f"WORLD_SIZE is set and {', '.join(missing)} is not; start the training with torchrun")
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        if not os.environ[name].isdecimal():
            raise HeadError(f"{name} is {os.environ[name]!r} and no number; start the training with torchrun")
    return int(os.environ["LOCAL_RANK"])


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the processes that were started together. All wait for each other here.

    Args:
        device: of this process. GPUs talk by NCCL, processors by Gloo.
    """
    if number_on_machine() is None:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def use_threads() -> None:
    """Give torch the threads of this machine that fall to this process."""
    torch.set_num_threads(max(1, threads() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def count() -> int:
    """Return the number of processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def number() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


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
    distributed.all_gather_object(values, value)
    return values
