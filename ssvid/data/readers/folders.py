"""Folders of videos: bare, or with a folder per class, with or without a folder per split above."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ssvid.data.readers.matching import Entry, Listing, OfficialSplit, find_videos
from ssvid.data.readers.shelf import register_reader
from ssvid.errors import DataError

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def split_of_folder(name: str) -> str:
    """The split that a folder of this name holds; "" where it names none."""
    return SPLIT_FOLDERS.get(name.lower(), "")


@register_reader("folder", about="every video below ROOT, at any depth; no labels")
def read_folder(root: Path, official: OfficialSplit) -> Listing:
    """Every video below ``root``, files and folders of pictures, sorted; without labels."""
    found = find_videos(root)
    return Listing((Entry(path) for path in found), passed_over=found.passed_over, folders=found.folders)


@register_reader("class_folder", about="the folder is the label: <class>/*, or {train,val,test}/<class>/*")
def read_class_folder(root: Path, official: OfficialSplit) -> Listing:
    """Videos whose folder is their label, in ``train``, ``val`` or ``test`` where such folders lie above."""
    return list_class_folders(root, split_of_folder)


def list_class_folders(root: Path, split_of: Callable[[str], str]) -> Listing:
    """Videos whose folder is their label, with or without a folder per split above it."""
    found = find_videos(root)
    paths = [PurePosixPath(path) for path in found]
    has_splits = _has_split_folders(paths, split_of)
    for path in paths:
        if len(path.parts) != 2 + has_splits:
            wanted = "<split>/<class>/<file>" if has_splits else "<class>/<file>"
            what = ". It is a folder of pictures, and so one video" if str(path) in found.folders else ""
            raise DataError(
                f"path ({str(path)!r}) must lie in a class folder: {root}/{wanted}, without further folders{what}."
                " Move it, set data.root one folder deeper or higher, or set data.name=folder to do without labels."
            )
    if has_splits:
        entries = [Entry(str(path), path.parts[1], split_of(path.parts[0])) for path in paths]
    else:
        entries = [Entry(str(path), path.parts[0]) for path in paths]
    return Listing(entries, passed_over=found.passed_over, folders=found.folders)


def _has_split_folders(paths: list[PurePosixPath], split_of: Callable[[str], str]) -> bool:
    """Whether the top folders are splits. One of several classes may well be called "train" (the vehicle)."""
    tops = {path.parts[0] for path in paths if len(path.parts) > 1}
    return bool(tops) and all(split_of(top) for top in tops)
