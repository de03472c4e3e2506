"""Data sets whose videos are folders of pictures, with something known of each frame in a folder beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ssvid.data.readers.matching import Listing
from ssvid.errors import DataError, name_some


def find_base(root: Path, *needed: str) -> Path | None:
    """The folder that holds all of these: the root, or one directly below it, as archives are unpacked; None."""
    below = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return next((base for base in (root, *below) if all((base / name).is_dir() for name in needed)), None)


def folders_in(root: Path, parent: Path, depth: int = 1) -> list[str]:
    """Folders so many levels below ``parent``, relative to the root, sorted; hidden names are left out."""
    places = [parent]
    for _ in range(depth):
        places = [path for place in places for path in sorted(place.iterdir()) if path.is_dir() and path.name[0] != "."]
    return [path.relative_to(root).as_posix() for path in places]


def with_truth(listing: Listing, root: Path, truth_of: Callable[[str], Path]) -> Listing:
    """The same videos with what is known of their frames.

    Args:
        truth_of: the path of a video, relative to the root -> the file or folder that tells of it.

    Raises:
        DataError: it is not there for some of the videos; they are named.
    """
    known = {entry.path: truth_of(entry.path) for entry in listing}
    missing = [str(truth.relative_to(root)) for truth in known.values() if not truth.exists()]
    if missing:
        raise DataError(
            f"{root} must hold what is known of the frames of all {len(listing)} videos, it lacks {name_some(missing)}."
            " Complete the tree: fetch and unpack the annotations again."
        )
    listing[:] = [replace(entry, truth=known[entry.path].relative_to(root).as_posix()) for entry in listing]
    return listing


def require_each_frame(listing: Listing, root: Path, endings: Sequence[str]) -> None:
    """Make sure that each frame of each video has its mask, by their names; no file is opened.

    Raises:
        DataError: a frame has none, or a mask no frame. The file is named, and how many there are.
    """
    for entry in listing:
        if not entry.truth or not (root / entry.path).is_dir():
            continue
        frames, masks = _stems(root / entry.path, endings), _stems(root / entry.truth, (".png",))
        if frames == masks:
            continue
        lacking, others = sorted(frames - masks), sorted(masks - frames)
        what = (
            f"lacks the masks of {len(lacking)} of its {len(frames)} frames: {name_some(lacking)}"
            if lacking
            else f"has masks of frames that are not there: {name_some(others)}"
        )
        raise DataError(
            f"{root / entry.truth} {what}. Every frame of {entry.path!r} must have its mask, of the same name: fetch and"
            " unpack the data set again."
        )


def _stems(folder: Path, endings: Iterable[str]) -> set[str]:
    return {path.stem for path in folder.iterdir() if path.suffix.lower() in endings and path.name[0] != "."}
