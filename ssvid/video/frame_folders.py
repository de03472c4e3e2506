"""A folder of pictures is a video: which of its files are the frames, and in which order. No picture is opened here."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ssvid.errors import DecodeError

# What stands among the ``decoders_ok`` of a folder: its pictures are read one by one, by no decoder of videos.
PICTURES = "pictures"
# Pictures do not tell their rate. The least surprising one: PAL's, and that of most clips which come as pictures.
PICTURES_FPS = 25.0
MAX_FPS = 10_000
# A clip has two frames or more; a folder with a single picture holds a still.
MIN_PICTURES = 2
# The kinds of pictures by the endings of their names, in small letters. Of two kinds with as many pictures the first is taken.
KIND_OF_ENDING: Mapping[str, str] = {
    **{".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"},
    **{".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM"},
}
PICTURE_ENDINGS: tuple[str, ...] = tuple(KIND_OF_ENDING)
_KINDS = tuple(dict.fromkeys(KIND_OF_ENDING.values()))
# A listing is kept while the folder's time of change stays the same, once that is older than the clocks of file systems are coarse.
_SETTLED_NS = 2_000_000_000
_KEPT_LISTINGS = 8


@dataclass(frozen=True)
class FrameFolder:
    """The frames of a folder. names: of the pictures, frame by frame. num_others: pictures of other kinds, left out."""

    names: tuple[str, ...]
    num_others: int = 0

    def oddities(self) -> list[str]:
        """What the names leave to ask: frames that may be missing, pictures of several series or of another kind."""
        others = f"{self.num_others} pictures of another kind than {ending_of(self.names[0])} were left out"
        told = [others] if self.num_others else []
        numbers = [
            int(found[-1]) if (found := re.findall(r"\d+", name.rpartition(".")[0])) else -1 for name in self.names
        ]
        if -1 in numbers:
            return told
        steps = [later - earlier for earlier, later in zip(numbers, numbers[1:], strict=False)]
        if min(steps) <= 0:
            first = self.names[next(place for place, step in enumerate(steps, start=1) if step <= 0)]
            told.append(f"the numbers in the names begin anew at {first}: these may be several clips")
        elif len(set(steps)) > 1:
            usual = Counter(steps).most_common(1)[0][0]
            first = self.names[next(place for place, step in enumerate(steps) if step != usual)]
            told.append(f"the numbers in the names leave gaps, the first after {first}: frames may be missing")
        return told


def in_order(names: Iterable[str]) -> list[str]:
    """Names of pictures by the numbers in them, so that 10 comes after 9; large and small letters are alike."""
    return sorted(names, key=lambda name: (_by_number(name), name))


def _by_number(name: str) -> list[str | int]:
    # Text and numbers take turns, so that text is compared with text and a number with a number.
    return [int(part) if part.isdecimal() else part.casefold() for part in re.split(r"(\d+)", name)]


def ending_of(name: str) -> str:
    """The last extension of a name with its dot, in small letters; pathlib takes minutes over the names of Kinetics-700."""
    stem, dot, ending = name.rpartition(".")
    return f".{ending.lower()}" if stem and dot and ending else ""


def kind_of(name: str) -> str:
    """The kind of picture that a file is by its name; "" for other files and hidden ones."""
    return "" if name.startswith(".") else KIND_OF_ENDING.get(ending_of(name), "")


def usual_kind(names: Iterable[str]) -> str:
    """The kind of which a folder with these files has the most pictures; "" where it has two of none: it is no video."""
    counts = Counter(kind for kind in map(kind_of, names) if kind)
    most = max(counts.values(), default=0)
    return "" if most < MIN_PICTURES else next(kind for kind in _KINDS if counts[kind] == most)


def frames_among(names: Sequence[str]) -> FrameFolder | None:
    """The frames of a folder that holds files of these names; None where it holds no two pictures of one kind."""
    kind = usual_kind(names)
    if not kind:
        return None
    kinds = [kind_of(name) for name in names]
    frames = in_order(name for name, own in zip(names, kinds, strict=True) if own == kind)
    return FrameFolder(tuple(frames), sum(own not in ("", kind) for own in kinds))


def visible_files(entries: Iterable[os.DirEntry[str]]) -> Iterator[str]:
    """Names of the files in a folder, without hidden ones, devices and pipes. No file is looked at: its folder tells.

    A link that leads nowhere is kept: whoever reads it tells of it, so that nothing is lost silently.
    """
    for entry in entries:
        if entry.name.startswith(".") or not (entry.is_symlink() or entry.is_file(follow_symlinks=False)):
            continue
        if not (entry.is_symlink() and entry.is_dir()):
            yield entry.name


def is_there(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a file, or a folder with pictures; of these no more than the first is looked for."""
    if not os.path.isdir(path):
        return os.path.isfile(path)
    try:
        with os.scandir(path) as entries:
            return any(kind_of(entry.name) for entry in entries)
    except OSError:  # a folder that cannot be listed is as good as gone
        return False


def checked_folder(path: str | os.PathLike[str]) -> str:
    """The path of a folder as an absolute string.

    Raises:
        DecodeError: there is no such folder.
    """
    text = os.path.abspath(os.fspath(path))
    if not os.path.isdir(text):
        raise DecodeError(
            text, "there is no such folder" if not os.path.exists(text) else "this is a file, not a folder"
        )
    return text


def list_frames(path: str | os.PathLike[str]) -> FrameFolder:
    """The frames of a folder, in order.

    Raises:
        DecodeError: it is no folder, cannot be listed, or holds no two pictures of one kind.
    """
    text = checked_folder(path)
    stat = os.stat(text)
    if time.time_ns() - stat.st_mtime_ns < _SETTLED_NS:
        return _listed(text)
    return _listed_once(text, stat.st_mtime_ns, stat.st_ino)


def frame_paths(path: str | os.PathLike[str]) -> list[str]:
    """The files of a folder's frames, in order. Raises DecodeError as ``list_frames``."""
    folder = os.fspath(path)
    return [os.path.join(folder, name) for name in list_frames(folder).names]


@lru_cache(maxsize=_KEPT_LISTINGS)
def _listed_once(folder: str, mtime_ns: int, inode: int) -> FrameFolder:
    return _listed(folder)


def _listed(folder: str) -> FrameFolder:
    try:
        with os.scandir(folder) as entries:
            names = list(visible_files(entries))
    except OSError as error:
        raise DecodeError(folder, "the folder cannot be listed", error) from error
    frames = frames_among(names)
    if frames is None:
        pictures = [name for name in names if kind_of(name)]
        found = f"it holds {', '.join(sorted(pictures)[:3])} alone" if pictures else "it holds none"
        what = f"a folder is a video where it holds two pictures of one kind or more ({' '.join(PICTURE_ENDINGS)}); {found}"
        raise DecodeError(folder, what)
    return frames
