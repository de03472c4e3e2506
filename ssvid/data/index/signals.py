"""The per-frame signals of a manifest's videos: measured once, kept in the cache folder by content, read by the dataset.

    $SSVID_CACHE/signals/v1/ab/ab12....motion.npy       see ``ssvid.video.motion`` for what they hold

A file is known by its content, so that a copy, a renamed file or another manifest finds what was measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ssvid.data.index.processes import REFERENCE, Job, scan_files
from ssvid.data.index.scan_cache import cache_folder
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError, did_you_mean
from ssvid.progress import NamedProgress
from ssvid.video.identity import is_quick
from ssvid.video.motion import SIGNALS, SIGNALS_VERSION, read_signal, require_opencv, signal_file


@dataclass
class SignalsReport:
    """What measuring came to, in files: measured now, remembered from before, failed (path -> why)."""

    num_measured: int = 0
    num_remembered: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def signals_base(row: VideoRow) -> Path:
    """The path of a video's signals without their endings.

    Raises:
        DataError: the table knows no content identity of the file.
    """
    if not row.content_id:
        raise DataError(
            f"the manifest has no content_id of {row.path!r}, by which what was measured of a file is found."
            " Write it again with: ssvid data index ROOT --overwrite."
        )
    name = "-".join(map(str, (row.content_id, *row.gray_range)))
    return cache_folder() / "signals" / f"v{SIGNALS_VERSION}" / row.content_id[:2] / name


def measure_signals_of(
    manifest: Manifest,
    *,
    workers: int = 0,
    timeout_seconds: float = 60.0,
    cache: bool = True,
    progress: NamedProgress | None = None,
) -> SignalsReport:
    """Measure the signals of every readable file that has none yet; what is done stays done when this is interrupted.

    Args:
        manifest: rows of one file, or of files with the same content, are measured once.
        workers: processes, one thread each; 0 is one per core.
        timeout_seconds: a file hangs in which nothing moves for so long.
        cache: believe what was measured before.
        progress: called as (files done, files in all, path).

    Raises:
        DataError: not one file could be measured.
        SsvidError: OpenCV is not installed.
    """
    require_opencv()
    _refuse_alike(manifest)
    by_content = {signals_base(row): row for row in reversed(manifest.select().rows)}
    # The longest first, so that no worker is left alone with it at the end.
    wanted = sorted(by_content.values(), key=lambda row: (-row.num_frames, row.path))
    jobs = [
        Job(
            row.path,
            os.path.abspath(manifest.path_of(row)),
            timeout_seconds,
            REFERENCE,
            signals_to=str(signals_base(row)),
            content_id=row.content_id,
            num_frames=row.num_frames,
            gray_range=row.gray_range,
        )
        for row in wanted
        if not (cache and _is_measured(row, SIGNALS))
    ]
    report = SignalsReport(num_remembered=len(wanted) - len(jobs))
    for done, (path, facts) in enumerate(scan_files(jobs, workers), start=report.num_remembered + 1):
        if facts.problem:
            report.failed[path] = facts.problem
        else:
            report.num_measured += 1
        if progress:
            progress(done, len(wanted), path)
    report.failed = dict(sorted(report.failed.items()))
    if wanted and len(report.failed) == len(wanted):
        path, reason = next(iter(report.failed.items()))
        raise DataError(
            f"motion could be measured in none of the {len(wanted)} files of {manifest.root}, the first is {path}:"
            f" {reason}. Check with ssvid doctor that videos can be read, and that {cache_folder()} can be written."
        )
    return report


def _refuse_alike(manifest: Manifest) -> None:
    """Files that a quick identity does not tell apart would be given one measurement; whether they differ it cannot say."""
    first: dict[str, str] = {}
    for row in manifest.select().rows:
        other = first.setdefault(row.content_id, row.path)
        if is_quick(row.content_id) and other != row.path:
            raise DataError(
                f"the table of {manifest.root} must tell {other!r} and {row.path!r} apart, and it knows their sizes and ends"
                " alone, which are the same. Write it again with: ssvid data index ROOT --overwrite."
            )


def check_signals(root: str | Path, rows: Iterable[VideoRow], names: Sequence[str]) -> None:
    """Make sure that the signals which a task plans from were measured, before training starts.

    Raises:
        DataError: a signal is unknown, or files have none; the text counts them and says how to measure.
    """
    for name in names:
        if name not in SIGNALS:
            raise DataError(f"signal {name!r} is asked for and never measured. {did_you_mean(name, SIGNALS)}")
    rows = list(rows)
    missing = [row.path for row in rows if not _is_measured(row, names)]
    if missing:
        raise _not_measured(root, f"{len(missing)} of {len(rows)} videos, the first is {missing[0]!r}", names)


def load_signals(
    root: str | Path, row: VideoRow, names: Sequence[str], start_frame: int, num_frames: int, frame_step: int = 1
) -> dict[str, np.ndarray]:
    """Signals of a stretch of a file, as if the stretch were a video of its own.

    Args:
        start_frame: of the file. num_frames: frames of the stretch. frame_step: each n-th frame alone counts; motion
            between two of them is the sum over the frames that they stand for.

    Raises:
        DataError: they were not measured, or of another file.
    """
    stop = start_frame + num_frames
    loaded = {}
    for name in names:
        try:
            values = read_signal(signals_base(row), name, row.num_frames)[start_frame:stop]
        except FileNotFoundError:
            raise _not_measured(root, repr(row.path), names) from None
        except ValueError as error:
            raise DataError(
                f"the signal {name} of {row.path!r} cannot be used: {error}."
                f" Measure again with: ssvid data index {root} --motion --no-cache."
            ) from error
        loaded[name] = _own_motion(values, frame_step) if name == "motion" else values[::frame_step]
    return loaded


def still_signals(names: Sequence[str], num_frames: int) -> dict[str, np.ndarray]:
    """Signals of a gray video in which nothing moves, for plans that are made without a file."""
    return {name: np.zeros((num_frames, *SIGNALS[name][0]), SIGNALS[name][1]) for name in names}


def _own_motion(motion: np.ndarray, frame_step: int) -> np.ndarray:
    """Motion between the frames of a stretch; into its first frame nothing has moved."""
    own = np.asarray(motion, dtype=np.float32).copy()
    own[0] = 0.0
    if frame_step == 1:
        return own
    total = np.cumsum(own, dtype=np.float64)[::frame_step]
    return np.diff(total, prepend=0.0).astype(np.float32)


def _is_measured(row: VideoRow, names: Iterable[str]) -> bool:
    return all(signal_file(signals_base(row), name).is_file() for name in names)


def _not_measured(root: str | Path, which: str, names: Sequence[str]) -> DataError:
    return DataError(
        f"the task plans from the {' and '.join(names)} of each video, which were not measured in {which}."
        f" Measure once with: ssvid data index {root} --motion. Or switch off the options of the task that need them."
    )
