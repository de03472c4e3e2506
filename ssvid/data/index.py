"""From listed videos to a manifest: every file is decoded once, in processes that may crash or hang without harm.

A decoder can hang while it holds the interpreter lock (decord is known for it) or take its process down, so no file is
opened in the calling process. It starts one *supervisor* (a fresh interpreter that imports the decoders once and
opens no video); the supervisor forks the *workers*, hands them one file at a time, and kills those that pass their
deadline. Unlike a multiprocessing pool this works from notebooks and from scripts without a main guard, and a worker
that had to be killed is replaced at once. What a scan found is remembered per file, see ``_ScanCache``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import multiprocessing
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any, NamedTuple

from ssvid.data.manifest import OK, UNREADABLE, Manifest, VideoRow
from ssvid.data.readers import Entry
from ssvid.errors import DataError, DecodeError, did_you_mean
from ssvid.machine import num_cores

Progress = Callable[[int, int, str], None]

# Part of the cache's key: raise it with every change of what scan_video learns or judges, or old results are believed.
SCAN_VERSION = 3
# A file may take its timeout plus the time a slow decoder needs for this many bytes: hours of footage are no hang.
SLOWEST_BYTES_PER_SECOND = 250_000
# The module that opens videos; tests put a misbehaving one in its place.
SCANNER = "ssvid.video"
# What is believed of a file that another decoder choked on: frames are defined by this one.
REFERENCE = ("pyav",)
_MAX_REASON_CHARS = 300


@dataclass(frozen=True)
class FileFacts:
    """What a scan found out about one file.

    problem: why it cannot be read, or "". choked: what happened when all decoders were compared ("hung: ...",
    "crashed: ..."), after which the file was scanned with PyAV alone; else "". is_final: the same scan of the same file
    would end the same way, so the facts may be remembered.
    """

    num_frames: int = 0
    fps: float = 0.0
    height: int = 0
    width: int = 0
    variable_fps: bool = False
    decoders_ok: tuple[str, ...] = ()
    content_id: str = ""
    problem: str = ""
    choked: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    is_final: bool = True


def build_manifest(
    root: str | Path,
    entries: Sequence[Entry],
    *,
    workers: int = 0,
    decoders: Sequence[str] | None = None,
    timeout_seconds: float = 60.0,
    cache: bool = True,
    progress: Progress | None = None,
    missing: Sequence[str] = (),
) -> Manifest:
    """Scan the files of a data set and write down what they hold.

    The result depends on the files and the decoders alone, not on workers, timing or cache. Unreadable files keep their
    row; its status says why.

    Args:
        root: the folder that the entries' paths are relative to.
        entries: from ``list_videos``; several may be windows of one file, which is scanned once.
        workers: processes that decode, one thread each; 0 is one per core.
        decoders: compare these decoders; None is all that are installed.
        timeout_seconds: a file of a few megabytes that takes longer hangs; large files are given more time.
        cache: remember the scan of each file, and believe what is remembered of an unchanged one.
        progress: called as (files done, files in all, path) after each file.
        missing: videos that the data set lists and its folder lacks, to be remembered.

    Returns:
        One row per entry, in their order. A window of seconds becomes one of frames by the (mean) frame rate.

    Raises:
        DataError: no file is readable; a window lies outside its video; an option is wrong.
    """
    root = Path(root)
    if not entries:
        raise DataError(f"entries of root ({root}) must not be empty. List videos first: list_videos('folder', root).")
    if workers < 0:
        raise DataError(f"workers ({workers}) must be 0 (one per core) or more. Set data.index_workers=0.")
    if not timeout_seconds > 0:
        raise DataError(f"timeout_seconds ({timeout_seconds}) must be positive. The default is 60.")
    paths = list(dict.fromkeys(entry.path for entry in entries))
    facts = _scan_all(root, paths, workers, _decoder_versions(decoders), decoders, timeout_seconds, cache, progress)
    _warn_of_choking(facts)
    if all(found.problem for found in facts.values()):
        raise _nothing_readable(root, facts)
    return Manifest(root, tuple(_row(entry, facts[entry.path]) for entry in entries), tuple(missing))


def _decoder_versions(decoders: Sequence[str] | None) -> str:
    """Names and versions of the decoders that will be compared, as part of the cache's key.

    Raises:
        DataError: a decoder that was asked for is unknown or does not work here.
    """
    found = importlib.import_module(SCANNER).available_decoders()
    for name in decoders or ():
        if name not in found:
            raise DataError(f"decoder ({name!r}) must be known. {did_you_mean(name, found)}")
        if found[name].problem or not found[name].version:
            raise DataError(f"decoder ({name!r}) must be installed: {found[name].problem}. Leave decoders empty.")
    names = (
        [name for name in found if found[name].version and not found[name].problem] if decoders is None else decoders
    )
    return " ".join(f"{name}={found[name].version}" for name in sorted(names))


def _scan_all(
    root: Path,
    paths: list[str],
    workers: int,
    versions: str,
    decoders: Sequence[str] | None,
    timeout_seconds: float,
    use_cache: bool,
    progress: Progress | None,
) -> dict[str, FileFacts]:
    """Facts of every file, from the cache or a scan, in the order of ``paths``."""
    facts: dict[str, FileFacts] = {}
    jobs: list[Job] = []
    stats: dict[str, os.stat_result] = {}

    def take(path: str, found: FileFacts) -> None:
        facts[path] = found
        if progress:
            progress(len(facts), len(paths), path)

    with _ScanCache(versions, enabled=use_cache) as cache:
        for path in paths:
            file = os.path.abspath(root / path)
            try:
                stats[path] = os.stat(file)
            except OSError as cause:
                take(path, FileFacts(problem=cause.strerror or str(cause), is_final=False))
                continue
            remembered = cache.get(file, stats[path])
            if remembered:
                take(path, remembered)
            else:
                seconds = timeout_seconds + stats[path].st_size / SLOWEST_BYTES_PER_SECOND
                jobs.append(Job(path, file, seconds, None if decoders is None else tuple(decoders)))
        # The largest first, so that no worker is left alone with it at the end.
        jobs.sort(key=lambda job: (-stats[job.path].st_size, job.path))
        for path, found in scan_files(jobs, workers):
            if found.is_final:
                cache.put(os.path.abspath(root / path), stats[path], found)
            take(path, found)
    return {path: facts[path] for path in paths}


def _row(entry: Entry, facts: FileFacts) -> VideoRow:
    start, end = _window(entry, facts) if not facts.problem else (0, -1)
    return VideoRow(
        path=entry.path,
        num_frames=facts.num_frames,
        fps=facts.fps,
        height=facts.height,
        width=facts.width,
        variable_fps=facts.variable_fps,
        label=entry.label,
        split=entry.split,
        group=entry.group,
        status=f"{UNREADABLE}: {facts.problem}" if facts.problem else OK,
        decoders_ok=facts.decoders_ok,
        content_id=facts.content_id,
        start_frame=start,
        end_frame=end,
    )


def _window(entry: Entry, facts: FileFacts) -> tuple[int, int]:
    """First frame, and the one after the last (-1: to the end), of the frames shown from start to before end.

    Windows that meet in time meet in frames, without gap or overlap; one too short to hold a frame gets the next one.
    Frames of a variable rate are taken as evenly spaced.
    """
    start = frames_before(entry.start_seconds, facts.fps)
    if start >= facts.num_frames:
        seconds = facts.num_frames / facts.fps
        where = f"{entry.where}: " if entry.where else ""
        raise DataError(
            f"{where}start ({entry.start_seconds:g} s) of {entry.path!r} must lie inside the video, which ends at"
            f" {seconds:.3f} s. Mend the start, or remove the line."
        )
    if entry.end_seconds is None:
        return start, -1
    end = max(start + 1, frames_before(entry.end_seconds, facts.fps))
    return start, end if end < facts.num_frames else -1


def frames_before(seconds: float, fps: float) -> int:
    """How many frames are shown before a time; 1e-6 of a frame forgives the rounding of decimal seconds."""
    return max(0, math.ceil(seconds * fps - 1e-6))


def _warn_of_choking(facts: Mapping[str, FileFacts]) -> None:
    choked = {path: found.choked for path, found in facts.items() if found.choked and not found.problem}
    if choked:
        warnings.warn(
            f"{len(choked)} of {len(facts)} files made a decoder hang or crash and are read with PyAV alone:"
            f" {_first_of(choked)}",
            stacklevel=3,
        )


def _nothing_readable(root: Path, facts: Mapping[str, FileFacts]) -> DataError:
    problems = {path: found.problem for path, found in facts.items()}
    return DataError(
        f"root ({root}) must hold at least one readable video: all {len(facts)} files failed. {_first_of(problems)}."
        " Check with another player that they are videos and complete, and with ssvid doctor that the decoders work."
    )


def _first_of(reasons: Mapping[str, str], limit: int = 5) -> str:
    shown = [f"{path}: {reason}" for path, reason in list(reasons.items())[:limit]]
    return "; ".join(shown) + (f"; and {len(reasons) - limit} more" if len(reasons) > limit else "")


# ---- what is remembered


class _ScanCache:
    """What scans found, in one SQLite file under ``$SSVID_CACHE`` or ``~/.cache/ssvid``.

    Believed for a file whose path, size and time of change are the same, under the same decoders and scan version. It
    is only ever an economy: whatever is wrong with it is told once in a warning, and the scan goes on without.
    """

    def __init__(self, versions: str, *, enabled: bool = True) -> None:
        self._versions = versions
        self._db: sqlite3.Connection | None = None
        if not enabled:
            return
        try:
            folder = cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
            # Autocommit, without waiting for the disk: losing the cache costs a scan, a sync per file costs minutes.
            self._db = sqlite3.connect(folder / "scans.sqlite", timeout=10.0, isolation_level=None)
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS scans"
                " (path BLOB, versions TEXT, stamp TEXT, facts TEXT, PRIMARY KEY (path, versions))"
            )
        except (OSError, RuntimeError, sqlite3.Error) as cause:
            self._give_up(cause)

    def __enter__(self) -> _ScanCache:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._db:
            self._db.close()

    def get(self, file: str, stat: os.stat_result) -> FileFacts | None:
        """The facts of a file, if it was scanned as it is now."""
        query = "SELECT facts FROM scans WHERE path = ? AND versions = ? AND stamp = ?"
        found = self._execute(query, (os.fsencode(file), self._versions, _stamp(stat)))
        try:
            return _read_facts(json.loads(found[0])) if found else None
        except (TypeError, ValueError):
            return None  # written by a broken hand: the file is scanned again and the entry replaced

    def put(self, file: str, stat: os.stat_result, facts: FileFacts) -> None:
        """Remember the facts of a file; those of its earlier states are forgotten."""
        values = (os.fsencode(file), self._versions, _stamp(stat), json.dumps(asdict(facts)))
        self._execute("INSERT OR REPLACE INTO scans VALUES (?, ?, ?, ?)", values)

    def _execute(self, statement: str, values: tuple[object, ...]) -> Any:
        if not self._db:
            return None
        try:
            return self._db.execute(statement, values).fetchone()
        except sqlite3.Error as cause:
            self._give_up(cause)
            return None

    def _give_up(self, cause: Exception) -> None:
        self._db = None
        warnings.warn(
            f"the cache of scanned videos cannot be used ({type(cause).__name__}: {cause}), so every file is scanned."
            " Set SSVID_CACHE to a folder that can be written, or delete scans.sqlite there.",
            stacklevel=6,
        )


def cache_folder() -> Path:
    """Where ssvid keeps what it can find out again: ``$SSVID_CACHE``, else ``~/.cache/ssvid``."""
    chosen = os.environ.get("SSVID_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "ssvid"


def _stamp(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns} {SCAN_VERSION}"


def _read_facts(values: dict[str, Any]) -> FileFacts:
    return FileFacts(**{**values, "decoders_ok": tuple(values["decoders_ok"])})


# ---- calling side


class Job(NamedTuple):
    """A file to scan, or to measure. seconds: its deadline. decoders: None is all. choked: what the last attempt came to.

    signals_to: where the signals of the file go, see ``ssvid.video.motion``; "" where it is scanned. content_id,
    num_frames: what a file to be measured must have.
    """

    path: str
    file: str
    seconds: float
    decoders: tuple[str, ...] | None
    choked: str = ""
    signals_to: str = ""
    content_id: str = ""
    num_frames: int = 0


# Set before the decoders and torch are imported, so that neither starts threads: forking needs a single one.
_SINGLE_THREADED = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from ssvid.data.index import supervise; supervise()"


def scan_files(jobs: Sequence[Job], workers: int = 0) -> Iterator[tuple[str, FileFacts]]:
    """Scan files in other processes; yields (path, facts) as they come.

    Closing the iterator ends the processes, and so does the end of this process, however it comes about.
    """
    if not jobs:
        return
    request = {"jobs": jobs, "workers": min(workers or num_cores(), len(jobs)), "scanner": SCANNER}
    with tempfile.TemporaryFile() as complaints:
        supervisor = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env={**os.environ, **_SINGLE_THREADED},
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others
        )
        try:
            yield from _results(supervisor, request, len(jobs), complaints)
        finally:
            _end(supervisor)


def _end(supervisor: subprocess.Popen[bytes]) -> None:
    """End the supervisor and its workers, also one that holds on to the interpreter lock."""
    for pipe in (supervisor.stdin, supervisor.stdout):
        if pipe:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    # A closed stdin tells it to end its workers and itself; while it still imports it does not listen.
    with contextlib.suppress(subprocess.TimeoutExpired):
        supervisor.wait(timeout=2.0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(supervisor.pid, signal.SIGKILL)
    supervisor.wait()


def _results(
    supervisor: subprocess.Popen[bytes], request: dict[str, Any], num_jobs: int, complaints: IO[bytes]
) -> Iterator[tuple[str, FileFacts]]:
    if supervisor.stdin is None or supervisor.stdout is None:
        raise RuntimeError("the scan supervisor was started without pipes")
    # A broken pipe: it died before it read; what it said is told below.
    with contextlib.suppress(BrokenPipeError):
        supervisor.stdin.write(json.dumps(request).encode() + b"\n")
        supervisor.stdin.flush()
    for _ in range(num_jobs):
        line = supervisor.stdout.readline()
        if not line:
            complaints.seek(0)
            said = complaints.read().decode(errors="replace").strip()
            raise RuntimeError(f"the scan supervisor ended with code {supervisor.wait()}: {said[-2000:]}")
        path, values = json.loads(line)
        yield path, _read_facts(values)


# ---- supervisor


def supervise() -> None:
    """Body of the supervisor: read one request from stdin, write one line per scanned file to stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # native libraries print where they like; the results' pipe is not theirs
    request = json.loads(sys.stdin.buffer.readline())
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
        # Forking is safe here: the supervisor has one thread and has opened no video.
        context = multiprocessing.get_context("fork")
        handles = [*foreign, self.connection.fileno()]
        self.process = context.Process(target=_work, args=(scanner, theirs, handles), daemon=True)
        self.process.start()
        theirs.close()
        self.job: Job | None = None
        self.deadline = math.inf

    def give(self, job: Job) -> None:
        self.job, self.deadline = job, time.monotonic() + job.seconds
        # A broken pipe: it died idle; the pipe reads as ended, and that is handled as a crash.
        with contextlib.suppress(BrokenPipeError):
            self.connection.send(job)

    def end(self) -> int:
        """Kill it, whatever it holds on to; returns its exit code."""
        self.process.kill()
        self.process.join()
        self.connection.close()
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
        worker.job, worker.deadline = None, math.inf
        if not is_ready:
            accident = f"hung: no answer within {job.seconds:.3g} s"
        else:
            try:
                return job.path, worker.connection.recv()
            except (EOFError, ConnectionResetError):
                accident = ""
        code = worker.end()
        del self._workers[number : number + 1]
        self._workers.insert(number, self._hire())
        accident = accident or f"crashed: {_exit_reason(code)}"
        if job.choked or tuple(job.decoders or ()) == REFERENCE:
            return job.path, FileFacts(problem=f"the decoder {accident}", choked=job.choked, is_final=False)
        return job._replace(decoders=REFERENCE, choked=accident)


