"""The shelf of readers: where the videos of a data set are listed, by the name of ``data.name``. No video is opened here.

A reader is a function on a file of its own, ours beside this one or in another package (entry points ``ssvid.readers``):
it returns what is there with its labels, splits and groups, or says what does not fit. No torch is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ssvid.data.fetch.sources import DataSet
from ssvid.data.readers.matching import Listing, OfficialSplit
from ssvid.errors import DataError
from ssvid.files import takes_paths
from ssvid.registry import Registry

Read = Callable[[Path, OfficialSplit], Listing]


@dataclass(frozen=True)
class Reader:
    """A function that lists videos, and what is known of its data set.

    about: in a line, for people. folds: official splits of the data set, 1 where it has one; 0 where no split file is read,
    and ``data.fold``, ``data.annotations``, ``data.allow_missing`` do nothing. takes_list: ``data.list`` names its file.
    download: what ``ssvid data download NAME`` fetches; None where it cannot be fetched.
    """

    name: str
    read: Read
    about: str
    folds: int = 0
    takes_list: bool = False
    download: DataSet | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "__wrapped__", self.read)  # whose module the registry names


readers = Registry("reader", "ssvid.readers", shelf="ssvid.data.readers")


def register_reader(
    name: str, *, about: str, folds: int = 0, takes_list: bool = False, download: DataSet | None = None
) -> Callable[[Read], Read]:
    """Decorator of a function ``read(root, official) -> Listing``; see ``Reader`` for its arguments."""

    def add(read: Read) -> Read:
        readers.register(name)(Reader(name, read, about, folds, takes_list, download))
        return read

    return add


def list_readers() -> list[Reader]:
    """All readers, those of other packages too, by name."""
    return [readers.get(name) for name in readers.names()]


def several_splits() -> list[str]:
    """Names of the data sets that have several official splits."""
    return [reader.name for reader in list_readers() if reader.folds > 1]


def names_with_list() -> tuple[str, ...]:
    """Values of ``data.name`` under which ``data.list`` is read."""
    return (*(reader.name for reader in list_readers() if reader.takes_list), "manifest")


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
        name: of a reader: ``folder`` (every video below ``root``, nested, no labels), ``class_folder``
            (``root/<class>/*`` or ``root/{train,val,test}/<class>/*``), ``list`` (``list_file`` holds paths relative to
            ``root``), or a data set as it is downloaded, with its official split files.
        root: the folder that holds the videos.
        list_file: the list, for readers that take one.
        official: which official split, for data sets that have them; the first where None.
        allow_outside: accept listed paths that leave the root.

    Returns:
        The entries of folders sorted by path, those of lists and split files in their order. Its ``missing`` are the
        listed videos that the folder lacks and that ``official`` allows to be missing.

    Raises:
        DataError: nothing was found, the layout is another, or a line is bad; it says which, the rule, the way out.
    """
    root = Path(root)
    if name not in readers.names():
        raise DataError(f"data.name ({name!r}) must name a reader of videos. {readers.hint(name, 'manifest')}")
    reader: Reader = readers.get(name)
    if not root.is_dir():
        what = "it is a file" if root.exists() else "it does not exist"
        raise DataError(f"root ({root}) must be a folder: {what}. Set data.root to the folder that holds the videos.")
    if list_file and not reader.takes_list:
        raise DataError(f"list ({list_file}) must be empty for data.name={name}. Set data.name=list to read it.")
    if reader.takes_list and not list_file:
        raise DataError(f"list must name a file for data.name={name}. Set data.list to it, or set data.name=folder.")
    official = official or OfficialSplit()
    if reader.folds:
        _check_fold(reader, official)
    else:
        check_official_unused(name, official)
    command = f"ssvid data download {name} FOLDER" if reader.download else ""
    return reader.read(
        root, replace(official, list_file=str(list_file or ""), allow_outside=allow_outside, command=command)
    )


def _check_fold(reader: Reader, official: OfficialSplit) -> None:
    if not 1 <= official.fold <= reader.folds:
        several = f"from 1 to {reader.folds}: {reader.name} has {reader.folds} official splits"
        rule = several if reader.folds > 1 else "1: there is one split"
        raise DataError(f"data.fold ({official.fold}) must be {rule}. Set data.fold=1.")


def check_official_unused(name: str, official: OfficialSplit) -> None:
    """Refuse values about official splits where the reader knows none, so that nobody believes they had an effect.

    Raises:
        DataError: names the value and the readers that take it.
    """
    for key in ("fold", "annotations", "allow_missing"):
        value = getattr(official, key)
        if value != getattr(OfficialSplit(), key):
            known = ", ".join(reader.name for reader in list_readers() if reader.folds)
            raise DataError(
                f"data.{key} ({value!r}) does nothing for data.name={name}; it is for {known}. Remove it, or set data.name."
            )
