"""What all processes of a launcher must take alike before they are joined: the name of a new run folder, say."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from ssvid.errors import RunFolderError

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
    import torch.distributed as dist

    if not _kept:
        _kept.append(next(iter(dist.rendezvous("env://")))[0])
    return _kept[0]


def _over_store(key: str, choose: Callable[[], str]) -> str:
    store = _store()
    if int(os.environ["RANK"]) == 0 and not store.check([key]):
        store.set(key, choose())
    return bytes(store.get(key)).decode()
