"""Batches from worker processes. The loader survives the death of a worker: it rebuilds them and goes on."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from ssvid.data.config import LoaderConfig
from ssvid.data.feed.dataset import ClipDataset, collate
from ssvid.errors import DataError
from ssvid.stopping import is_waiting, requested, waiting
from ssvid.types import Stream, Ticket

MAX_REBUILDS = 3


class Batches(Protocol):
    """A stateless batch sampler: iterating it again gives the same groups of tickets."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[list[tuple[Ticket, ...]]]: ...


class ClipLoader:
    """Iterates over collated batches in the order of ``batches``, whatever the number of workers.

    Args:
        dataset: opens files. batches: which tickets make up which batch. config: the recipe's ``loader`` group.
        pin_memory: for asynchronous copies to a GPU.

    Raises:
        DataError: workers died more than ``MAX_REBUILDS`` times in one epoch, or a batch took too long.
    """

    def __init__(self, dataset: ClipDataset, batches: Batches, config: LoaderConfig, *, pin_memory: bool = False):
        if config.workers_per_device < 0:
            raise DataError(
                f"loader.workers_per_device ({config.workers_per_device}) must not be negative. "
                "Set loader.workers_per_device=0 to decode in the training process."
            )
        self.dataset, self.batches, self.config, self.pin_memory = dataset, batches, config, pin_memory

    def __len__(self) -> int:
        return len(self.batches)

    # Lightning asks a loader that resumes in mid-epoch for these two. There is no state: the position is the trainer's.
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # The position is asked for now, not at the first batch: by then the trainer has moved its counters.
        return _deaths.told_in_waits(self._deliver(list(self.batches)))

    def _deliver(self, pending: list[list[tuple[Ticket, ...]]]) -> Iterator[dict[str, Any]]:
        done = rebuilds = 0
        for_training = bool(pending) and pending[0][0][0].stream == Stream.TRAIN
        while done < len(pending):
            try:
                # Not within a wait: what is raised while processes are forked is swallowed.
                batches = iter(self._workers(pending[done:]))
                _deaths.take_over()
                while done < len(pending):
                    with waiting(for_training=for_training):
                        _deaths.tell()
                        batch = next(batches)
                    done += 1
                    yield batch
            except (RuntimeError, EOFError, ConnectionError) as error:
                if "DataLoader timed out" in str(error):
                    raise DataError(
                        self._notice("was late: it hangs, or is only slow", pending[done], error)
                    ) from error
                if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                    raise
                rebuilds += 1
                if rebuilds > MAX_REBUILDS:
                    raise DataError(self._notice(f"died {rebuilds} times", pending[done], error)) from error
                warnings.warn(
                    f"a data worker died ({error}); workers are started again at batch {done} of {len(pending)}.",
                    stacklevel=2,
                )

    def _workers(self, groups: list[list[tuple[Ticket, ...]]]) -> DataLoader:
        workers = self.config.workers_per_device
        parallel: dict[str, Any] = {}
        if workers:
            parallel = {
                "prefetch_factor": self.config.prefetch_batches,
                "timeout": self.config.timeout_seconds,
                "worker_init_fn": _single_thread,
            }
        return DataLoader(
            self.dataset,
            batch_sampler=groups,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=collate,
            pin_memory=self.pin_memory,
            **parallel,
        )

    def _notice(self, what: str, groups: list[tuple[Ticket, ...]], error: Exception) -> str:
        paths = ", ".join(self.dataset.path_of(group[0].index) for group in groups[:4])
        limit, decoder = self.config.timeout_seconds, self.config.decoder
        other = "" if decoder == "pyav" else " loader.decoder=pyav,"
        return (
            f"a data worker {what} ({error}). The batch that was being read starts with: {paths}. Set{other} a longer "
            f"loader.timeout_seconds (now {limit:g}; large pictures on a busy machine take long), or "
            "loader.workers_per_device=0 to see the error itself."
        )


class _Deaths:
    """The death of a worker, told while a batch is waited for.

    torch raises it from a signal handler, in whatever the process is at: in the middle of an optimizer step, or where what
    is raised is swallowed, while other workers are forked or shut down.
    """

    def __init__(self) -> None:
        self._others: Any = None
        self._depth = 0
        self._is_due = self._is_telling = False

    def told_in_waits(self, batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The batches; as long as there are more, deaths are put off until one is waited for."""
        self._depth += 1
        try:
            yield from batches
        finally:
            self._depth -= 1

    def take_over(self) -> None:
        """Come before the handler that is set, when workers were started; only the main thread can."""
        handler = signal.getsignal(signal.SIGCHLD)
        if handler != self._note and threading.current_thread() is threading.main_thread():
            self._others = handler if callable(handler) else None
            signal.signal(signal.SIGCHLD, self._note)
            self._is_due = True  # a worker may have died before its number was known

    def tell(self) -> None:
        """Raise what was put off."""
        if self._is_due:
            self._note(signal.SIGCHLD, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A cluster sends SIGTERM to workers too. They are missed only where a batch is still waited for.
        self._is_due = not is_waiting() and (self._depth > 0 or bool(requested()))
        if self._is_due or self._others is None or self._is_telling:
            return
        self._is_telling = True  # a handler that was set after this one calls it again
        try:
            self._others(number, frame)
        finally:
            self._is_telling = False


_deaths = _Deaths()


def _single_thread(worker_id: int) -> None:
    del worker_id
    torch.set_num_threads(1)
