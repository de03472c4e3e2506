"""Which device an evaluation runs on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ssvid.errors import SsvidError, did_you_mean
from ssvid.machine import num_cores

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(device: str = "auto") -> str:
    """The device to use: ``auto`` is a CUDA GPU where there is one, else the CPU. ``cuda:1`` is the second GPU.

    Raises:
        SsvidError: no device has that name, or this machine or this torch has none of it.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if count else "cpu"
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (number and (kind != "cuda" or not number.isdecimal())):
        raise SsvidError(f"device ({device!r}) is unknown. {did_you_mean(device, (*DEVICES, 'cuda:0'))}")
    if kind == "cuda" and int(number or 0) >= count:
        raise SsvidError(
            f"device ({device}) must be a GPU that torch sees, and it sees {count or 'none'}. Take --device auto or "
            "cpu; ssvid doctor tells more."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise SsvidError("device (mps) must be a GPU of Apple, and torch sees none. Take --device auto or cpu.")
    return device


@contextmanager
def threads_kept() -> Iterator[int]:
    """Give the caller's process the number of torch's threads back that it had, whatever is set inside."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


@contextmanager
def cores_for_network(device: str, workers: int) -> Iterator[None]:
    """On a CPU leave a core to each reading process.

    The network shares the cores with its reading processes: more threads than cores left makes all of them wait.
    """
    import torch

    with threads_kept() as threads:
        if device == "cpu":
            torch.set_num_threads(max(1, min(threads, num_cores() - workers)))
        yield


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that a launcher or Lightning started."""
    from ssvid.train.trainer import global_rank

    return global_rank() == 0


@contextmanager
def joined_processes(device: str) -> Iterator[tuple[str, bool]]:
    """Share an evaluation among the processes that ``torchrun`` started: each reads its part of the videos.

    Yields:
        This process's device, and whether it is the first one, which tells the result.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield device, True
        return
    from ssvid.evals.sharding import joined, ranks
    from ssvid.train.agreement import meet_anew

    meet_anew()
    with joined(resolve_device(device)) as own:
        yield own, ranks()[0] == 0
