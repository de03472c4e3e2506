"""Masks of objects, or of parts of people, frame by frame. They are read from pictures when they are asked for.

How ids are stored, as DAVIS-2017 (Pont-Tuset et al., 2017), YouTube-VOS and VIP (Zhou et al., 2018) do: a PNG of one byte a
pixel, 0 for the background, 1 to K for the objects, 255 for void; most often with the palette of PASCAL VOC. DAVIS-2016
(Perazzi et al., 2016) stores one object in gray: 255 is the object there and not void.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ssvid.errors import DataError, name_some

VOID = 255
MASK_EXTENSIONS = (".png",)
_BACKGROUND = 0
_WAY_OUT = "Fix the file, or fetch the masks again."


class Masks:
    """What is known of the objects in the frames of one video.

    Args:
        sources: frame -> its mask: the path of a picture, or uint8 HW. Frames without a mask are left out.
        num_frames, height, width: of the video.
        names: of the parts by id, the background first (VIP); () where the ids are objects, which must then be numbered
            1 to K without a gap.
        where: the folder or file, for the texts of errors.

    Nothing is read before it is asked for. ``given`` and ``ids`` read all masks once, so that a bad one is found before
    anything is computed.

    Raises:
        DataError: a frame lies outside the video. Later: a picture cannot be read, is of another size than the video, or
            holds no ids; the ids leave a gap. The file is named.
    """

    def __init__(
        self,
        sources: Mapping[int, Path | np.ndarray],
        *,
        num_frames: int,
        height: int,
        width: int,
        names: tuple[str, ...] = (),
        where: str = "the masks",
    ) -> None:
        self.num_frames, self.height, self.width = num_frames, height, width
        self.names, self.where = tuple(names), where
        self._sources = dict(sorted(sources.items()))
        outside = next((frame for frame in self._sources if not 0 <= frame < num_frames), None)
        if outside is not None:
            raise DataError(
                f"{self._name(outside)} is the mask of frame {outside}, and the video has frames 0 to {num_frames - 1}."
                " Remove it, or take the video that it belongs to."
            )

    @property
    def frames(self) -> tuple[int, ...]:
        """The frames that have a mask, ascending."""
        return tuple(self._sources)

    @property
    def ids(self) -> tuple[int, ...]:
        """All objects, or parts, that occur in any mask, ascending; never 0 or ``VOID``."""
        return tuple(sorted(number for numbers in self._given.values() for number in numbers))

    @cached_property
    def palette(self) -> bytes | None:
        """The palette of the first picture that has one: 256 times red, green, blue. None where none has."""
        for source in self._sources.values():
            if isinstance(source, Path) and (palette := _opened_palette(source)):
                return palette
        return None

    def at(self, frame: int) -> np.ndarray | None:
        """The mask of a frame, uint8 HW, new each time: 0 background, ``VOID`` void; None where this frame has none."""
        source = self._sources.get(frame)
        if source is None:
            return None
        if isinstance(source, Path):
            return self._ids_of(self._stored(source), frame)
        self._check_size(frame, source.shape[::-1])
        return source.copy()

    def given(self) -> Mapping[int, tuple[int, ...]]:
        """Frame -> objects that are first seen there, ascending: what a tracker is told. Frame 0, and later ones."""
        return dict(self._given)

    def cut(self, start: int, end: int) -> Masks:
        """The masks of frames [start, end), counted from start."""
        sources = {frame - start: source for frame, source in self._sources.items() if start <= frame < end}
        return Masks(
            sources,
            num_frames=end - start,
            height=self.height,
            width=self.width,
            names=self.names,
            where=self.where,
        )

    @cached_property
    def _given(self) -> dict[int, tuple[int, ...]]:
        given: dict[int, tuple[int, ...]] = {}
        for frame in self._sources:
            mask = self.at(frame)
            assert mask is not None  # it has a source
            seen = {number for numbers in given.values() for number in numbers}
            new = sorted(_values(mask) - {_BACKGROUND, VOID} - seen)
            if new:
                given[frame] = tuple(new)
        self._check_ids(given)
        first = min(self._sources, default=None)
        if first is not None and first not in given:
            raise DataError(
                f"{self._name(first)} holds no object, and it is the first mask of the video: nothing can be followed from it."
                " Take a mask in which the object is seen, or leave this one out."
            )
        return given

    def _check_ids(self, given: Mapping[int, tuple[int, ...]]) -> None:
        ids = sorted(number for numbers in given.values() for number in numbers)
        last = len(self.names) - 1 if self.names else len(ids)
        wrong = next((number for number in ids if number > last), None)
        if wrong is None:
            return
        frame = next(frame for frame, numbers in given.items() if wrong in numbers)
        rule = f"ids of parts must be 0 to {last}" if self.names else "objects must be numbered 1 to K without a gap"
        found = name_some([str(number) for number in ids], 8)
        raise DataError(
            f"{self._name(frame)} holds id {wrong}: {rule}, and 255 is void; {self.where} holds {found}. Ids between those of"
            " two objects come from resizing or smoothing a mask: save it with nearest neighbors, as PNG with a palette, or"
            " number the objects anew."
        )

    @cached_property
    def _is_binary(self) -> bool:
        """Whether one object is stored in gray as 255 (DAVIS-2016): the first mask that is not black holds 0 and 255 alone."""
        if self.names:
            return False
        for source in self._sources.values():
            stored, mode = _opened(source) if isinstance(source, Path) else (source, "ids")
            if stored.any():
                return mode == "L" and _values(stored) <= {_BACKGROUND, VOID}
        return False

    def _stored(self, path: Path) -> tuple[np.ndarray, str]:
        return _opened(path, (self.width, self.height))

    def _ids_of(self, stored_and_mode: tuple[np.ndarray, str], frame: int) -> np.ndarray:
        stored, mode = stored_and_mode
        if mode == "1":
            return stored.astype(np.uint8)
        if mode == "RGB":
            return ids_of_colors(stored, self._name(frame))
        if mode == "L" and self._is_binary:
            between = _values(stored) - {_BACKGROUND, VOID}
            if between:
                raise DataError(
                    f"{self._name(frame)} holds the gray value {min(between)}: a gray mask of one object holds 0 and 255 alone, as"
                    f" the first mask of {self.where} does. Save it without smoothing."
                )
            return (stored == VOID).astype(np.uint8)
        return stored

    def _check_size(self, frame: int, size: tuple[int, ...]) -> None:
        _check_size(self._name(frame), size, (self.width, self.height))

    def _name(self, frame: int) -> str:
        source = self._sources[frame]
        return str(source) if isinstance(source, Path) else f"{self.where}, frame {frame},"


def _values(stored: np.ndarray) -> set[int]:
    """The values of a picture of one byte a pixel. Counting takes a third of the time of sorting."""
    return set(np.flatnonzero(np.bincount(stored.ravel(), minlength=256)).tolist())


def _check_size(name: str, found: tuple[int, ...], wanted: tuple[int, int]) -> None:
    if tuple(found) != wanted:
        raise DataError(
            f"{name} has {'x'.join(map(str, found))} pixels (width x height), and the video"
            f" {wanted[0]}x{wanted[1]}: a mask must have the size of its video. Resize it with nearest neighbors, or take the"
            " masks that belong to this video."
        )


def _opened(path: Path, size: tuple[int, int] | None = None) -> tuple[np.ndarray, str]:
    """What a picture stores, and its mode: "P", "L" (both uint8 HW), "1" (bool HW), "RGB" (uint8 HWC)."""
    try:
        with Image.open(path) as image:
            if size:  # before anything is decoded
                _check_size(str(path), image.size, size)
            if image.mode not in ("P", "L", "1", "RGB"):
                kind = "16 bits a pixel" if image.mode.startswith(("I", "F")) else f"mode {image.mode}"
                raise DataError(
                    f"{path} has {kind}: a mask must be a PNG of one byte a pixel, with a palette or gray, or in the colors"
                    " of DAVIS (RGB). Save it as PNG with 8 bits and a palette."
                )
            return np.array(image), image.mode
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as cause:
        raise DataError(f"{path} cannot be read as a mask ({type(cause).__name__}: {cause}). {_WAY_OUT}") from cause


def _opened_palette(path: Path) -> bytes | None:
    try:
        with Image.open(path) as image:
            palette = image.getpalette() if image.mode == "P" else None
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as cause:
        raise DataError(f"{path} cannot be read as a mask ({type(cause).__name__}: {cause}). {_WAY_OUT}") from cause
    return bytes(palette).ljust(768, b"\0") if palette else None


def ids_of_colors(picture_HWC: np.ndarray, name: str) -> np.ndarray:
    """The ids of a picture in the colors under which DAVIS stores them, uint8 HW.

    Args:
        picture_HWC: uint8 RGB. name: of it, for errors.

    Raises:
        DataError: a color that is none of these.
    """
    from ssvid.pictures import voc_colors  # here: it brings torch, and most masks have a palette

    weights = np.array([1 << 16, 1 << 8, 1])
    codes_HW = picture_HWC.astype(np.int64) @ weights
    known = {int(code): number for number, code in enumerate(voc_colors().astype(np.int64) @ weights)}
    found, places = np.unique(codes_HW, return_inverse=True)
    unknown = next((int(code) for code in found if int(code) not in known), None)
    if unknown is not None:
        color = (unknown >> 16, unknown >> 8 & 255, unknown & 255)
        raise DataError(
            f"{name} holds the color {color}, which is none of the palette of DAVIS: a mask in color (RGB) must hold its"
            " colors alone. Save it as PNG with a palette, whose numbers are the objects."
        )
    ids = np.array([known[int(code)] for code in found], np.uint8)
    return ids[places.reshape(codes_HW.shape)]
