"""The descriptors of trajectories, video by video: measured once, by reading processes, and kept under all that they depend on."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.errors import DecodeError, DiskFull
from ssvid.features.kept import Kept, Place
from ssvid.features.protocol import FeatureProtocol
from ssvid.features.reading import check_contents, check_decoder, in_order
from ssvid.features.store import content_of, digest_of, video_name
from ssvid.features.trajectories import NUM_VALUES, describe, follow
from ssvid.progress import Progress
from ssvid.ranks import share_work, where_all_agree
from ssvid.video.decoders.contract import VideoReader
from ssvid.video.flow import short_side_at
from ssvid.video.optical_flow import one_thread, require_opencv, resized
from ssvid.video.sampling import evenly_spaced_clips

# Part of the name of what is kept: raise it whenever the same frames would give other descriptors.
VERSION = 1
TRACKS_KEPT = 1000  # of a video, 1.7 MB
MOST_PX = (
    240  # short side of a frame; larger ones are shrunk to it, for what counts as a step or as static is told in pixels
)
MOST_FRAMES, STRETCHES = 320, 4  # of a longer video so many frames are followed, in stretches spread evenly


def stretches(num_frames: int) -> tuple[np.ndarray, ...]:
    """Which frames of a window are followed: all, or of a long one ``MOST_FRAMES`` in stretches that are spread evenly."""
    if num_frames <= MOST_FRAMES:
        return (np.arange(num_frames),)
    return evenly_spaced_clips(num_frames, STRETCHES, MOST_FRAMES // STRETCHES)


def video_descriptors(reader: VideoReader, row: VideoRow) -> np.ndarray:
    """The descriptors of at most ``TRACKS_KEPT`` tracks of a window, drawn from all of them: float32 (N, 426).

    Raises:
        DecodeError: a frame cannot be read.
    """
    rng = np.random.default_rng(0)
    values_ND, lot_N = np.empty((0, NUM_VALUES), np.float32), np.empty(0)
    for frames in stretches(row.window_frames):
        for tracks in follow(gray_frames(reader, row.start_frame + frames)):
            lots = rng.random(len(tracks.starts_N))
            few = lots < (lot_N.max() if len(lot_N) == TRACKS_KEPT else 1)
            if not few.any():
                continue
            lot_N = np.concatenate([lot_N, lots[few]])
            values_ND = np.concatenate([values_ND, describe(tracks.at(few))])
            if len(lot_N) > TRACKS_KEPT:  # those with the smallest lots stay: as if all were drawn from at the end
                first = np.sort(np.argpartition(lot_N, TRACKS_KEPT)[:TRACKS_KEPT])
                values_ND, lot_N = values_ND[first], lot_N[first]
    return values_ND


def gray_frames(reader: VideoReader, indices: np.ndarray) -> list[np.ndarray]:
    """Frames of a video, gray, uint8 HW, whole, with a short side of ``MOST_PX`` at most."""
    cv2 = require_opencv()
    height, width = reader.info.height, reader.info.width
    size = short_side_at(height, width, min(MOST_PX, height, width))
    found: dict[int, np.ndarray] = {}
    with one_thread(cv2):
        for place, frame_HWC in reader.each_frame(indices):  # a place that comes again counts anew
            gray_HW = cv2.cvtColor(np.ascontiguousarray(frame_HWC), cv2.COLOR_RGB2GRAY)
            found[place] = resized(gray_HW, *size)
    return [found[place] for place in range(len(indices))]


class _Video(NamedTuple):
    """What one video gave: its descriptors, or the reason why it gave none."""

    values_ND: np.ndarray | None
    reason: str = ""


class _Videos(Dataset):
    """The descriptors of one row per item. Holds plain values only, so that any start method can pickle it."""

    def __init__(self, root: Path, rows: Sequence[VideoRow], protocol: FeatureProtocol) -> None:
        self.root, self.rows, self.protocol = root, tuple(rows), protocol

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> _Video:
        row = self.rows[index]
        try:
            with row.open(self.root, self.protocol.decoder) as reader:
                return _Video(video_descriptors(reader, row))
        except DecodeError as error:
            return _Video(None, str(error))


# ---- the descriptors of all videos


class Shelf:
    """Descriptors by the names of videos, in the cache; what it does not take lies in a temporary folder."""

    def __init__(self, folder: Path, temporary: Path) -> None:
        self._folders = (folder, temporary)
        self._kept = Kept(folder)

    def put(self, name: str, values_ND: np.ndarray) -> None:
        """Keep the descriptors of a video."""
        try:
            self._kept.put({name: values_ND}, {})
        except (OSError, DiskFull) as error:
            if self._kept.folder == self._folders[1]:
                raise
            warnings.warn(f"trajectories are not kept for the next time: {error}", stacklevel=2)
            self._kept = Kept(self._folders[1])
            self._kept.put({name: values_ND}, {})

    def places(self, names: Container[str]) -> dict[str, Place]:
        """Where those of these videos lie that are there."""
        records = (record for folder in dict.fromkeys(self._folders) for record in Kept(folder).records())
        found: dict[str, Place] = {}
        for record in records:
            if record.name in names:
                found.setdefault(record.name, record.place)
        return found


@contextmanager
def shelf(cache_dir: Path | None) -> Iterator[Shelf]:
    """Where descriptors of this version are kept."""
    versions = {"version": VERSION, "opencv": require_opencv().__version__}
    with tempfile.TemporaryDirectory() as temporary:
        kept = Path(temporary) if cache_dir is None else Path(cache_dir) / digest_of({"trajectories": versions})[:40]
        yield Shelf(kept, Path(temporary))


class Measured(NamedTuple):
    """The videos of one side. places: of descriptors, by the number of the row. lost: why a row has none."""

    rows: tuple[VideoRow, ...]
    protocol: FeatureProtocol
    places: Mapping[int, Place]
    lost: Mapping[int, str]

    @property
    def empty(self) -> list[str]:
        """The videos in which no track was found."""
        return [row_id(self.rows[i]) for i, place in sorted(self.places.items()) if not place.shape[0]]


def measured(
    manifest: Manifest, rows: Sequence[VideoRow], protocol: FeatureProtocol, kept: Shelf, progress: Progress
) -> Measured:
    """The descriptors of rows: those that are kept are taken, the others are measured; several processes share the work.

    Args:
        protocol: how videos are read; the clips and sizes of networks have no say.

    Raises:
        DataError: a file is not the one of the manifest, or a forced decoder is wrong. DecodeError: a reading process died.
    """
    check_decoder(rows, protocol)
    check_contents(manifest, rows)
    names = {
        i: video_name(content_of(manifest, row), row, _starts(row), protocol)
        for i, row in enumerate(rows)
        if row.is_readable
    }
    of_name = {name: rows[i] for i, name in names.items()}
    reasons: dict[str, str] = {}
    places = kept.places(of_name)

    def measure(wanted: Sequence[str]) -> dict[str, str]:
        mine = [of_name[name] for name in wanted]
        videos = in_order(_Videos(manifest.root, mine, protocol), manifest, mine, protocol)
        failed = {}
        for number, (name, video) in enumerate(zip(wanted, videos, strict=True)):
            if video.values_ND is not None:
                kept.put(name, video.values_ND)
            failed[name] = video.reason
            progress(number + 1, len(wanted))
        return failed

    def share(numbers: Sequence[int]) -> dict[int, str]:
        return dict(zip(numbers, measure([missing[n] for n in numbers]).values(), strict=True))

    settled = where_all_agree(np.array([name in places for name in of_name], dtype=bool))
    if missing := [name for name, is_there in zip(of_name, settled, strict=True) if not is_there]:
        shared = share_work(len(missing), share)
        reasons |= {missing[n]: reason for n, reason in shared.items() if reason}
        places = kept.places(of_name)
    if alone := [name for name in of_name if name not in places and name not in reasons]:
        measure(alone)  # what other processes keep where this one cannot see it
        places = kept.places(of_name)
    lost = {i: row.status for i, row in enumerate(rows) if not row.is_readable}
    lost |= {i: reasons[name] for i, name in names.items() if name in reasons}
    return Measured(tuple(rows), protocol, {i: places[name] for i, name in names.items() if name in places}, lost)


def _starts(row: VideoRow) -> np.ndarray:
    return np.array([frames[0] for frames in stretches(row.window_frames)])
