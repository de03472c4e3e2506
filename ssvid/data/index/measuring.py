"""What is measured of each file once and kept by content in the cache folder: who is measured, and what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ssvid.data.index.processes import REFERENCE, Job, scan_files
from ssvid.data.index.scan_cache import cache_folder
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError
from ssvid.files import remove_leftovers
from ssvid.progress import NamedProgress
from ssvid.video.identity import is_quick


@dataclass
class MeasuringReport:
    """What measuring came to, in files: measured now, remembered from before, failed (path -> why)."""

    num_measured: int = 0
    num_remembered: int = 0
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """What is measured of a file. what: in words. place: where it lies of a row. is_there: whether it was measured. flow: as
    in ``Job``.
    """

    what: str
    place: Callable[[VideoRow], Path]
    is_there: Callable[[VideoRow], bool]
    flow: str = ""


def measure_files(
    manifest: Manifest,
    measurement: Measurement,
    *,
    workers: int = 0,
    timeout_seconds: float = 60.0,
    cache: bool = True,
    progress: NamedProgress | None = None,
) -> MeasuringReport:
    """Measure every readable file that was not yet; what is done stays done when this is interrupted.

    Args:
        manifest: rows of one file, or of files with the same content, are measured once.
        workers: processes, one thread each; 0 is one per core.
        timeout_seconds: a file hangs in which nothing moves for so long.
        cache: believe what was measured before.
        progress: called as (files done, files in all, path).

    Raises:
        DataError: not one file could be measured.
    """
    _refuse_alike(manifest)
    by_content = {measurement.place(row): row for row in reversed(manifest.select().rows)}
    # The longest first, so that no worker is left alone with it at the end.
    wanted = sorted(by_content.values(), key=lambda row: (-row.num_frames, row.path))
    jobs = [
        Job(
            row.path,
            os.path.abspath(manifest.path_of(row)),
            timeout_seconds,
            REFERENCE,
            measure_to=str(measurement.place(row)),
            flow=measurement.flow,
            content_id=row.content_id,
            num_frames=row.num_frames,
            gray_range=row.gray_range,
        )
        for row in wanted
        if not (cache and measurement.is_there(row))
    ]
    for folder in {Path(job.measure_to).parent for job in jobs}:
        remove_leftovers(folder)
    report = MeasuringReport(num_remembered=len(wanted) - len(jobs))
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
            f"{measurement.what} could be measured in none of the {len(wanted)} files of {manifest.root}, the first is {path}:"
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
