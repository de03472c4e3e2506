"""Every file is decoded once, in processes that may crash or hang without harm.

A decoder can hang while it holds the interpreter lock (decord is known for it) or take its process down, so no file is
opened in the calling process. It starts one *supervisor* (a fresh interpreter that imports the decoders once and
opens no video); the supervisor forks the *workers*, hands them one file at a time, and kills those in which nothing
moves any more. A worker that gets on, however slowly, is left alone: it writes down when it last got through a packet
(``ssvid.video.progress``), in memory that it shares with the supervisor. Unlike a multiprocessing pool this works from notebooks and from scripts without a main guard, and a worker
that had to be killed is replaced at once. A supervisor is kept for the next request for some seconds, so that its
imports are paid for once where scanning, measuring and more scanning follow each other.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import math
import mmap
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from ssvid.errors import DecodeError
from ssvid.machine import num_cores
from ssvid.video.frame_folders import PICTURES_FPS
from ssvid.video.identity import content_id, identity_like, quick_id
from ssvid.video.progress import listen

# The module that opens videos; tests put a misbehaving one in its place.
SCANNER = "ssvid.video"
# What is believed of a file that another decoder choked on: frames are defined by this one.
REFERENCE = ("pyav",)
_MAX_REASON_CHARS = 300


@dataclass(frozen=True)
class FileFacts:
    """What a scan found out about one file.

    problem: why it cannot be read, or "". choked: what happened when all decoders were compared ("hung: ...",
    "crashed: ..."), after which the file was scanned with PyAV alone; else "". waited_seconds: where it hung, how long
    it was waited for a sign of life. times: of its frames, by ``ssvid.video.times``, or "". is_final: the same scan of the same file would end the same way, so the facts may
    be remembered.
    """

    num_frames: int = 0
    fps: float = 0.0
    height: int = 0
    width: int = 0
    variable_fps: bool = False
    decoders_ok: tuple[str, ...] = ()
    content_id: str = ""
    quick_id: str = ""
    problem: str = ""
    choked: str = ""
    waited_seconds: float = 0.0
    notes: Mapping[str, str] = field(default_factory=dict)
    times: str = ""
    is_final: bool = True
    gray_range: tuple[int, ...] = ()


def read_facts(values: dict[str, Any]) -> FileFacts:
    """Facts from what ``asdict`` and JSON made of them."""
    tuples = {key: tuple(values.get(key, ())) for key in ("decoders_ok", "gray_range")}
    return FileFacts(**{**values, **tuples})


class Job(NamedTuple):
    """A file or a folder of pictures to scan, or to measure. seconds: without a sign of life, after which it hangs. decoders: None is all.

    choked, waited_seconds: what the last attempt came to, see ``FileFacts``. measure_to: where what is measured of the file goes; "" where it is scanned. flow: what is measured, the text of ``FlowSettings``; "" for signals, see ``ssvid.video.motion``. content_id,
    num_frames: what a file to be measured must have. gray_range: see ``VideoInfo``. fps: of a folder of pictures.
    """

    path: str
    file: str
    seconds: float
    decoders: tuple[str, ...] | None
    choked: str = ""
    waited_seconds: float = 0.0
    measure_to: str = ""
    flow: str = ""
    content_id: str = ""
    num_frames: int = 0
    gray_range: tuple[int, ...] = ()
    fps: float = PICTURES_FPS


# ---- calling side

# Set before the decoders and torch are imported, so that neither starts threads: forking needs a single one.
_SINGLE_THREADED = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from ssvid.data.index.processes import supervise; supervise()"
# A supervisor without work ends by itself after so long; its start, the imports of all decoders, takes seconds.
IDLE_SECONDS = 20.0

_idle: list[_Supervisor] = []  # at most one, kept for the next request


def scan_files(jobs: Sequence[Job], workers: int = 0) -> Iterator[tuple[str, FileFacts]]:
    """Scan files in other processes; yields (path, facts) as they come.

    Closing the iterator ends the processes, and so does the end of this process, however it comes about.
    """
    if not jobs:
        return
    supervisor, answered = _take_supervisor(), False
    try:
        for answer in supervisor.scan(jobs, min(workers or num_cores(), len(jobs))):
            answered = True
            yield answer
    except BaseException as cause:  # also GeneratorExit: nobody waits for the rest
        supervisor.end()
        if answered or not supervisor.was_kept or not isinstance(cause, _SupervisorEnded):
            raise
        yield from scan_files(jobs, workers)  # it had died since the last request: a new one is asked
        return
    supervisor.idle_since = time.monotonic()
    _idle.append(supervisor)
    while len(_idle) > 1:
        _idle.pop(0).end()


class _SupervisorEnded(RuntimeError):
    """It ended without an answer."""


def _take_supervisor() -> _Supervisor:
    """The one that is kept, where it is this process's own, fresh and alive, and imports what is wanted; else a new one."""
    key = (os.getpid(), SCANNER, _START, tuple(sys.path))
    while _idle:
        kept = _idle.pop()
        if kept.is_fresh and kept.key == key:
            return kept
        kept.end()
    return _Supervisor(key)


