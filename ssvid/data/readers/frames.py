"""Folders of pictures (DAVIS, Jester, Something-Something) made into video files: one of each folder, without loss.

Folders are read as they are, too; files are fewer, which is faster where every file that is opened costs a journey.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ssvid.data.readers.matching import walk
from ssvid.errors import DataError
from ssvid.files import require_empty_folder
from ssvid.video.frame_folders import MAX_FPS, PICTURE_ENDINGS, PICTURES_FPS, FrameFolder, frames_among
from ssvid.video.joining import join_pictures

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
    root: str | Path,
    out: str | Path,
    *,
    fps: float = PICTURES_FPS,
    progress: Callable[[int, int, str], None] | None = None,
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
    if not 0 < fps < MAX_FPS:
        raise DataError(f"fps ({fps}) must be above 0 and below {MAX_FPS}. Set --fps 25.")
    require_empty_folder(out)
    folders = _frame_folders(root)
    total, notes = 0, []
    for number, (folder, frames) in enumerate(folders.items(), start=1):
        name = folder.relative_to(root) if folder != root else Path(root.absolute().name)
        pictures = [folder / picture for picture in frames.names]
        total += join_pictures(pictures, out / name.parent / f"{name.name}{SUFFIX}", fps)
        notes += [f"{name}: {note}" for note in frames.oddities()]
        if progress:
            progress(number, len(folders), str(name))
    return JoinedFrames(out, len(folders), total, notes)


def _frame_folders(root: Path) -> dict[Path, FrameFolder]:
    """Folders that hold two pictures of one kind or more, also the root itself -> their frames."""
    found = ((Path(folder), frames_among(names)) for folder, names in walk(root))
    clips = {folder: frames for folder, frames in sorted(found, key=lambda pair: pair[0]) if frames is not None}
    if not clips:
        raise DataError(
            f"FOLDER ({root}) must hold folders of two pictures or more ({' '.join(PICTURE_ENDINGS)}), one folder for each "
            "clip. Name the folder above the clips."
        )
    return clips
