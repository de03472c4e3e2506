"""Signs of life: whoever works through a file tells whoever waits for it that it gets on.

A scan runs in a process that may be killed (``ssvid.data.index.processes``). It is killed when nothing moves, not when it is
slow, so everything here that reads a file calls ``beat`` for each packet or block that it has got through. One listener
per process, because a decoder is called from far inside and hands nothing through.
"""

from __future__ import annotations

from collections.abc import Callable

_listener: Callable[[float], None] | None = None


def listen(listener: Callable[[float], None] | None) -> None:
    """Have ``beat`` call this function; None switches it off."""
    global _listener
    _listener = listener


def beat(quiet_seconds: float = 0.0) -> None:
    """A packet, a frame or a block is done.

    Args:
        quiet_seconds: what comes next gives no sign before it is done, and may well take so long.
    """
    if _listener is not None:
        _listener(quiet_seconds)