@atexit.register
def _end_idle() -> None:
    while _idle:
        _idle.pop().end()


class _Supervisor:
    """The calling process's side of a supervisor. key: who started it, and what it imports. idle_since: its last answer."""

    def __init__(self, key: tuple[int, str, str, tuple[str, ...]]) -> None:
        self.key = key
        self.idle_since = math.inf
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process that writes it)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env={**os.environ, **_SINGLE_THREADED},
            start_new_session=True,  # Ctrl-C reaches the calling process alone, which then ends the others
        )

    @property
    def was_kept(self) -> bool:
        """Whether it has answered a request before."""
        return self.idle_since < math.inf

    @property
    def is_fresh(self) -> bool:
        """Alive, and far from ending by itself."""
        return self._process.poll() is None and time.monotonic() - self.idle_since < IDLE_SECONDS / 2

    def scan(self, jobs: Sequence[Job], workers: int) -> Iterator[tuple[str, FileFacts]]:
        """Facts of every file, as they come."""
        requests, results = self._process.stdin, self._process.stdout
        if requests is None or results is None:
            raise RuntimeError("the scan supervisor was started without pipes")
        environment = {**os.environ, **_SINGLE_THREADED}
        request = {"jobs": jobs, "workers": workers, "scanner": SCANNER, "environment": environment}
        # A broken pipe: it died before it read; what it said is told below.
        with contextlib.suppress(BrokenPipeError):
            requests.write(json.dumps(request).encode() + b"\n")
            requests.flush()
        for _ in jobs:
            line = results.readline()
            if not line:
                self._complaints.seek(0)
                said = self._complaints.read().decode(errors="replace").strip()
                raise _SupervisorEnded(f"the scan supervisor ended with code {self._process.wait()}: {said[-2000:]}")
            path, values = json.loads(line)
            yield path, read_facts(values)

    def end(self) -> None:
        """End it and its workers, also one that holds on to the interpreter lock; another process's is left alone."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._complaints.close()
        if self.key[0] != os.getpid():
            return
        # A closed stdin tells it to end its workers and itself; while it still imports it does not listen.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2.0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


# ---- supervisor


def supervise() -> None:
    """Body of the supervisor: for each request that comes through stdin, write one line per scanned file to stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # native libraries print where they like; the results' pipe is not theirs
    # Each request is written when the one before is answered in full, so nothing waits in the reader's buffer.
    while wait([sys.stdin], IDLE_SECONDS):  # type: ignore[list-item]
        line = sys.stdin.buffer.readline()
        if not line:
            return
        request = json.loads(line)
        os.environ.clear()
        os.environ.update(request["environment"])
        scanner = importlib.import_module(request["scanner"])
        scanner.available_decoders()  # imported once here, shared by all the workers that are forked off
        jobs = [Job(*job) for job in request["jobs"]]
        for path, facts in _Pool(scanner, request["workers"], results.fileno()).run(jobs):
            results.write(json.dumps([path, asdict(facts)]) + "\n")
            results.flush()


