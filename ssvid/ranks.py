"""Processes that share work: who this one is, what all must take alike, how work is shared out, and which device each uses.

Of shared work each item is done by one process, once, and everybody gets all results. Nothing is padded: a prime number of
videos is shared out unevenly. Results are keyed by position, so that they do not depend on who did what.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from ssvid.errors import RunFolderError, SsvidError, did_you_mean
from ssvid.machine import num_cores

T = TypeVar("T")

_SHARED: ContextVar[bool] = ContextVar("ssvid_work_is_shared", default=False)


def global_rank() -> int:
    """This process's rank as its launcher set it; 0 where there is no launcher."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that a launcher or Lightning started."""
    return global_rank() == 0


# ---- work that is shared out


@contextmanager
def over_ranks() -> Iterator[None]:
    """Within it, work is shared among the processes of the group, and all of them must come by.

    Outside of it every process does all it is asked for, group or no group: an evaluation that one rank does alone,
    while the others wait, must not wait for them.
    """
    token = _SHARED.set(True)
    try:
        yield
    finally:
        _SHARED.reset(token)


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the processes that a launcher started (``torchrun``) and share the work among them; alone nothing happens.

    Yields:
        The device of this process: the GPU of its number where ``device`` is ``cuda``.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        with over_ranks():
            yield device
    finally:
        dist.destroy_process_group()


def ranks() -> tuple[int, int]:
    """This process's number and how many share the work: (0, 1) outside of ``over_ranks`` or without a group."""
    if not _SHARED.get() or not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def share_work(num: int, work: Callable[[Sequence[int]], Mapping[int, T]]) -> dict[int, T]:
    """The result of each of ``num`` items: every process does its share, and all of them get all results.

    Args:
        work: called once, with the positions that this process does, ascending; returns a result for each of them.

    Raises:
        SsvidError: the work failed on another process (on the one where it failed: what it raised), or an item was done
            twice or by nobody.
    """
    rank, world = ranks()
    if world == 1:
        return _joined([work(range(num))], num)
    mine: Mapping[int, T] = {}
    failure: Exception | None = None
    try:
        mine = work(range(rank, num, world))
    except Exception as error:  # told to the others first: they would wait for this rank for ever
        failure = error
    parts = _from_all((dict(mine), None if failure is None else f"{type(failure).__name__}: {failure}"))
    if failure is not None:
        raise failure
    for other, (_, text) in enumerate(parts):
        if text is not None:
            raise SsvidError(f"process {other} of {world} could not do its share. {text}")
    return _joined([part for part, _ in parts], num)


def where_all_agree(values: np.ndarray) -> np.ndarray:
    """Where it is true on every process that shares the work."""
    return np.logical_and.reduce(_from_all(values)) if ranks()[1] > 1 else values


def from_first(make: Callable[[], T]) -> T:
    """What ``make`` returns on the first process, on all of them; the others do not call it."""
    rank, world = ranks()
    if world == 1:
        return make()
    held: list[Any] = [make() if rank == 0 else None]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def share_buffers(module: nn.Module) -> None:
    """Give all processes the first one's buffers: in data-parallel training each has batch statistics of its own."""
    if ranks()[1] > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def rows_of_all(rows: torch.Tensor) -> torch.Tensor:
    """The rows of all processes that train together, by rank, as many on each; alone, these.

    With a gradient: a row gets what the losses of all processes ask of it. With each loss a mean over its own rows and
    gradients averaged over processes, as data-parallel training does, it is that of the mean over all rows.
    """
    return rows if num_training() == 1 else _RowsOfAll.apply(rows)  # type: ignore[no-any-return,no-untyped-call]


