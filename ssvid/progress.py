"""Long work says how far it has come: what is told, by whom, how often."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from ssvid.ranks import global_rank

Say = Callable[[str], None]


def tenths(say: Say, what: str) -> Callable[[int, int], None]:
    """Say about ten times how far it has come."""
    told = -1
    started = time.perf_counter()

    def progress(done: int, total: int) -> None:
        nonlocal told
        if done * 10 // max(total, 1) > told:
            told = done * 10 // max(total, 1)
            say(f"{what}: {done}/{total} ({time.perf_counter() - started:.0f} s)")

    return progress


def _index_progress(say: Say) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, path: str) -> None:
        if done == total or done % max(1, total // 10) == 0:
            say(f"scanning videos: {done}/{total}")

    return progress


def speaker(show: bool) -> Say:
    def say(text: str) -> None:
        if show and global_rank() == 0:
            print(text, file=sys.stderr, flush=True)

    return say
