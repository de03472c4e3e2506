"""Frames out of a folder of pictures, by Pillow: frame i is the i-th picture in the order of the numbers in the names.

Taken because the path is a folder, whatever decoder is asked for: no decoder of videos reads folders. The pixels are
Pillow's, so that they are those of every other program that reads the pictures by it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Generator, Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ssvid.errors import DecodeError
from ssvid.types import VideoInfo
from ssvid.video.decoders.contract import VideoReader
from ssvid.video.frame_folders import KIND_OF_ENDING, checked_folder, list_frames
from ssvid.video.progress import beat
from ssvid.video.values import gray_levels

DISTRIBUTION = "PIL"
WAY_OUT = "pip install 'pillow>=10.1'"

# Whatever the name says, the content must be of one of these: Pillow hands some other formats to programs outside.
_FORMATS = tuple(dict.fromkeys(KIND_OF_ENDING.values()))
# What Pillow was seen to raise on broken pictures; nothing of it is a mistake of the caller's.
_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError),
    *(IndexError, KeyError, TypeError, OverflowError, ZeroDivisionError),
)


def load() -> ModuleType:
    """Import the library."""
    return Image


def open_reader(path: str, info: VideoInfo, *, seek: bool = True) -> VideoReader:
    """Open a folder; every frame is found at once."""
    return PictureReader(path, info)


class Picture(NamedTuple):
    """A picture as it was read.

    pixels_HWC: uint8 RGB, upright. bits: 16 where it is gray of more than 8 bits, else 8. is_indexed: its pixels are
    numbers of a palette's colors. num_pages: pictures in the file, of which this is the first.
    """

    pixels_HWC: np.ndarray
    bits: int
    is_indexed: bool
    num_pages: int


def read_picture(path: str | os.PathLike[str], levels: np.ndarray | None = None) -> Picture:
    """Read a picture as a video's frame: 8-bit RGB, transparency left out, turned as its EXIF orientation says.

    Color spaces are converted without color profiles. Gray of 16 bits keeps its upper 8
    (FFmpeg, which reads video files, rounds them: values may be one apart).

    Args:
        levels: for each value of 16-bit gray one of 8 bits instead, see ``gray_levels``.

    Raises:
        DecodeError: it cannot be read, is of none of the kinds in ``KIND_OF_ENDING``, or holds real or 32-bit numbers.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            image.load()
            upright = (
                image if image.getexif().get(ExifTags.Base.Orientation, 1) == 1 else ImageOps.exif_transpose(image)
            )
            gray_HW = _deep_gray(upright, image.format)
            pixels_HWC = _rgb(upright) if gray_HW is None else _shallow(gray_HW, levels)
            num_pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            return Picture(pixels_HWC, 8 if gray_HW is None else 16, image.mode == "P", num_pages)
    except _ERRORS as error:
        raise DecodeError(os.fspath(path), "not a picture that can be read whole", _plain(error)) from error


def _plain(error: BaseException) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"it holds none of {', '.join(_FORMATS)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"


def _deep_gray(image: Image.Image, format: str | None) -> np.ndarray | None:
    """The values of a gray picture of more than 8 bits, uint16; None of any other.

    Raises:
        ValueError: they need more than 16 bits.
    """
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16, copy=False)
    # Gray PNG of 16 bits in older versions of Pillow, and PGM, come as 32 bits.
    if image.mode == "I" and format in ("PNG", "PPM"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        raise ValueError("its values are real or of 32 bits, and frames have 8; save it as gray of 16 bits")
    return None


def _shallow(gray_HW: np.ndarray, levels: np.ndarray | None) -> np.ndarray:
    bytes_HW = (gray_HW >> 8).astype(np.uint8) if levels is None else levels[gray_HW]
    return np.repeat(bytes_HW[..., None], 3, axis=2)


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colors; Pillow would warn of the other way
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


class PictureReader(VideoReader):
    """A folder of pictures as a video; each frame is one file, opened when it is asked for."""

    def __init__(self, path: str | os.PathLike[str], info: VideoInfo) -> None:
        super().__init__(path, info)
        self._names: Sequence[str] = list_frames(self.path).names
        self._levels = gray_levels(*info.gray_range) if info.gray_range else None
        if len(self._names) != info.num_frames:
            what = f"the folder holds {len(self._names)} pictures, the index says {info.num_frames}: it changed"
            raise DecodeError(self.path, what)

    def _checked(self, path: str | os.PathLike[str]) -> str:
        return checked_folder(path)

    def _decode_sorted(self, indices: np.ndarray) -> Generator[tuple[int, np.ndarray]]:
        expected = (self.info.height, self.info.width, 3)
        for place, index in enumerate(indices.tolist()):
            if not self._names:
                raise DecodeError(self.path, "the reader is closed")
            name = self._names[index]
            pixels_HWC = read_picture(os.path.join(self.path, name), self._levels).pixels_HWC
            beat()
            if pixels_HWC.shape != expected:
                raise DecodeError(self.path, size_problem(name, pixels_HWC, "the index", expected))
            yield place, pixels_HWC

    def close(self) -> None:
        """Forget the names."""
        self._names = ()


def size_problem(name: str, pixels_HWC: np.ndarray, other: str, expected: tuple[int, ...]) -> str:
    """What is wrong with a picture of another size, in words. other: what has the size that is expected."""
    sizes = [f"{shape[1]} x {shape[0]}" for shape in (pixels_HWC.shape, expected)]
    return f"picture {name} has {sizes[0]} pixels and {other} {sizes[1]}; all pictures of a clip must have one size"
