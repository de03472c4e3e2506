"""Propagated labels and tracks as files: palette PNGs as the DAVIS evaluator reads them, tracks as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from ssvid.errors import DataError
from ssvid.files import folder_appearing_whole, require_empty_folder, telling_full_disk, write_atomic
from ssvid.pictures import voc_colors

PALETTE = voc_colors().tobytes()  # what DAVIS, and the evaluators of other data sets after it, have in their PNG files
COLUMNS = ("frame", "seconds", "point", "x_px", "y_px", "visible")


def write_labels(path: Path, labels_HW: np.ndarray, palette: bytes = PALETTE) -> None:
    """One frame's ids as a PNG of 8 bits with a palette (mode P): the value of a pixel is its id.

    Args:
        labels_HW: uint8, of the size in which the evaluator has the truth.
        palette: 768 bytes, red, green and blue of each id.

    Raises:
        ValueError: labels of another type or shape. DiskFull: there is no room.
    """
    if labels_HW.ndim != 2 or labels_HW.dtype != np.uint8:
        raise ValueError(f"labels of shape {labels_HW.shape} and type {labels_HW.dtype}: they must be uint8 HW")
    picture = Image.fromarray(np.ascontiguousarray(labels_HW))
    picture.putpalette(palette)  # which makes it one of mode P
    packed = io.BytesIO()
    picture.save(packed, "PNG")
    with telling_full_disk(path):
        path.write_bytes(packed.getvalue())


class LabelFolder:
    """A folder of ``00000.png``, ``00001.png`` and so on, one file for each frame, written one at a time."""

    def __init__(self, folder: Path, palette: bytes = PALETTE) -> None:
        self.folder, self.palette, self.num_frames = folder, palette, 0

    def add(self, labels_HW: np.ndarray) -> None:
        """The labels of the next frame, as ``write_labels`` takes them."""
        write_labels(self.folder / f"{self.num_frames:05d}.png", labels_HW, self.palette)
        self.num_frames += 1


@contextmanager
def label_folder(folder: Path, palette: bytes = PALETTE) -> Iterator[LabelFolder]:
    """A new folder of masks; it appears under its name when the block ends well, and else not at all.

    Raises:
        DataError: the folder exists and is not empty.
    """
    require_empty_folder(folder)
    with folder_appearing_whole(folder) as partial:
        yield LabelFolder(partial, palette)


def write_tracks(path: Path, seconds_T: Sequence[float], points_TQ2: np.ndarray, visible_TQ: np.ndarray) -> None:
    """Tracks as CSV, one line for each point and frame, frame by frame: frame, seconds, point, x_px, y_px, visible.

    Frames count from 0, points from 1 as on the pictures. Pixels count from 0 at the middle of the upper left one. x and y of an
    unknown place are empty. visible is 1 or 0.

    Raises:
        DataError: the file exists. DiskFull: there is no room.
    """
    if path.exists():
        raise DataError(f"{path} exists, and nothing is overwritten. Name another file, or move this one away.")
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    for frame, seconds in enumerate(seconds_T):
        for point, (x, y) in enumerate(points_TQ2[frame].tolist()):
            place = [f"{value:.3f}" if np.isfinite(value) else "" for value in (x, y)]
            lines.writerow([frame, f"{seconds:.6f}", point + 1, *place, int(visible_TQ[frame, point])])
    write_atomic(path, lambda file: file.write(text.getvalue().encode()))
