"""What a folder of pictures holds, learned by reading all of them."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ssvid.errors import DecodeError
from ssvid.types import VideoInfo
from ssvid.video.decoders.pictures import read_picture, size_problem
from ssvid.video.frame_folders import checked_folder, list_frames
from ssvid.video.progress import beat
from ssvid.video.values import ValueRange, gray_levels


def survey_pictures(
    path: str | os.PathLike[str], fps: float, gray_range: Sequence[int] = ()
) -> tuple[VideoInfo, dict[str, str]]:
    """Read every picture of a folder once; memory holds one at a time.

    A damaged picture makes the folder unreadable: left out, it would move all later frames, and what is known of them.

    Args:
        fps: frames per second, which pictures do not tell.
        gray_range: see ``VideoInfo``; ``info`` has it only where a picture is gray of more than 8 bits.

    Returns:
        What the video is, and notes by subject.

    Raises:
        DecodeError: the folder holds no two pictures, some cannot be read, or one has another size than the first.
    """
    folder = checked_folder(path)
    frames = list_frames(folder)
    survey = _Survey(folder, gray_levels(*gray_range) if gray_range else None)
    for name in frames.names:
        survey.take(name)
        beat()
    survey.refuse_damaged(len(frames.names))
    notes = {"fps": f"pictures tell no rate, {fps:g} is taken"}
    if oddities := [*frames.oddities(), *survey.oddities()]:
        notes["pictures"] = ", ".join(oddities)
    if note := survey.values.note(survey.bits, is_deep_gray=survey.bits > 8, is_stretched=bool(gray_range)):
        notes["range"] = note
    kept_range = tuple(gray_range) if survey.bits > 8 else ()
    height, width = survey.shape[:2]
    return VideoInfo(folder, len(frames.names), fps, height, width, gray_range=kept_range), notes


class _Survey:
    """All pictures of a folder, one after the other. shape: of the first. bits: of a gray picture with more than 8, else 8."""

    def __init__(self, folder: str, levels: np.ndarray | None) -> None:
        self._folder, self._levels = folder, levels
        self._first = ""
        self._damaged: list[tuple[str, DecodeError]] = []
        self._num_indexed = self._num_paged = 0
        self.shape: tuple[int, ...] = ()
        self.bits = 8
        self.values = ValueRange()

    def take(self, name: str) -> None:
        """Read the next picture. Raises DecodeError where its size is not that of the first."""
        try:
            picture = read_picture(os.path.join(self._folder, name), self._levels)
        except DecodeError as error:
            self._damaged.append((name, error))
            return
        if not self._first:
            self._first, self.shape = name, picture.pixels_HWC.shape
        if picture.pixels_HWC.shape != self.shape:
            raise DecodeError(self._folder, size_problem(name, picture.pixels_HWC, self._first, self.shape))
        self.bits = max(self.bits, picture.bits)
        self._num_indexed += picture.is_indexed
        self._num_paged += picture.num_pages > 1
        self.values.add(picture.pixels_HWC)

    def refuse_damaged(self, num_pictures: int) -> None:
        """Raise DecodeError where a picture could not be read: it names the first."""
        if self._damaged:
            name, error = self._damaged[0]
            what = f"{len(self._damaged)} of {num_pictures} pictures cannot be read, the first is {name}"
            raise DecodeError(self._folder, what, error.cause or error.what)

    def oddities(self) -> list[str]:
        """What the pictures leave to ask."""
        indexed = f"{self._num_indexed} pictures are numbers of a palette's colors, as masks are"
        paged = f"{self._num_paged} files hold several pictures, of which the first is read"
        return [indexed] * bool(self._num_indexed) + [paged] * bool(self._num_paged)
