"""From listed videos to a manifest: what ``ssvid.data.index.processes`` found out about each file, remembered per file."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssvid.data.index import processes as scanning
from ssvid.data.index.processes import FileFacts, Job, scan_files
from ssvid.data.index.scan_cache import FileState, ScanCache, file_state
from ssvid.data.manifest import OK, UNREADABLE, Manifest, VideoRow, gray_range_problem
from ssvid.data.readers import Entry, Listing
from ssvid.errors import DataError, DecodeError, did_you_mean
from ssvid.files import takes_paths
from ssvid.progress import NamedProgress
from ssvid.video.times import FrameTimes, evenly_spaced

# A decoder that makes no progress for so long hangs: not one packet read, not one frame decoded.
PATIENCE_SECONDS = 60.0
# What a scan finds of a file and the table holds under the same name.
FACTS_OF_FILE = (
    *("num_frames", "fps", "height", "width", "variable_fps"),
    *("decoders_ok", "content_id", "quick_id", "gray_range"),
)
# The subjects of a scan's notes that stand in the table.
NOTED = ("damage", "time", "fps", "pictures", "range", "access")


@takes_paths("root")
def build_manifest(
    root: str | Path,
    entries: Sequence[Entry],
    *,
    workers: int = 0,
    decoders: Sequence[str] | None = None,
    timeout_seconds: float = PATIENCE_SECONDS,
    cache: bool = True,
    progress: NamedProgress | None = None,
    gray_range: Sequence[int] = (),
) -> Manifest:
    """Scan the files of a data set, and its folders of pictures, and write down what they hold.

    The result depends on the files and the decoders alone, not on workers, timing or cache. Unreadable files keep their
    row; its status says why.

    Args:
        root: the folder that the entries' paths are relative to.
        entries: from ``list_videos``; several may be windows of one file, which is scanned once. Videos that the data set
            lists and its folder lacks are remembered.
        workers: processes that decode, one thread each; 0 is one per core.
        decoders: compare these decoders; None is all that are installed.
        timeout_seconds: a file hangs in which nothing moves for so long: no packet, no frame. However long it takes
            otherwise, it is scanned to its end.
        cache: remember the scan of each file, and believe what is remembered of an unchanged one.
        progress: called as (files done, files in all, path) after each file.
        gray_range: the values of gray videos of more than 8 bits that become 0 and 255; () keeps their upper 8 bits.

    Returns:
        One row per entry, in their order. A window of seconds becomes one of frames by the frames' time stamps.

    Raises:
        DataError: no file is readable; a window lies outside its video; an option is wrong.
    """
    root = Path(root)
    if not entries:
        raise DataError(f"entries of root ({root}) must not be empty. List videos first: list_videos('folder', root).")
    if workers < 0:
        raise DataError(f"workers ({workers}) must be 0 (one per core) or more. Set data.index_workers=0.")
    if not timeout_seconds > 0:
        raise DataError(f"timeout_seconds ({timeout_seconds}) must be positive. Set data.index_timeout_seconds=60.")
    if problem := gray_range_problem(gray_range):
        raise DataError(f"{problem}. Set --gray-range 0 4095 for values of 12 bits, say.")
    rates = {entry.path: entry.pictures_fps for entry in entries}
    compared = None if decoders is None else tuple(decoders)
    as_read = Job("", "", timeout_seconds, compared, gray_range=tuple(gray_range))
    facts = _scan_all(root, rates, workers, _decoder_versions(decoders), as_read, cache, progress)
    _warn_of_choking(facts)
    if all(found.problem for found in facts.values()):
        raise _nothing_readable(root, facts)
    missing = entries.missing if isinstance(entries, Listing) else ()
    return Manifest(root, tuple(_row(entry, facts[entry.path]) for entry in entries), missing)


def scan_row(root: str | Path, entry: Entry) -> VideoRow:
    """The row of one video, as ``build_manifest`` makes it with its usual settings; unreadable ones have one, too."""
    rates = {entry.path: entry.pictures_fps}
    facts = _scan_all(Path(root), rates, 0, _decoder_versions(None), Job("", "", PATIENCE_SECONDS, None), True, None)
    _warn_of_choking(facts)
    return _row(entry, facts[entry.path])


def _decoder_versions(decoders: Sequence[str] | None) -> str:
    """Names and versions of the decoders that will be compared, as part of the cache's key.

    Raises:
        DataError: a decoder that was asked for is unknown or does not work here.
    """
    found = importlib.import_module(scanning.SCANNER).available_decoders()
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
    rates: Mapping[str, float],
    workers: int,
    versions: str,
    as_read: Job,
    use_cache: bool,
    progress: NamedProgress | None,
) -> dict[str, FileFacts]:
    """Facts of every file, from the cache or a scan, in order. rates: path -> fps of pictures. as_read: a job for any."""
    facts: dict[str, FileFacts] = {}
    jobs: list[Job] = []
    states: dict[str, FileState] = {}

    def take(path: str, found: FileFacts) -> None:
        facts[path] = found
        if progress:
            progress(len(facts), len(rates), path)

    stretched = f" gray {as_read.gray_range}" if as_read.gray_range else ""
    with ScanCache(versions + stretched, patience_seconds=as_read.seconds, enabled=use_cache) as cache:
        for path, fps in rates.items():
            file = os.path.abspath(root / path)
            try:
                states[path] = file_state(file, fps)
            except OSError as cause:
                take(path, FileFacts(problem=cause.strerror or str(cause), is_final=False))
                continue
            except DecodeError as cause:
                take(path, FileFacts(problem=cause.reason, is_final=False))
                continue
            remembered = cache.get(file, states[path])
            if remembered:
                take(path, remembered)
            else:
                jobs.append(as_read._replace(path=path, file=file, fps=fps))
        # The largest first, so that no worker is left alone with it at the end.
        jobs.sort(key=lambda job: (-states[job.path].size_bytes, job.path))
        for path, found in scan_files(jobs, workers):
            if found.is_final:
                cache.put(os.path.abspath(root / path), states[path], found)
            take(path, found)
    return {path: facts[path] for path in rates}


def _row(entry: Entry, facts: FileFacts) -> VideoRow:
    start, end = _window(entry, facts) if not facts.problem else (0, -1)
    return VideoRow(
        path=entry.path,
        label=entry.label,
        split=entry.split,
        group=entry.group,
        status=f"{UNREADABLE}: {facts.problem}" if facts.problem else OK,
        notes=_notes(facts, is_rate_known=entry.fps > 0),
        start_frame=start,
        end_frame=end,
        truth=entry.truth,
        **{name: getattr(facts, name) for name in FACTS_OF_FILE},
    )


def _notes(facts: FileFacts, *, is_rate_known: bool) -> str:
    """What the table says of a file beside its numbers; what single decoders did wrong stands in ``decoders_ok``.

    is_rate_known: the data set says the rate of its pictures, so that nobody needs to be told that they do not.
    """
    noted = [subject for subject in NOTED if subject in facts.notes and not (subject == "fps" and is_rate_known)]
    told = {subject: facts.notes[subject].replace("; ", ", ") for subject in noted}
    return "; ".join(f"{subject}: {words}" for subject, words in told.items())


def _window(entry: Entry, facts: FileFacts) -> tuple[int, int]:
    """First frame, and the one after the last (-1: to the end), of the frames that begin from start to before end.

    Windows that meet in time meet in frames, without gap or overlap; one too short to hold a frame gets the next one,
    unless that is after a pause.
    By the time stamps of the frames; where the file has none, evenly spaced.
    """
    if entry.start_seconds <= 0 and entry.end_seconds is None:
        return 0, -1
    times = FrameTimes.from_text(facts.times) if facts.times else evenly_spaced(facts.num_frames, facts.fps)
    start = times.frames_before(entry.start_seconds)
    if start >= facts.num_frames:
        last = f"begins at {times.seconds[-1]:.6g} s and ends at {times.end_seconds:.6g} s"
        rule = f"must lie inside the video, whose last frame {last}"
        raise _window_error(entry, f"start ({entry.start_seconds:g} s)", rule)
    if entry.end_seconds is None:
        return start, -1
    if times.seconds[start] >= max(entry.end_seconds, entry.start_seconds + 1.001 * times.usual_interval):
        before = f"one begins at {times.seconds[start - 1]:.6g} s, " if start else ""
        rule = f"must hold a frame: {before}the next at {times.seconds[start]:.6g} s"
        raise _window_error(entry, f"window ({entry.start_seconds:g} to {entry.end_seconds:g} s)", rule)
    end = max(start + 1, times.frames_before(entry.end_seconds))
    return start, end if end < facts.num_frames else -1


def _window_error(entry: Entry, what: str, rule: str) -> DataError:
    where = f"{entry.where}: " if entry.where else ""
    return DataError(f"{where}{what} of {entry.path!r} {rule}. Fix its times, or remove the line.")


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
