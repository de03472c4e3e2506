"""TAP-Vid: its pickles become, once, folders of pictures and tracks that every program here reads.

    OUT/frames/<video>/00000.png    OUT/truth/<video>.npz    OUT/manifest.csv

Source: Doersch, Gupta, Markeeva, Recasens, Smaira, Aytar, Carreira, Zisserman, Yang, "TAP-Vid: A Benchmark for Tracking Any
Point in a Video", NeurIPS 2022. A pickle is a dictionary of videos by name (DAVIS) or a list of videos (RGB-Stacking,
Kinetics). Each holds ``video`` (frames x height x width x 3, bytes; or its frames as JPEG files), ``points`` (points x frames
x 2: x and y as shares of width and height) and ``occluded`` (points x frames).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssvid.data.index.building import build_manifest
from ssvid.data.plain_pickle import load_plain_pickle
from ssvid.data.readers.matching import OfficialSplit
from ssvid.data.readers.tapvid import FRAMES, TRUTH, read_tapvid
from ssvid.errors import DataError
from ssvid.files import folder_appearing_whole, require_empty_folder, takes_paths
from ssvid.progress import NamedProgress
from ssvid.video.frame_folders import PICTURES_FPS

_KEYS = ("video", "points", "occluded")
# No path, no hidden folder, nothing that a file system refuses.
_FOLDER_NAME = re.compile(r"[^./\\\0][^/\\\0]{0,199}")
_JPEG = b"\xff\xd8"
_WAY_OUT = "Take a pickle of TAP-Vid as it is published: tapvid_davis.pkl, tapvid_rgb_stacking.pkl."


@dataclass(frozen=True)
class ConvertedTapVid:
    """What ``convert_tapvid`` wrote. Prints as a line.

    out: the folder. num_videos, num_frames, num_points: in all.
    """

    out: Path
    num_videos: int
    num_frames: int
    num_points: int

    def __str__(self) -> str:
        counts = f"{self.num_videos} videos of {self.num_frames} frames and {self.num_points} points in all"
        return f"{counts}, written to {self.out}"


@takes_paths("pickle_path", "out")
def convert_tapvid(
    pickle_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    fps: float = PICTURES_FPS,
    workers: int = 0,
    progress: NamedProgress | None = None,
) -> ConvertedTapVid:
    """Write the videos of a pickle as PNG, without loss, their tracks, and the table of both.

    No code of the pickle is run. It is read whole, so it needs its size in memory. ``out`` appears when it is complete:
    what a killed process leaves is a hidden folder beside it, which the next call removes.

    Differs: TAP-Vid's coordinates count from the corner of a frame; here the center of the first pixel is (0, 0), half a
    pixel further.

    Args:
        out: a new or empty folder.
        fps: frames per second for the table; the pickle does not tell it.
        workers: processes that look through what was written; 0 is one per core.
        progress: called as progress(videos done, videos in all, name).

    Raises:
        DataError: the pickle is none of TAP-Vid, asks to run code, or is damaged; ``out`` holds something.
    """
    pickle_path, out = Path(pickle_path), Path(out)
    require_empty_folder(out)
    videos = list(_videos(load_plain_pickle(pickle_path), pickle_path))
    counts = []
    with folder_appearing_whole(out) as partial:
        for number, (name, video) in enumerate(videos, start=1):
            counts.append(_write(partial, name, video, f"{pickle_path}: video {name!r}"))
            if progress:
                progress(number, len(videos), name)
        listing = read_tapvid(partial, OfficialSplit()).at_rate(fps)
        build_manifest(partial, listing, workers=workers, cache=False).save(partial / "manifest.csv")
    num_frames, num_points = map(sum, zip(*counts, strict=True))
    return ConvertedTapVid(out, len(videos), num_frames, num_points)


def _videos(content: Any, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Names and contents of the videos. Those of a list are named by their numbers."""
    if isinstance(content, dict):
        named: Iterable[tuple[Any, Any]] = content.items()
    elif isinstance(content, list):
        named = ((f"{number:05d}", video) for number, video in enumerate(content))
    else:
        raise DataError(
            f"{path} must hold a dictionary or a list of videos, it holds a {type(content).__name__}. {_WAY_OUT}"
        )
    if not content:
        raise DataError(f"{path} must hold at least one video, it holds none. {_WAY_OUT}")
    for name, video in named:
        if not isinstance(name, str) or not _FOLDER_NAME.fullmatch(name):
            raise DataError(
                f"{path}: the name of a video ({name!r}) must be a text that can be the name of a folder. {_WAY_OUT}"
            )
        lacking = [key for key in _KEYS if key not in video] if isinstance(video, dict) else list(_KEYS)
        if lacking:
            raise DataError(
                f"{path}: video {name!r} must hold {', '.join(_KEYS)}; it lacks {', '.join(lacking)}. {_WAY_OUT}"
            )
        yield name, video