def mean_of_all(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over all processes that train together; alone, itself. With a gradient, as ``rows_of_all``."""
    return values if num_training() == 1 else _MeanOfAll.apply(values)  # type: ignore[no-any-return,no-untyped-call]


def num_training() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _RowsOfAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(num_training())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(num_training())[dist.get_rank()]


class _MeanOfAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        return _mean_over_processes(values)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return _mean_over_processes(gradients[0])


def _mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / num_training()


def _from_all(value: Any) -> list[Any]:
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, value)
    return parts


def _joined(parts: Sequence[Mapping[int, T]], num: int) -> dict[int, T]:
    joined: dict[int, T] = {}
    for part in parts:
        joined |= part
    done = sum(len(part) for part in parts)
    if sorted(joined) != list(range(num)) or done != num:
        raise SsvidError(f"{done} results of {len(joined)} items came back, and {num} items were to be done once each.")
    return {position: joined[position] for position in range(num)}


# ---- what all processes of a launcher take alike


# Lightning starts the other processes of a machine itself, as children with the environment of the first.
_INHERITED, _DONE = "SSVID_AGREED_", "done"
_kept: list[Any] = []  # the store lives as long as the process: the others read from it


def agreed(name: str, choose: Callable[[], str]) -> str:
    """What the first process chose, on all of them; a command that its launcher started again takes what it had.

    Raises:
        RunFolderError: the launcher (srun) gives the processes no place to meet.
    """
    key = _INHERITED + name
    if _is_launched():
        return _over_store(key, choose)
    if int(os.environ.get("LOCAL_RANK") or 0) > 0 and key in os.environ:
        return os.environ[key]
    if int(os.environ.get("SLURM_PROCID") or 0) > 0:
        raise RunFolderError("several processes of srun need one run folder. Name it with --run-dir.")
    os.environ[key] = choose()
    return os.environ[key]


def _is_launched() -> bool:
    """Whether torchrun, or a launcher like it, told this process where to meet the others."""
    told = all(os.environ.get(name) for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"))
    return told and int(os.environ.get("WORLD_SIZE") or 1) > 1


def num_restarts() -> int:
    """How often a launcher (torchrun, SLURM) has started this command again, as it stood."""
    return max(int(os.environ.get(name) or 0) for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


def meet_anew() -> None:
    """Take another place to meet after torchrun started the processes again.

    torchrun's own store outlives an attempt: the new processes would find the addresses of the dead ones in it, and the
    first restart fails (seen with torch 2.15 and gloo).
    """
    if not (_is_launched() and num_restarts() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"):
        return
    store, key = _store(), f"{_INHERITED}port {num_restarts()}"
    if int(os.environ["RANK"]) == 0:
        with socket.socket() as free:
            free.bind(("", 0))
            store.set(key, str(free.getsockname()[1]))
    os.environ |= {"MASTER_PORT": bytes(store.get(key)).decode(), "TORCHELASTIC_USE_AGENT_STORE": "False"}


def done_by_first(name: str, work: Callable[[], None]) -> None:
    """Let the first process do it; the others wait, for days where it takes days.

    Raises:
        RunFolderError: on the others, where the first one could not do it.
    """
    if not _is_launched():
        work()
        return
    store, key = _store(), f"{_INHERITED}{name} {num_restarts()}"
    if int(os.environ["RANK"]) == 0:
        try:
            work()
        except BaseException as error:
            store.set(key, f"{type(error).__name__}: {error}")
            raise
        store.set(key, _DONE)
        return
    store.wait([key], timedelta(days=30))
    if (told := bytes(store.get(key)).decode()) != _DONE:
        raise RunFolderError(f"process 0 could not do what the others wait for. {told}")


def without_launcher() -> dict[str, str]:
    """This process's environment without what a launcher put there: a process started with it is alone."""
    launched = ("RANK", "LOCAL_", "WORLD_SIZE", "NODE_RANK", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_", "SLURM_")
    return {name: value for name, value in os.environ.items() if not name.startswith((*launched, _INHERITED))}


def _store() -> Any:
    if not _kept:
        _kept.append(next(iter(dist.rendezvous("env://")))[0])
    return _kept[0]


def _over_store(key: str, choose: Callable[[], str]) -> str:
    store = _store()
    if int(os.environ["RANK"]) == 0 and not store.check([key]):
        store.set(key, choose())
    return bytes(store.get(key)).decode()


# ---- devices and threads


DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(device: str = "auto") -> str:
    """The device to use: ``auto`` is a CUDA GPU where there is one, else the CPU. ``cuda:1`` is the second GPU.

    Raises:
        SsvidError: no device has that name, or this machine or this torch has none of it.
    """
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
    with threads_kept() as threads:
        if device == "cpu":
            torch.set_num_threads(max(1, min(threads, num_cores() - workers)))
        yield


@contextmanager
def joined_processes(device: str) -> Iterator[tuple[str, bool]]:
    """Share an evaluation among the processes that ``torchrun`` started: each reads its part of the videos.

    Yields:
        This process's device, and whether it is the first one, which tells the result.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield device, True
        return
    meet_anew()
    with joined(resolve_device(device)) as own:
        yield own, ranks()[0] == 0
