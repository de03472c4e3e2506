"""The flow of a manifest's videos: measured once, kept in the cache folder by content and settings, found by a table's rows.

A table whose column ``flow`` names settings is read as flow: its rows open what was measured in the place of the videos.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ssvid.data.index.measuring import Measurement, MeasuringReport, measure_files
from ssvid.data.index.places import failure_path, flow_path
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError
from ssvid.files import write_text
from ssvid.video.flow import FlowSettings
from ssvid.video.optical_flow import estimator

if TYPE_CHECKING:
    pass


def measure_flow_of(manifest: Manifest, settings: FlowSettings, **options: Any) -> MeasuringReport:
    """Measure the flow of every readable file that has none of these settings. Options and errors as of ``measure_files``.

    A file that fails is listed and noted down, so that whoever reads flow passes it over as unreadable.

    Raises:
        SsvidError: OpenCV, or the weights of the method's network, are not there.
    """
    estimator(settings.method)  # what is missing here is told before an hour of work

    def place(row: VideoRow) -> Path:
        return flow_path(row, settings)

    flow = Measurement("flow", place, lambda row: place(row).is_file(), settings.measurement)
    report = measure_files(manifest, flow, **options)
    for row in manifest.select().rows:
        if row.path in report.failed:
            write_text(failure_path(place(row)), report.failed[row.path])
    return report


class Kept(NamedTuple):
    """What is kept of a table's videos: files, their bytes, and the frames and seconds of these videos."""

    num_files: int
    num_bytes: int
    num_frames: int
    seconds: float


def kept_flow(manifest: Manifest, settings: FlowSettings) -> Kept:
    """How much flow is kept of the videos of a table; those of one content count once."""
    by_file = {flow_path(row, settings): row for row in manifest.select().rows}
    there = {path: row for path, row in by_file.items() if path.is_file()}
    seconds = sum(row.num_frames / row.fps for row in there.values() if row.fps > 0)
    return Kept(
        len(there), sum(path.stat().st_size for path in there), sum(row.num_frames for row in there.values()), seconds
    )


def as_flow(manifest: Manifest, settings: FlowSettings) -> Manifest:
    """The same table, read as flow.

    Raises:
        DataError: the flow of readable videos was not measured; the text counts them and says how to measure.
    """
    check_flow(manifest.root, manifest.select().rows, settings)
    return manifest.with_rows(replace(row, flow=settings.text) for row in manifest.rows)


def check_flow(root: str | Path, rows: Iterable[VideoRow], settings: FlowSettings) -> None:
    """Make sure that flow was measured, before anything is trained on it.

    Raises:
        DataError: the text counts the videos that have none, and says how to measure.
    """
    rows = list(rows)
    missing = [row.path for row in rows if not _was_tried(flow_path(row, settings))]
    if missing:
        raise DataError(
            f"data.modality (flow) reads optical flow that was measured before, and of {len(missing)} of {len(rows)} videos there"
            f" is none of {settings.measurement}, the first is {missing[0]!r}. Measure once with: {measuring_command(root, settings)}."
        )


def _was_tried(path: Path) -> bool:
    return path.is_file() or failure_path(path).is_file()


def measuring_command(root: str | Path, settings: FlowSettings) -> str:
    """The command that measures flow of these settings."""
    usual = FlowSettings()
    options = {"--method": "method", "--short-side": "short_side_px", "--bound": "bound_px"}
    said = {word: getattr(settings, name) for word, name in options.items()}
    words = [
        f"{word} {value:g}" if isinstance(value, int | float) else f"{word} {value}"
        for word, value in said.items()
        if value != getattr(usual, options[word])
    ]
    return " ".join(["ssvid data flow", str(root), *words, *["--symmetric"] * settings.symmetric])
