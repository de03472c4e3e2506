"""The per-frame signals of a manifest's videos: measured once, kept in the cache folder by content, read by the dataset.

    $SSVID_CACHE/signals/v1/ab/ab12....motion.npy       see ``ssvid.video.motion`` for what they hold

A file is known by its content, so that a copy, a renamed file or another manifest finds what was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssvid.data.index.measuring import Measurement, MeasuringReport, measure_files
from ssvid.data.index.places import kept_of_content
from ssvid.data.index.scan_cache import cache_folder
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError, did_you_mean
from ssvid.video.motion import SIGNALS, SIGNALS_VERSION, read_signal, signal_file
from ssvid.video.optical_flow import require_opencv


def signals_base(row: VideoRow) -> Path:
    """The path of a video's signals without their endings.

    Raises:
        DataError: the table knows no content identity of the file.
    """
    return cache_folder() / "signals" / f"v{SIGNALS_VERSION}" / kept_of_content(row)


def measure_signals_of(manifest: Manifest, **options: Any) -> MeasuringReport:
    """Measure the signals of every readable file that has none yet. Options and errors as of ``measure_files``.

    Raises:
        SsvidError: OpenCV is not installed.
    """
    require_opencv()
    signals = Measurement("motion", signals_base, lambda row: _is_measured(row, SIGNALS))
    return measure_files(manifest, signals, **options)


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