def _write(partial: Path, name: str, video: Mapping[str, Any], what: str) -> tuple[int, int]:
    """Write a video and its tracks; returns the numbers of frames and of points."""
    frames = _frames(video["video"], what)
    points, occluded = (
        _numbers(video["points"], "f", what, "points"),
        _numbers(video["occluded"], "b", what, "occluded"),
    )
    if points.ndim != 3 or points.shape[1:] != (len(frames), 2) or occluded.shape != points.shape[:2]:
        raise DataError(
            f"{what}: points must be of shape points x {len(frames)} (frames) x 2, and occluded points x frames; they are"
            f" {points.shape} and {occluded.shape}. {_WAY_OUT}"
        )
    (partial / FRAMES / name).mkdir(parents=True)
    (partial / TRUTH).mkdir(exist_ok=True)
    size = _write_frames(partial / FRAMES / name, frames, what)
    tracks_TQ2 = points.astype(np.float64).transpose(1, 0, 2) * np.array(size) - 0.5
    np.savez_compressed(partial / TRUTH / f"{name}.npz", tracks=tracks_TQ2, visible=~occluded.astype(bool).T)
    return len(frames), len(points)


def _numbers(array: Any, kinds: str, what: str, name: str) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds:
        found = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
        raise DataError(
            f"{what}: {name} must be an array of {'numbers' if kinds == 'f' else 'true and false'}, it is {found}. {_WAY_OUT}"
        )
    return array


def _frames(video: Any, what: str) -> Sequence[Any]:
    if (
        isinstance(video, np.ndarray)
        and video.dtype == np.uint8
        and video.ndim == 4
        and video.shape[3] == 3
        and video.size
    ):
        return list(video)
    if isinstance(video, list) and video and all(isinstance(one, bytes) and one.startswith(_JPEG) for one in video):
        return video
    found = f"an array of {video.dtype} {video.shape}" if isinstance(video, np.ndarray) else f"a {type(video).__name__}"
    raise DataError(
        f"{what}: video must be bytes of shape frames x height x width x 3, or a list of JPEG files; it is {found}. {_WAY_OUT}"
    )


def _write_frames(folder: Path, frames: Sequence[Any], what: str) -> tuple[int, int]:
    """Write pictures; JPEG files as they are. Returns width and height."""
    if isinstance(frames[0], bytes):
        for number, content in enumerate(frames):
            (folder / f"{number:05d}.jpg").write_bytes(content)
        try:
            with Image.open(folder / "00000.jpg", formats=("JPEG",)) as first:
                return first.size
        except (OSError, SyntaxError, ValueError) as cause:
            raise DataError(f"{what}: the first frame is no JPEG ({cause}). {_WAY_OUT}") from cause
    for number, frame_HWC in enumerate(frames):
        Image.fromarray(frame_HWC).save(folder / f"{number:05d}.png", compress_level=1)
    height, width = frames[0].shape[:2]
    return width, height