class _Worker:
    """A forked process, the supervisor's end of the pipe to it, and what it is busy with."""

    def __init__(self, scanner: Any, foreign: list[int]) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        self._life = mmap.mmap(-1, 16)  # shared with the fork
        # Forking is safe here: the supervisor has one thread and has opened no video.
        context = multiprocessing.get_context("fork")
        handles = [*foreign, self.connection.fileno()]
        self.process = context.Process(target=_work, args=(scanner, theirs, handles, self._life), daemon=True)
        self.process.start()
        theirs.close()
        self.job: Job | None = None
        self._given = math.inf

    @property
    def deadline(self) -> float:
        """When it hangs, unless there is a sign of life before; on the clock of ``time.monotonic``, which processes share."""
        if self.job is None:
            return math.inf
        signs = memoryview(self._life).cast("d")
        last, quiet_seconds = signs[0], signs[1]
        signs.release()
        return self._given + self.job.seconds if last < self._given else last + max(self.job.seconds, quiet_seconds)

    def give(self, job: Job) -> None:
        self.job, self._given = job, time.monotonic()
        # A broken pipe: it died idle; the pipe reads as ended, and that is handled as a crash.
        with contextlib.suppress(BrokenPipeError):
            self.connection.send(job)

    def end(self) -> int:
        """Kill it, whatever it holds on to; returns its exit code."""
        self.process.kill()
        self.process.join()
        self.connection.close()
        self._life.close()
        return self.process.exitcode or 0


class _Pool:
    """Workers that are killed and replaced when they die or pass a deadline."""

    def __init__(self, scanner: Any, num_workers: int, results: int) -> None:
        self._scanner = scanner
        self._results = results
        self._workers: list[_Worker] = []
        for _ in range(num_workers):
            self._workers.append(self._hire())

    def _hire(self) -> _Worker:
        # A worker must not keep the pipes of the others open, or their ends would not be seen.
        return _Worker(self._scanner, [self._results, *(worker.connection.fileno() for worker in self._workers)])

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[str, FileFacts]]:
        """Facts of every file, as they come; ends early when the calling process is gone."""
        waiting = deque(jobs)
        try:
            while self._assign(waiting):
                ready = self._wait()
                if sys.stdin in ready:
                    return
                for number, worker in enumerate(self._workers):
                    outcome = self._outcome(number, worker, worker.connection in ready)
                    if isinstance(outcome, Job):
                        waiting.appendleft(outcome)
                    elif outcome:
                        yield outcome
        finally:
            for worker in self._workers:
                worker.end()

    def _assign(self, waiting: deque[Job]) -> bool:
        """Hand files to idle workers; False when nothing is left to wait for."""
        for worker in self._workers:
            if waiting and worker.job is None:
                worker.give(waiting.popleft())
        return any(worker.job for worker in self._workers)

    def _wait(self) -> list[Any]:
        busy = [worker for worker in self._workers if worker.job]
        seconds = min(worker.deadline for worker in busy) - time.monotonic()
        # The calling process writes nothing more, so stdin becomes readable when it is gone.
        return wait([sys.stdin, *(worker.connection for worker in busy)], max(0.0, seconds))  # type: ignore[list-item]

    def _outcome(self, number: int, worker: _Worker, is_ready: bool) -> tuple[str, FileFacts] | Job | None:
        """What came of a worker's file: facts, the file again for PyAV, or None while it is being scanned."""
        job = worker.job
        if job is None or not (is_ready or time.monotonic() > worker.deadline):
            return None
        worker.job = None
        if not is_ready:
            accident = f"hung: no progress within {job.seconds:.3g} s"
        else:
            try:
                return job.path, worker.connection.recv()
            except (EOFError, ConnectionResetError):
                accident = ""
        code = worker.end()
        del self._workers[number : number + 1]
        self._workers.insert(number, self._hire())
        waited = job.seconds if not is_ready else 0.0
        accident = accident or f"crashed: {_exit_reason(code)}"
        if job.choked or tuple(job.decoders or ()) == REFERENCE:
            return job.path, FileFacts(problem=f"the decoder {accident}", choked=job.choked, is_final=False)
        return job._replace(decoders=REFERENCE, choked=accident, waited_seconds=waited)


