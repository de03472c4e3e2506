"""The table of readers: where the videos of a data set are listed, by the name of ``data.name``. No video is opened here.

A reader returns what is there with its labels, splits and groups, or says what does not fit. No torch is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ssvid.data.readers.folders import SPLIT_FOLDERS, read_class_folder, read_folder
from ssvid.data.readers.hmdb51 import read_hmdb51
from ssvid.data.readers.kinetics import read_kinetics
from ssvid.data.readers.lists import LIST_COLUMNS, read_list
from ssvid.data.readers.matching import VIDEO_EXTENSIONS, Entry, Listing, OfficialSplit
from ssvid.data.readers.ucf101 import read_ucf101
from ssvid.errors import DataError, did_you_mean
from ssvid.files import takes_paths

__all__ = [
    "LIST_COLUMNS",
    "READERS",
    "SPLIT_FOLDERS",
    "VIDEO_EXTENSIONS",
    "Entry",
    "Listing",
    "OfficialSplit",
    "list_videos",
]

_FOLDER_READERS: dict[str, Callable[[Path], Listing]] = {"folder": read_folder, "class_folder": read_class_folder}
# Data sets as they are downloaded, with their official splits.
OFFICIAL_READERS: dict[str, Callable[[Path, OfficialSplit], Listing]] = {
    "ucf101": read_ucf101,
    "hmdb51": read_hmdb51,
    "kinetics": read_kinetics,
}
READERS: tuple[str, ...] = (*_FOLDER_READERS, "list", *OFFICIAL_READERS)


@takes_paths("root", "list_file")
def list_videos(
    name: str,
    root: str | Path,
    list_file: str | Path | None = None,
    *,
    official: OfficialSplit | None = None,
    allow_outside: bool = False,
) -> Listing:
    """List the videos of a data set.

    Args:
        name: ``folder`` (every video below ``root``, nested, no labels), ``class_folder`` (``root/<class>/*`` or
            ``root/{train,val,test}/<class>/*``), ``list`` (``list_file`` holds paths relative to ``root``), ``ucf101``,
            ``hmdb51`` or ``kinetics`` (as downloaded, with the official split files).
        root: the folder that holds the videos.
        list_file: the list, for ``list`` alone.
        official: which official split, for data sets that have them; the first where None.
        allow_outside: accept listed paths that leave the root.

    Returns:
        The entries of folders sorted by path, those of lists and split files in their order. Its ``missing`` are the
        listed videos that the folder lacks and that ``official`` allows to be missing.

    Raises:
        DataError: nothing was found, the layout is another, or a line is bad; it says which, the rule, the way out.
    """
    root = Path(root)
    if name not in READERS:
        raise DataError(
            f"data.name ({name!r}) must name a reader of videos. {did_you_mean(name, (*READERS, 'manifest'))}"
        )
    if not root.is_dir():
        what = "it is a file" if root.exists() else "it does not exist"
        raise DataError(f"root ({root}) must be a folder: {what}. Set data.root to the folder that holds the videos.")
    if list_file and name != "list":
        raise DataError(f"list ({list_file}) must be empty for data.name={name}. Set data.name=list to read it.")
    if name in OFFICIAL_READERS:
        return OFFICIAL_READERS[name](root, official or OfficialSplit())
    check_official_unused(name, official)
    if name == "list":
        if not list_file:
            raise DataError("list must name a file for data.name=list. Set data.list to it, or set data.name=folder.")
        return Listing(read_list(root, Path(list_file), allow_outside=allow_outside))
    return _FOLDER_READERS[name](root)


def check_official_unused(name: str, official: OfficialSplit | None) -> None:
    """Refuse values about official splits where the reader knows none, so that nobody believes they had an effect.

    Raises:
        DataError: names the value and the readers that take it.
    """
    default, known = OfficialSplit(), ", ".join(OFFICIAL_READERS)
    for key, value in vars(official or default).items():
        if value != getattr(default, key):
            raise DataError(
                f"data.{key} ({value!r}) does nothing for data.name={name}; it is for {known}. Remove it, or set data.name."
            )
