"""Evaluation on several processes: each item is done by one of them, once, and everybody gets all results.

Nothing is padded: a prime number of videos is shared out unevenly. Results are keyed by position, so that they do not
depend on who did what.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from ssvid.errors import SsvidError

T = TypeVar("T")

_SHARED: ContextVar[bool] = ContextVar("ssvid_work_is_shared", default=False)


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


def all_agree(value: bool) -> bool:
    """Whether it is true on every process that shares the work."""
    return all(_from_all(value)) if ranks()[1] > 1 else value


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
