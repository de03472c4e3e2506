"""A request from outside to end a run soon: SIGTERM or SIGUSR1, which clusters send before they take the machine away.

The handlers note the request and nothing else: what runs goes on to the end of its optimizer step, is saved there, and ends
before the next batch. A wait for data is the one place that is left at once. What is raised there from a handler can be
swallowed, by a ``__del__`` that runs just then, for one: then it is raised again a moment later.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from ssvid.errors import SsvidError

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# Clusters kill what is still there after 10 to 90 seconds. What is not done by then (a validation, a wait) is given up.
GRACE_SECONDS = 8.0
_AGAIN_SECONDS = 0.02  # what has swallowed a request is over by then


class Stopped(SsvidError):
    """A run ended early because it was asked to, and can be resumed."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, run it again. 128 + n is for what died of a signal.


class StopNow(BaseException):
    """Leaves the training loop where nothing is half done. Not an Exception: nobody on the way may take it for theirs."""


class _Request:
    """What was asked for, and whether this is a moment to go."""

    def __init__(self) -> None:
        self.signal = ""
        self.since = 0.0
        self.is_saved = False
        self.may_leave_wait = False
        self.is_waiting = self._for_training = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        del frame
        if not self.signal:
            self.signal, self.since = signal.Signals(number).name, time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)
        self._leave_wait()

    def ring(self, number: int, frame: FrameType | None) -> None:
        """The handler of the alarm that the request has set."""
        self._leave_wait()

    def _leave_wait(self) -> None:
        if self.is_waiting and ((self._for_training and self.may_leave_wait) or self.is_overdue()):
            self.is_waiting = False
            raise StopNow

    def was_swallowed(self) -> None:
        """The wait was not left: what ran in its midst, called by the interpreter, lets no exception through."""
        self.is_waiting = True
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)

    def is_overdue(self) -> bool:
        return bool(self.signal) and time.monotonic() - self.since >= GRACE_SECONDS

    @contextlib.contextmanager
    def waiting(self, *, for_training: bool) -> Iterator[None]:
        if for_training and self.is_saved:
            raise StopNow
        self.is_waiting, self._for_training = True, for_training
        try:
            if self.signal:
                self._leave_wait()
            yield
        finally:
            self.is_waiting = False


_request = _Request()


@contextlib.contextmanager
def heeding_signals() -> Iterator[None]:
    """Note the signals that ask for an end, instead of dying of them. Only the main thread can."""
    global _request
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _request = _Request()
    handlers = dict.fromkeys(SIGNALS, _request.note) | {signal.SIGALRM: _request.ring}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    print_swallowed = sys.unraisablehook

    def ask_again(swallowed: sys.UnraisableHookArgs) -> None:
        if issubclass(swallowed.exc_type, StopNow):
            _request.was_swallowed()
        else:
            print_swallowed(swallowed)

    sys.unraisablehook = ask_again
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = print_swallowed
        _request = _Request()
        for number, handler in before.items():
            signal.signal(number, handler)


def requested() -> str:
    """The name of the signal that asked for an end; "" where none did (another process may have been asked)."""
    return _request.signal


def is_overdue() -> bool:
    """Whether the request is so old that what takes long is to be given up."""
    return _request.is_overdue()


def is_waiting() -> bool:
    """Whether a batch is being waited for."""
    return _request.is_waiting


def allow_leaving(is_allowed: bool) -> None:
    """Whether a wait for data may be left at once: between two steps of a run that has one process."""
    _request.may_leave_wait = is_allowed


def may_leave() -> bool:
    """What ``allow_leaving`` said last."""
    return _request.may_leave_wait


def set_saved() -> None:
    """All processes have saved the step that is done: the next wait for a batch to train on ends the run."""
    _request.is_saved = True


def waiting(*, for_training: bool) -> contextlib.AbstractContextManager[None]:
    """Around a wait for data: where a request comes meanwhile, StopNow is raised as soon as it may be.

    for_training: the batch is one to train on. A validation that has begun goes on while there is time.
    """
    return _request.waiting(for_training=for_training)
