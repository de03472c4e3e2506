"""Signals at the moments at which what is raised is swallowed: while data workers are forked, and in a ``__del__``."""

import gc
import multiprocessing
import os
import signal
import sys
import time

import pytest

from ssvid import stopping
from ssvid.data.config import LoaderConfig
from ssvid.data.feed.dataset import ClipDataset, tickets_of
from ssvid.data.feed.loader import ClipLoader
from ssvid.data.feed.sampler import BatchLayout, EvalBatches, TrainBatches
from ssvid.data.manifest import Manifest
from tests.data.feed.test_dataset import Window, rows_of

FORKED = []  # what to do in the parent after the next fork; hooks cannot be taken off
os.register_at_fork(after_in_parent=lambda: FORKED.pop()() if FORKED else None)


@pytest.fixture
def heeded(monkeypatch):
    """Signals are heeded as in a run; in the end no worker is left, and nothing was swallowed and printed."""
    before, swallowed = set(multiprocessing.active_children()), []
    monkeypatch.setattr(sys, "unraisablehook", swallowed.append)
    method = multiprocessing.get_start_method()
    multiprocessing.set_start_method("fork", force=True)
    with stopping.heeding_signals():
        stopping.allow_leaving(True)
        yield
    multiprocessing.set_start_method(method, force=True)
    gc.collect()
    assert not swallowed
    assert set(multiprocessing.active_children()) == before
    FORKED.clear()


def loader_of(video_folder, maker, num_workers, *, training=True):
    rows = rows_of(video_folder)
    dataset = ClipDataset(Manifest(video_folder, tuple(rows)), rows, maker, seed=1)
    batches = TrainBatches(26, BatchLayout(2), seed=1, position=lambda: (0, 0)) if training else EvalBatches(26, 2)
    return ClipLoader(dataset, batches, LoaderConfig(workers_per_device=num_workers))


def ask():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("place", [0, 1])
def test_a_request_while_workers_are_forked_ends_the_wait_that_follows(video_folder, heeded, place):
    FORKED.extend([ask, *[int] * place])
    batches = iter(loader_of(video_folder, Window(), 2))
    with pytest.raises(stopping.StopNow):
        next(batches)
    assert not FORKED
    assert stopping.requested() == "SIGTERM"


def test_a_request_while_a_validation_starts_its_workers_lets_it_go_on(video_folder, heeded):
    FORKED.append(ask)
    assert len(list(loader_of(video_folder, Window(), 2, training=False))) == 13
    assert stopping.requested() == "SIGTERM"


def kill_the_others():
    """Kill all workers and wait until they are dead, unreaped, so that their signal has come."""
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGKILL)
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)


@pytest.mark.filterwarnings("ignore:a data worker died")
def test_a_death_while_other_workers_are_forked_disturbs_nothing(video_folder, heeded):
    """An epoch's last batch is worked on: its workers are still there when those of the validation are started."""
    training, validation = loader_of(video_folder, Window(), 2), loader_of(video_folder, Window(), 2, training=False)
    batches = iter(training)
    for _ in range(len(training)):
        next(batches)
    FORKED.append(kill_the_others)
    got = [[t.index for t in tickets_of(batch)] for batch in validation]
    assert got == [[group[0].index for group in groups] for groups in validation.batches]
    assert list(batches) == []


class AsksInTheEnd:
    def __del__(self):
        ask()
        time.sleep(0)


def wait():
    with stopping.waiting(for_training=True):
        AsksInTheEnd()
        time.sleep(30)


def test_a_request_that_is_swallowed_is_asked_again(heeded):
    started = time.monotonic()
    with pytest.raises(stopping.StopNow):
        wait()
    assert time.monotonic() - started < 20


def test_a_run_that_was_stopped_leaves_nothing_behind(video_folder, heeded):
    with stopping.heeding_signals():
        ask()
        stopping.set_saved()
    assert stopping.requested() == ""
    assert len(list(loader_of(video_folder, Window(), 0))) == 13
