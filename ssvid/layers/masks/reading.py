"""Masks as people have them: painted in any program, or written by one for every frame.

A picture may be a PNG with a palette or gray whose values are the objects (DAVIS, ``ssvid track``), black and white with soft edges or
without, or in color with alpha, where the object is what is not transparent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ssvid.data.masks import VOID, ids_of_colors
from ssvid.errors import DataError, name_some
from ssvid.video.frame_folders import in_order, kind_of

_HALF = 128
_KINDS = "white on black, a PNG with alpha around the object, or a PNG with a palette whose numbers are the objects"


def read_mask(path: Path, height: int, width: int) -> np.ndarray:
    """The objects of a picture, uint8 HW: 0 is background, 1 and up the objects.

    Args:
        height, width: of the video, which the picture must have.

    Raises:
        DataError: it is not there, is no picture, has another size or colors that say nothing, or holds no object.
    """
    if not path.is_file():
        raise DataError(f"mask ({path}) does not exist, or is no file. Name a picture of the size of the video.")
    ids_HW = ids_of(_opened(path, height, width), str(path))
    if not ids_HW.any():
        raise DataError(f"{path} holds no object: it is empty. Paint the object: {_KINDS}.")
    return ids_HW


def read_mask_folder(folder: Path, height: int, width: int) -> dict[int, np.ndarray]:
    """The objects of all frames that have a mask: frame -> uint8 HW as ``read_mask``, but a frame may hold none.

    The last number in a picture's name is the frame; where no name has one, pictures are the frames in their order. ``ssvid track``
    and DAVIS write such folders.

    Raises:
        DataError: it is no folder, holds no picture, two pictures are of one frame, or as ``read_mask``.
    """
    if not folder.is_dir():
        raise DataError(
            f"masks ({folder}) is no folder. Name one with a picture for each frame: 00000.png, 00001.png, ..."
        )
    names = in_order(path.name for path in folder.iterdir() if path.is_file() and kind_of(path.name))
    if not names:
        raise DataError(
            f"{folder} holds no picture. Name a folder with a mask for each frame: 00000.png, 00001.png, ..."
        )
    masks: dict[int, np.ndarray] = {}
    for frame, name in _numbered(names, folder).items():
        masks[frame] = ids_of(_opened(folder / name, height, width), str(folder / name))
    if not any(ids_HW.any() for ids_HW in masks.values()):
        raise DataError(f"no picture in {folder} holds an object: all are empty. Paint the object: {_KINDS}.")
    return masks


def as_objects(
    ids: Mapping[int, np.ndarray], numbers: tuple[int, ...] = ()
) -> tuple[tuple[int, ...], dict[int, np.ndarray]]:
    """The numbers of all objects, ascending, and frame -> bool (N, H, W).

    Args:
        numbers: those that are wanted; () is all that occur.
    """
    found = tuple(sorted({int(number) for ids_HW in ids.values() for number in np.unique(ids_HW)} - {0}))
    chosen = numbers or found
    return chosen, {frame: np.stack([ids_HW == number for number in chosen]) for frame, ids_HW in ids.items()}


def ids_of(picture: Image.Image, name: str) -> np.ndarray:
    """The objects of an opened picture, uint8 HW. name: for errors.

    Raises:
        DataError: colors that say nothing.
    """
    if "A" in picture.getbands() or "transparency" in picture.info:
        alpha_HW = np.asarray(picture.convert("RGBA"))[..., 3]
        if alpha_HW.min() < VOID:
            return (alpha_HW >= _HALF).astype(np.uint8)
        picture = picture.convert("RGB")
    if picture.mode == "P":
        values_HW, is_white = np.asarray(picture), _white_entries(picture)
        return is_white[values_HW].astype(np.uint8) if is_white is not None else _of_numbers(values_HW)
    if picture.mode in ("1", "L"):
        return _of_grays(np.asarray(picture.convert("L")))
    if picture.mode.startswith(("I", "F")):
        raise DataError(f"{name} has 16 bits a pixel or more: a mask must have 8. Save it as {_KINDS}.")
    colors_HW3 = np.asarray(picture.convert("RGB"))
    if np.ptp(colors_HW3.astype(int), axis=2).max() == 0:
        return _of_grays(colors_HW3[..., 0])
    ids_HW = ids_of_colors(colors_HW3, name)
    return np.where(ids_HW == VOID, 0, ids_HW).astype(np.uint8)


def _of_numbers(values_HW: np.ndarray) -> np.ndarray:
    """Values that are the numbers of objects: 255 is void, but the object where it is alone (DAVIS-2016)."""
    void_HW = values_HW == VOID
    return void_HW.astype(np.uint8) if not (values_HW[~void_HW] > 0).any() else np.where(void_HW, 0, values_HW)


def _of_grays(values_HW: np.ndarray) -> np.ndarray:
    """Grays that are the numbers of objects, or black and white with edges between."""
    found = set(np.unique(values_HW).tolist()) - {0}
    has_white, between = VOID in found, found - {VOID}
    are_numbers = between == set(range(1, len(between) + 1)) if has_white else max(found, default=0) < _HALF
    return _of_numbers(values_HW) if are_numbers else (values_HW >= _HALF).astype(np.uint8)


def _white_entries(picture: Image.Image) -> np.ndarray | None:
    """Which entries of a palette are white, bool (256,), where the picture holds black and white alone; else None."""
    colors_N3 = np.frombuffer(bytes(picture.getpalette() or []).ljust(768, b"\0"), np.uint8).reshape(256, 3)
    used_N3 = colors_N3[np.unique(np.asarray(picture))]
    is_plain = bool(((used_N3 == 0).all(axis=1) | (used_N3 == VOID).all(axis=1)).all())
    return (colors_N3 == VOID).all(axis=1) if is_plain else None


def _opened(path: Path, height: int, width: int) -> Image.Image:
    try:
        with Image.open(path) as picture:
            if picture.size != (width, height):
                raise DataError(
                    f"{path} has {picture.width}x{picture.height} px (width x height), and the video {width}x{height}: a mask must have the "
                    "size of its video. Paint it on a frame of the video."
                )
            picture.load()
            return picture
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as cause:
        raise DataError(
            f"{path} cannot be read as a mask ({type(cause).__name__}: {cause}). Save it anew: {_KINDS}."
        ) from cause


def _numbered(names: list[str], folder: Path) -> dict[int, str]:
    """Frame -> name."""
    numbers = [found[-1] if (found := re.findall(r"\d+", name.rpartition(".")[0])) else "" for name in names]
    if not any(numbers):
        return dict(enumerate(names))
    if nameless := [name for name, number in zip(names, numbers, strict=True) if not number]:
        raise DataError(
            f"{name_some(nameless)} in {folder}: the name tells no frame, as those of others there do. Number it, or move it away."
        )
    frames: dict[int, str] = {}
    for name, number in zip(names, numbers, strict=True):
        if int(number) in frames:
            raise DataError(
                f"{frames[int(number)]} and {name} in {folder} are both of frame {int(number)}. Move one away."
            )
        frames[int(number)] = name
    return frames
