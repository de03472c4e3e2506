"""Clips that come as folders of pictures (DAVIS, Jester, Something-Something): one video for each folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ssvid.data.readers.matching import PICTURE_EXTENSIONS, walk
from ssvid.errors import DataError
from ssvid.files import require_empty_folder
from ssvid.video.joining import in_order, join_pictures

SUFFIX = ".mov"


@dataclass(frozen=True)
class JoinedFrames:
    """What ``join_frames`` wrote. Prints as a few lines.

    out: the folder. num_videos, num_frames: written. notes: on folders whose frames leave something to ask.
    """

    out: Path
    num_videos: int
    num_frames: int
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        written = f"{self.num_videos} videos of {self.num_frames} frames in all, written to {self.out}"
        return "\n".join([written, *(f"note: {note}" for note in self.notes[:10])])


def join_frames(
    root: str | Path, out: str | Path, *, fps: float = 25.0, progress: Callable[[int, int, str], None] | None = None
) -> JoinedFrames:
    """Make a video of each folder of pictures below ``root``, at the same place below ``out``.

    Frames are in the order of the numbers in their names. JPEG and PNG are copied byte for byte, so that nothing is lost.

    Args:
        out: it must not exist, or be empty. fps: frames per second, which pictures do not tell.

    Raises:
        DataError: no folder holds two pictures, ``out`` is not empty, or a picture is damaged or of another size.
    """
    root, out = Path(root), Path(out)
    if not root.is_dir():
        raise DataError(f"FOLDER ({root}) must be a folder of folders of pictures. Name the one above the clips.")
    if not 0 < fps < 10_000:
        raise DataError(f"fps ({fps}) must be above 0 and below 10000. Set --fps 25.")
    require_empty_folder(out)
    folders = _frame_folders(root)
    total, notes = 0, []
    for number, (folder, pictures) in enumerate(folders.items(), start=1):
        name = folder.relative_to(root) if folder != root else Path(root.absolute().name)
        total += join_pictures(pictures, out / name.parent / f"{name.name}{SUFFIX}", fps)
        notes += [f"{name}: {note}" for note in _oddities(folder, pictures)]
        if progress:
            progress(number, len(folders), str(name))
    return JoinedFrames(out, len(folders), total, notes)


def _frame_folders(root: Path) -> dict[Path, list[Path]]:
    """Folders that hold two pictures of one kind or more -> these in order; of several kinds, the one with the most."""
    found: dict[Path, list[Path]] = {}
    for path in walk(root):
        if path.suffix.lower() in PICTURE_EXTENSIONS:
            found.setdefault(path.parent, []).append(path)
    for folder, pictures in found.items():
        [(kind, _)] = Counter(path.suffix.lower() for path in pictures).most_common(1)
        found[folder] = in_order([path for path in pictures if path.suffix.lower() == kind])
    clips = {folder: pictures for folder, pictures in sorted(found.items()) if len(pictures) > 1}
    if not clips:
        raise DataError(
            f"FOLDER ({root}) must hold folders of two pictures or more ({' '.join(PICTURE_EXTENSIONS)}), one folder for each "
            "clip. Name the folder above the clips."
        )
    return clips


def _oddities(folder: Path, pictures: list[Path]) -> list[str]:
    left = sum(path.suffix.lower() in PICTURE_EXTENSIONS for path in folder.iterdir()) - len(pictures)
    numbers = [int(found[-1]) for path in pictures if (found := re.findall(r"\d+", path.stem))]
    steps = {later - earlier for earlier, later in zip(numbers, numbers[1:], strict=False)}
    said = [f"{left} pictures of another kind than {pictures[0].suffix} were left out"] if left else []
    if len(numbers) == len(pictures) and len(steps) > 1:
        said.append("the numbers in the names leave gaps; frames may be missing")
    return said