def _exit_reason(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


# ---- worker


def _work(scanner: Any, connection: Connection, foreign: list[int], life: mmap.mmap) -> None:
    """Body of a worker: scan the files that come through the pipe until it ends; signs of life go into ``life``."""
    for handle in foreign:
        os.close(handle)
    silence = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(silence, handle)
    signs = memoryview(life).cast("d")

    def note(quiet_seconds: float) -> None:
        signs[1], signs[0] = quiet_seconds, time.monotonic()

    listen(note)
    torch = sys.modules.get("torch")
    if torch:
        torch.set_num_threads(1)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(_measure(scanner, job) if job.measure_to else _scan(scanner, job))


def _measure(scanner: Any, job: Job) -> FileFacts:
    """Measure a file and write down what was found; the facts say no more than whether that was possible."""
    try:
        if identity_like(job.content_id, job.file) != job.content_id:
            return FileFacts(problem="it changed since it was indexed")
        (_measure_flow if job.flow else _measure_signals)(job)
    except DecodeError as cause:
        return FileFacts(problem=_plain(cause.reason, job))
    except Exception as cause:  # not swallowed: it is listed with the file's name
        return FileFacts(problem=_plain(f"{type(cause).__name__}: {cause}", job))
    return FileFacts(num_frames=job.num_frames, content_id=job.content_id)


def _measure_signals(job: Job) -> None:
    motion = importlib.import_module("ssvid.video.motion")
    signals = motion.measure_signals(job.file, job.gray_range)
    if len(signals["motion"]) != job.num_frames:
        what = f"{len(signals['motion'])} frames were decoded, the table says {job.num_frames}"
        raise DecodeError(job.file, what)
    motion.write_signals(job.measure_to, signals)


def _measure_flow(job: Job) -> None:
    settings = importlib.import_module("ssvid.video.flow").FlowSettings.parse(job.flow)
    files = importlib.import_module("ssvid.video.flow_file")
    files.measure_flow(job.file, Path(job.measure_to), settings, job.num_frames, job.gray_range)


def _scan(scanner: Any, job: Job) -> FileFacts:
    known = FileFacts(choked=job.choked, waited_seconds=job.waited_seconds)
    try:
        known = replace(known, content_id=content_id(job.file), quick_id=quick_id(job.file))
        scan = scanner.scan_video(job.file, decoders=job.decoders, gray_range=job.gray_range, fps=job.fps)
    except DecodeError as cause:
        return replace(known, problem=_plain(cause.reason, job))
    except Exception as cause:
        # Not swallowed: the row says so. An open door for what a decoder may yet throw; not remembered, as it may pass.
        return replace(known, problem=_plain(f"{type(cause).__name__}: {cause}", job), is_final=False)
    info = scan.info
    return replace(
        known,
        num_frames=int(info.num_frames),
        fps=float(info.fps),
        height=int(info.height),
        width=int(info.width),
        variable_fps=bool(info.variable_fps),
        decoders_ok=tuple(scan.decoders_ok),
        notes={str(key): str(value) for key, value in scan.notes.items()},
        times=scan.times.to_text() if scan.times else "",
        gray_range=tuple(info.gray_range),
    )


def _plain(reason: str, job: Job) -> str:
    """A reason without what differs between machines and runs (folders, addresses), on one line."""
    reason = reason.replace(job.file, job.path).replace(os.path.realpath(job.file), job.path)
    reason = " ".join(re.sub(r" ?@ ?0x[0-9a-fA-F]+", "", reason).split())
    return reason if len(reason) <= _MAX_REASON_CHARS else reason[: _MAX_REASON_CHARS - 3] + "..."
