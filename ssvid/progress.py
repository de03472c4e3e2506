"""Long work says how far it has come: what is told, by whom, how often."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

Say = Callable[[str], None]
Progress = Callable[[int, int], None]  # called with how much is done, and of how much
NamedProgress = Callable[[int, int, str], None]  # and with the name of what was done last


def every_tenth(say: Say, what: str) -> Progress:
    """Say about ten times how far it has come."""
    told = -1
    started = time.perf_counter()

    def progress(done: int, total: int) -> None:
        nonlocal told
        if done * 10 // max(total, 1) > told:
            told = done * 10 // max(total, 1)
            say(f"{what}: {done}/{total} ({time.perf_counter() - started:.0f} s)")

    return progress


def files_every_tenth(say: Say, what: str) -> NamedProgress:
    """The same of files."""

    def progress(done: int, total: int, path: str) -> None:
        if done == total or done % max(1, total // 10) == 0:
            say(f"{what}: {done}/{total}")

    return progress


def speaker(show: bool) -> Say:
    """Who tells on stderr: the first of several processes, and nobody where nothing is to be shown."""
    from ssvid.ranks import global_rank  # here, because it imports torch

    def say(text: str) -> None:
        if show and global_rank() == 0:
            print(text, file=sys.stderr, flush=True)

    return say
