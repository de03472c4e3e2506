"""Why a run waits for its data, and what would help: told where that is more than half of its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssvid.data.config import LoaderConfig
from ssvid.data.feed.dataset import ClipDataset
from ssvid.data.manifest import VideoRow
from ssvid.errors import DecodeError
from ssvid.machine import num_cores
from ssvid.video.frame_folders import is_there
from ssvid.video.random_access import packet_table

TOO_MUCH, TOO_LONG_SECONDS = 0.5, 5.0  # share of the time, and in all; a short run waits for its readers to start
_FILES_LOOKED_AT, _MOST_BYTES = 5, 200e6  # larger ones take seconds to walk through
_FEW_FRAMES = 50  # from one key frame to the next; decoding half of them is no more than decoding a clip
_LARGE_PX = 400  # short side; networks here see up to 224
_SMALLER = "smaller copies with more key frames (ffmpeg -i IN -vf scale=-2:256 -c:v libx264 -crf 18 -g 12 OUT.mp4)"


@dataclass(frozen=True)
class Footage:
    """What makes the videos of a run slow to read. Medians of some files.

    height, width: pixels. key_frames_apart: frames. unindexed: a file that is decoded from its start for every clip, or "".
    """

    height: int
    width: int
    key_frames_apart: float
    unindexed: str = ""


def look_at(dataset: ClipDataset) -> Footage:
    """Some of the videos, their packets alone: nothing is decoded. Each picture of a folder is a key frame."""
    paths = {row: Path(dataset.manifest.path_of(row)) for row in dataset.rows}
    rows = [row for row, path in paths.items() if is_there(path) and path.stat().st_size < _MOST_BYTES]
    some = rows[:: max(1, len(rows) // _FILES_LOOKED_AT)][:_FILES_LOOKED_AT]
    height, width = (float(np.median([getattr(row, side) for row in some] or [0])) for side in ("height", "width"))
    gaps, unindexed = _gaps(dataset, some)
    return Footage(int(height), int(width), float(np.median(gaps or [0])), unindexed)


def _gaps(dataset: ClipDataset, rows: Sequence[VideoRow]) -> tuple[list[float], str]:
    """Frames from key frame to key frame of each file that has an index of them, and a long one that has none."""
    gaps, unindexed = [], ""
    for row in rows:
        if dataset.manifest.path_of(row).is_dir():
            gaps.append(1.0)
            continue
        try:
            table = packet_table(str(Path(dataset.manifest.path_of(row)).resolve()))
        except (DecodeError, OSError):
            continue  # broken or gone since it was indexed: whoever reads it for training reports that
        if table is not None and len(table.shown_pts) == row.num_frames:
            gaps.append(row.num_frames / max(int(table.is_key.sum()), 1))
        elif row.num_frames > 2 * _FEW_FRAMES and tuple(row.decoders_ok) in ((), ("pyav",)):
            unindexed = row.path
    return gaps, unindexed


def waiting_text(share: float, footage: Footage, loader: LoaderConfig, *, devices: int = 1, cores: int = 0) -> str:
    """A paragraph: how much of its time a run waits, the likely cause, and what would help.

    Args:
        share: of the time, in [0, 1]. devices: of this machine. cores: that the process may use; 0 asks the machine.
    """
    cores = cores or num_cores()
    workers = loader.workers_per_device * devices
    causes, ways = _workers(workers, loader.workers_per_device, cores, devices)
    if footage.unindexed:
        causes.append(
            f"files such as {footage.unindexed} say too little about their frames: each clip is decoded from the file's start"
        )
        ways.append("copies of such files (ffmpeg -i IN -c:v libx264 -crf 18 -g 25 OUT.mp4)")
    is_large, is_sparse = min(footage.height, footage.width) > _LARGE_PX, footage.key_frames_apart > _FEW_FRAMES
    if is_sparse:
        half = footage.key_frames_apart / 2
        causes.append(
            f"there is one key frame in {footage.key_frames_apart:.0f} frames: about {half:.0f} are decoded to reach a clip"
        )
    if is_large:
        causes.append(f"frames have {footage.width} x {footage.height} pixels")
    if loader.clips_per_video < 4:
        clips = "one clip is" if loader.clips_per_video == 1 else f"{loader.clips_per_video} clips are"
        causes.append(f"{clips} taken of each opened file")
        ways.append("loader.clips_per_video=4 (it must divide the batch)")
    if is_large or is_sparse:
        ways.append(_SMALLER)
    return (
        f"the run waits for data {share:.0%} of its time. Likely why: {'; '.join(causes)}. "
        f"What helps: {'; '.join(ways) or 'faster cores, or more of them'}."
    )


def _workers(workers: int, per_device: int, cores: int, devices: int) -> tuple[list[str], list[str]]:
    free = max(1, cores // devices)
    if not workers:
        return ["videos are decoded in the training process itself"], [f"loader.workers_per_device={max(1, free - 1)}"]
    told = f"{workers} reading process{'es' if workers > 1 else ''} on {cores} core{'s' if cores > 1 else ''}"
    # A training that waits leaves its own core idle too: as many readers as cores are of use.
    if per_device < free:
        return [told], [f"loader.workers_per_device={free}"]
    return [f"{told}, so more of them do not help"], []
