"""One's own video, and what is known of some of its frames. All is checked before a network is loaded."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ssvid.data.index.building import scan_row
from ssvid.data.manifest import UNREADABLE, VideoRow
from ssvid.data.masks import Masks
from ssvid.data.readers import Entry
from ssvid.data.truth import read_truth
from ssvid.errors import DataError
from ssvid.files import expanded
from ssvid.video import resolve_decoder
from ssvid.video.decoders.contract import frames_in_turn
from ssvid.video.scan import read_times

_USUAL_FPS = 25.0  # of a video that tells none


@dataclass(frozen=True)
class Footage:
    """A video and what is followed through it; masks or points, or both.

    masks: frame -> picture with the objects' ids (``ssvid.data.masks``): one byte a pixel, 0 the background, 1 to K the
    objects, 255 void; of the video's size. A later mask sets all objects that it holds anew; others are carried on.
    points: (frame, x, y) in pixels, the middle of the upper left one at (0, 0).
    truth: masks to compare with: a folder of PNGs, or an ``.npz`` of ``ssvid data synth``; None where it is not known.
    decoder: ``auto``, or one that is right for the file.
    """

    video: str | Path
    masks: Mapping[int, str | Path] = field(default_factory=dict)
    points: Sequence[tuple[int, float, float]] = ()
    truth: str | Path | None = None
    decoder: str = "auto"


@dataclass(frozen=True)
class OpenedVideo:
    """One's own video, scanned and found to be readable. root, row: where it is, and what it holds."""

    root: Path
    row: VideoRow
    decoder: str

    @property
    def path(self) -> Path:
        """Of the file or the folder."""
        return self.root / self.row.path

    @property
    def num_frames(self) -> int:
        """Of the whole video."""
        return self.row.num_frames

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width."""
        return self.row.height, self.row.width

    @property
    def fps(self) -> float:
        """Frames per second; the usual where the file tells none."""
        return self.row.fps if self.row.fps > 0 else _USUAL_FPS

    def frames(self, indices: np.ndarray | None = None) -> Generator[np.ndarray]:
        """Frames in turn, uint8 HWC, read anew; no more than a few are in memory.

        Args:
            indices: which ones, int64, rising without repeats; None is all.

        Raises:
            DecodeError: one cannot be read.
        """
        with (
            self.row.open(self.root, self.decoder) as reader,
            closing(frames_in_turn(reader, np.arange(self.num_frames) if indices is None else indices)) as frames,
        ):
            yield from frames

    def seconds(self) -> np.ndarray:
        """When each frame is shown."""
        times = None
        if self.row.variable_fps or "time: " in self.row.notes:
            times = read_times(self.root / self.row.path, self.row.num_frames)
        return times.seconds if times is not None else np.arange(self.row.num_frames) / self.fps


@dataclass(frozen=True)
class OpenedFootage(OpenedVideo):
    """Footage that was found to be in order. given: frame -> ids HW.

    ids: of all objects, ascending. first_given: object -> frame. points_Q3: frame, x, y. truth: None where it is not known.
    """

    given: Mapping[int, np.ndarray]
    first_given: Mapping[int, int]
    points_Q3: np.ndarray
    truth: Masks | None

    @property
    def ids(self) -> tuple[int, ...]:
        """Of all objects, in ascending order."""
        return tuple(sorted(self.first_given))

    @property
    def true_ids(self) -> tuple[int, ...]:
        """Those of the objects that the truth holds too."""
        return tuple(sorted(set(self.ids) & set(self.truth.ids))) if self.truth is not None else ()


def open_own_video(path: str | Path, decoder: str = "auto", *, named: str = "VIDEO") -> OpenedVideo:
    """A video of one's own. It is scanned, unless it was before. named: what the caller calls it, for errors.

    Raises:
        DataError: it is not there, or cannot be read. SsvidError: an unknown decoder.
    """
    resolve_decoder(decoder)
    return OpenedVideo(*_scanned(Path(expanded(path)), named), decoder)


def open_footage(footage: Footage) -> OpenedFootage:
    """The footage, checked. The video is scanned, unless it was before; masks are read.

    Raises:
        DataError: nothing is given, or it does not fit the video, or the video cannot be read. SsvidError: an unknown decoder.
    """
    if not footage.masks and not footage.points:
        raise DataError(
            "there is nothing to follow: neither a mask nor a point is given. Add --mask FILE (a PNG with the objects of the "
            "first frame), or --points x,y."
        )
    resolve_decoder(footage.decoder)
    for path in footage.masks.values():
        if not Path(expanded(path)).is_file():
            raise DataError(f"mask ({path}) does not exist, or is no file. Name a PNG of the size of the video.")
    root, row = _scanned(Path(expanded(footage.video)), "--video")
    if row.num_frames < 2:
        raise DataError(
            f"{root / row.path} has {row.num_frames} frame, and nothing can be followed through it: a video must have at least 2."
            " Name another one."
        )
    given, first_given = _given(footage.masks, row)
    points_Q3 = _points(footage.points, row)
    truth = _truth(Path(expanded(footage.truth)), row) if footage.truth is not None else None
    if truth is not None and not given:
        raise DataError(
            "--truth compares masks, and no mask is given to be followed. Add --mask, or leave --truth out."
        )
    return OpenedFootage(root, row, footage.decoder, given, first_given, points_Q3, truth)


def _scanned(path: Path, named: str) -> tuple[Path, VideoRow]:
    if not path.exists():
        raise DataError(f"{named} ({path}) does not exist. Name a video, or a folder of numbered pictures.")
    path = Path(os.path.abspath(path))
    row = scan_row(path.parent, Entry(path.name))
    if not row.is_readable:
        reason = row.status.removeprefix(f"{UNREADABLE}: ").rstrip(".")
        raise DataError(
            f"{named} ({path}) must be a video that can be read, or a folder of numbered pictures: {reason}. Check with another "
            "player that it is whole, or name another one."
        )
    return path.parent, row


def _given(masks: Mapping[int, str | Path], row: VideoRow) -> tuple[dict[int, np.ndarray], dict[int, int]]:
    """The ids of each given frame, and in which of them each object is first seen."""
    if not masks:
        return {}, {}
    read = Masks(
        {frame: Path(expanded(path)) for frame, path in masks.items()},
        num_frames=row.num_frames,
        height=row.height,
        width=row.width,
        where="the masks that are given",
    )
    first_given = {number: frame for frame, numbers in read.given().items() for number in numbers}
    given = {}
    for frame in read.frames:
        labels_HW = read.at(frame)
        assert labels_HW is not None  # it is one of those
        given[frame] = labels_HW.copy()  # pictures are read only, which torch does not like
        if not set(np.unique(labels_HW).tolist()) & set(first_given):
            raise DataError(
                f"{masks[frame]} holds no object: a mask that is given for a frame must hold one. Leave it out, or draw one."
            )
    return given, first_given


def _points(points: Sequence[tuple[int, float, float]], row: VideoRow) -> np.ndarray:
    """The points as float64. Raises DataError where one is outside."""
    array = np.array([tuple(point) for point in points], dtype=np.float64).reshape(-1, 3)
    for frame, x, y in array.tolist():
        if not (-0.5 <= x < row.width - 0.5 and -0.5 <= y < row.height - 0.5):
            raise DataError(
                f"point {x:g},{y:g} lies outside the video, which has {row.width}x{row.height} pixels: x must be from 0 to "
                f"{row.width - 1} and y from 0 to {row.height - 1}. Count from the upper left pixel."
            )
        if not 0 <= frame < row.num_frames:
            raise DataError(
                f"point {x:g},{y:g} is given in frame {frame:g}, and the video has frames 0 to {row.num_frames - 1}. "
                "Give it in a frame that is there."
            )
    return array


def _truth(path: Path, row: VideoRow) -> Masks:
    if not path.exists():
        raise DataError(f"--truth ({path}) does not exist. Name a folder of masks, or leave it out.")
    masks = read_truth(path.parent, replace(row, truth=path.name)).masks
    if masks is None:
        raise DataError(f"--truth ({path}) holds no masks. Name a folder of PNG masks of the video's frames.")
    return masks
