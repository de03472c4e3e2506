"""The films of ``ssvid speed``: the video as the page plays it, the map painted on it, the adaptive and the uniform speed-up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from ssvid.apps.asking import MapSums
from ssvid.apps.coloring import MapScale, overlaid
from ssvid.evals.label_propagation.drawing import evened, key_frame_sheet, key_frames, shrunk
from ssvid.evals.label_propagation.films import CRF, CRF_SMALL, write_film
from ssvid.programs.footage import OpenedVideo
from ssvid.progress import Progress

PAGE_PX = 640  # longer side of the films that stand above the curve
_TINY_PX = 320  # longer side below which a picture is made larger
_THUMBNAILS, _THUMB_PX = 10, 96
_SHEET_FRAMES, _SHEET_PX = 12, 320


def numbered_frames(video: OpenedVideo, film_frames: np.ndarray) -> Iterator[np.ndarray]:
    """The frames of these numbers in turn, uint8 HWC; numbers rise, and may come again.

    Raises:
        DecodeError: one cannot be read.
    """
    numbers, times = np.unique(film_frames, return_counts=True)
    with closing(video.frames(numbers)) as frames:
        for frame_HWC, count in zip(frames, times, strict=True):
            for _ in range(count):
                yield frame_HWC


def write_mapped(path: Path, video: OpenedVideo, film_frames: np.ndarray, fps: float, told: Progress) -> int:
    """A film of exactly these frames, in the size of the video; the number of frames.

    Raises:
        DecodeError: one cannot be read.
    """
    with closing(numbered_frames(video, film_frames)) as frames:  # type: ignore[type-var]
        return write_film(path, _told(frames, told, len(film_frames)), fps, crf=CRF)


class PageFilm:
    """The video as the page plays it, at an even rate, and what is seen on the way.

    thumbnails: (beat, picture). poster: of the beat in the middle. sheet: (caption, picture) of beats that are spread evenly.
    """

    def __init__(self, video: OpenedVideo, frames_N: np.ndarray, fps: float) -> None:
        self.video, self.frames_N, self.fps = video, frames_N, fps
        self.thumbnails: list[tuple[int, np.ndarray]] = []
        self.poster: np.ndarray | None = None
        self.sheet: list[tuple[str, np.ndarray]] = []

    def write(self, path: Path, told: Progress) -> None:
        """The plain film."""
        count = len(self.frames_N)
        # Beside one another without overlapping: each stands in the middle of its share of the time.
        at = {int((k + 0.5) * count / _THUMBNAILS) for k in range(min(_THUMBNAILS, count))}

        def seen(beat: int, small_HWC: np.ndarray) -> np.ndarray:
            if beat in at:
                self.thumbnails.append((beat, shrunk(small_HWC, _THUMB_PX)))
            if beat == count // 2:
                self.poster = evened(small_HWC)
            return small_HWC

        self._write(path, seen, told)

    def write_map(self, path: Path, maps: MapSums, captions: Callable[[int], str], told: Progress) -> None:
        """The same with the map on it. captions: of a beat, below which it stands in the sheet."""
        scale, at = MapScale.of(maps), set(key_frames(len(self.frames_N), _SHEET_FRAMES))

        def painted(beat: int, small_HWC: np.ndarray) -> np.ndarray:
            picture_HWC = overlaid(small_HWC, *maps.at(beat), scale)
            if beat in at:
                self.sheet.append((captions(beat), shrunk(picture_HWC, _SHEET_PX)))
            return picture_HWC

        self._write(path, painted, told)

    @property
    def sheet_picture(self) -> np.ndarray:
        """All pictures of the sheet, four to a row."""
        return key_frame_sheet(self.sheet)

    def _write(self, path: Path, change: Callable[[int, np.ndarray], np.ndarray], told: Progress) -> None:
        with closing(numbered_frames(self.video, self.frames_N)) as frames:  # type: ignore[type-var]
            pictures = (change(beat, page_size(frame_HWC)) for beat, frame_HWC in enumerate(frames))
            write_film(path, _told(pictures, told, len(self.frames_N)), self.fps, crf=CRF_SMALL)


def page_size(frame_HWC: np.ndarray) -> np.ndarray:
    """A frame as large as the page shows it."""
    if max(frame_HWC.shape) < _TINY_PX:
        times = _TINY_PX / max(frame_HWC.shape)
        size = round(frame_HWC.shape[1] * times), round(frame_HWC.shape[0] * times)
        return np.asarray(Image.fromarray(frame_HWC).resize(size, Image.Resampling.BICUBIC))
    return shrunk(frame_HWC, PAGE_PX)


def _told(pictures: Iterator[np.ndarray], told: Progress, total: int) -> Iterator[np.ndarray]:
    for number, picture_HWC in enumerate(pictures):
        yield picture_HWC
        told(number + 1, total)