def _exit_reason(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


# ---- worker


def _work(scanner: Any, connection: Connection, foreign: list[int]) -> None:
    """Body of a worker: scan the files that come through the pipe until it ends."""
    for handle in foreign:
        os.close(handle)
    silence = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(silence, handle)
    torch = sys.modules.get("torch")
    if torch:
        torch.set_num_threads(1)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(_measure(scanner, job) if job.signals_to else _scan(scanner, job))


def _measure(scanner: Any, job: Job) -> FileFacts:
    """Measure the signals of a file and write them down; the facts say no more than whether that was possible."""
    motion = importlib.import_module("ssvid.video.motion")
    try:
        if scanner.content_id(job.file) != job.content_id:
            return FileFacts(problem="it changed since it was indexed")
        signals = motion.measure_signals(job.file)
        if len(signals["motion"]) != job.num_frames:
            return FileFacts(problem=f"{len(signals['motion'])} frames were decoded, the table says {job.num_frames}")
        motion.write_signals(job.signals_to, signals)
    except DecodeError as cause:
        return FileFacts(problem=_plain(cause.what + (f" ({cause.cause})" if cause.cause else ""), job))
    except Exception as cause:  # not swallowed: it is listed with the file's name
        return FileFacts(problem=_plain(f"{type(cause).__name__}: {cause}", job))
    return FileFacts(num_frames=job.num_frames, content_id=job.content_id)


def _scan(scanner: Any, job: Job) -> FileFacts:
    content = ""
    try:
        content = scanner.content_id(job.file)
        scan = scanner.scan_video(job.file, decoders=job.decoders)
    except DecodeError as cause:
        reason = cause.what + (f" ({cause.cause})" if cause.cause else "")
        return FileFacts(problem=_plain(reason, job), content_id=content, choked=job.choked)
    except Exception as cause:
        # Not swallowed: the row says so. An open door for what a decoder may yet throw; not remembered, as it may pass.
        reason = _plain(f"{type(cause).__name__}: {cause}", job)
        return FileFacts(problem=reason, content_id=content, choked=job.choked, is_final=False)
    info = scan.info
    return FileFacts(
        num_frames=int(info.num_frames),
        fps=float(info.fps),
        height=int(info.height),
        width=int(info.width),
        variable_fps=bool(info.variable_fps),
        decoders_ok=tuple(scan.decoders_ok),
        content_id=content,
        choked=job.choked,
        notes={str(key): str(value) for key, value in scan.notes.items()},
    )


def _plain(reason: str, job: Job) -> str:
    """A reason without what differs between machines and runs (folders, addresses), on one line."""
    reason = reason.replace(job.file, job.path).replace(os.path.realpath(job.file), job.path)
    reason = " ".join(re.sub(r" ?@ ?0x[0-9a-fA-F]+", "", reason).split())
    return reason if len(reason) <= _MAX_REASON_CHARS else reason[: _MAX_REASON_CHARS - 3] + "..."
