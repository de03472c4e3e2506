"""Kinetics-400, -600 and -700: class folders as they are usually laid out, or the published tables beside any tree.

Source: Kay et al., "The Kinetics Human Action Video Dataset", 2017; Carreira et al., 2018 and 2019. Videos come from
YouTube and disappear there, so that hardly two copies are alike: what a copy lacks is listed.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from ssvid.data.fetch.sources import DataSet, Order, Source
from ssvid.data.readers.folders import list_class_folders
from ssvid.data.readers.matching import (
    Entry,
    Listed,
    Listing,
    OfficialSplit,
    find_annotations,
    find_videos,
    match_tree,
    read_text,
    require_annotations,
    stem_of,
)
from ssvid.data.readers.shelf import register_reader
from ssvid.errors import DataError

USUAL_FOLDERS = ("annotations", "csv", "labels")
_SPLITS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}
# train.csv; kinetics-400_train.csv; train.txt of Kinetics-600.
_TABLE = re.compile(r"(kinetics[-_]?(400|600|700)(_2020)?[-_])?(?P<split>train|val|validate|test)\.(csv|txt)")
# train; val_256; videos_train.
_FOLDER = re.compile(r"(videos_)?(?P<split>train|val|validate|validation|test)(_\d+)?", re.IGNORECASE)
_STEM = re.compile(r"(?P<id>.{11})_\d{6}_\d{6}")
_COLUMNS = ("youtube_id", "time_start", "time_end")


# CVDF keeps the videos in some hundred archives per split, and a list of their addresses for each split.
_CVDF = "https://s3.amazonaws.com/kinetics"
_CVDF_FOLDER = {"400": "400", "600": "600", "700": "700_2020"}
_HOME = "https://github.com/cvdfoundation/kinetics-dataset"
_USUAL = ("train", "val")


@dataclass(frozen=True)
class _Kinetics(DataSet):
    """The tables of a version, and the archives that its lists name."""

    def sources(self, order: Order, read: Callable[[Source], str]) -> Iterator[Source]:
        version = order.version or self.versions[0]
        yield from published_tables(version)
        for split in () if order.annotations_only else order.splits or _USUAL:
            yield from archives(version, split, read(archive_list(version, split)))


def published_tables(version: str) -> tuple[Source, ...]:
    """The tables of train, val and test."""
    folder = f"{_CVDF}/{_CVDF_FOLDER[version]}/annotations"
    # The tables of Kinetics-600 in .csv are incomplete by CVDF's own words.
    endings = {"train": "txt" if version == "600" else "csv", "test": "csv"}
    names = [f"{split}.{endings.get(split, endings['train'])}" for split in ("train", "val", "test")]
    return tuple(Source(f"{folder}/{name}", into="annotations", unpack=False) for name in names)


def archive_list(version: str, split: str) -> Source:
    """The list of the addresses of a split's archives."""
    folder = _CVDF_FOLDER[version]
    return Source(f"{_CVDF}/{folder}/{split}/k{folder}_{split}_path.txt", into="archives", unpack=False)


def archives(version: str, split: str, text: str) -> tuple[Source, ...]:
    """The archives that such a list names, and for the training videos of Kinetics-400 the one that mends damaged ones.

    Raises:
        DataError: a line is no address of an archive on the same server.
    """
    start = f"{_CVDF}/{_CVDF_FOLDER[version]}/"
    addresses = [line.strip() for line in text.splitlines() if line.strip()]
    for address in addresses:
        if not address.startswith(start) or not address.endswith((".tar.gz", ".tgz", ".tar")) or ".." in address:
            raise DataError(
                f"{archive_list(version, split).url} must list archives below {start}; it has {address!r}. See"
                f" {_HOME} for what has changed."
            )
    mended = [f"{start}replacement_for_corrupted_k400.tgz"] if (version, split) == ("400", "train") else []
    return (
        *(Source(address, into=split) for address in addresses),
        *(Source(address, into="train/replacement") for address in mended),
    )


_ABOUT = "as class folders, or with the published tables; Kinetics-400, -600, -700: hundreds of GB"
_DOWNLOAD = _Kinetics(
    _HOME, annotations=published_tables("400"), versions=tuple(_CVDF_FOLDER), splits=("train", "val", "test")
)


# ---- reading


@register_reader("kinetics", folds=1, about=_ABOUT, download=_DOWNLOAD)
def read_kinetics(root: Path, official: OfficialSplit) -> Listing:
    """The videos of train, val and test: label, split, group (the YouTube video that a clip was cut from).

    Where the published tables are found, they say which videos there are, and the tree may be any; files are named
    ``<id>_<start>_<end>`` (six digits each) or ``<id>``. Without tables the class folders say it.

    Raises:
        DataError: the tables are damaged or do not match the tree, or the folders are no class folders.
    """

    def holds(folder: Path) -> bool:
        return bool(find_tables(folder))

    if find_annotations(root, official, USUAL_FOLDERS, holds) is None:
        return Listing(_with_group(entry) for entry in list_class_folders(root, split_of_folder))
    what = f"a table train.csv, val.csv or test.csv with the columns label, {', '.join(_COLUMNS)}"
    folder = require_annotations(root, official, USUAL_FOLDERS, what, holds)
    tables = find_tables(folder)
    listed = [video for split, path in tables.items() for video in read_table(path, split)]
    lists = f"{', '.join(path.name for path in tables.values())} in {folder}"
    paths = _without_replaced(find_videos(root))
    listing = match_tree(root, paths, _drop_bare_ids(listed), official, lists=lists, fold_class=plain_label)
    _check_split_folders(root, listing)
    return listing


@lru_cache(maxsize=4096)
def split_of_folder(name: str) -> str:
    """The split that a folder of this name holds; "" where it names none."""
    match = _FOLDER.fullmatch(name)
    return _SPLITS[match["split"].lower()] if match else ""


@lru_cache(maxsize=4096)
def plain_label(name: str) -> str:
    """A class name as folders are named after it: lower case, ``_`` for spaces, without quotes and brackets."""
    return re.sub(r"[\"'()]", "", name.casefold()).replace(" ", "_")


def _with_group(entry: Entry) -> Entry:
    match = _STEM.fullmatch(stem_of(entry.path))
    return replace(entry, group=match["id"]) if match else entry


def _without_replaced(paths: Sequence[str]) -> list[str]:
    """Files of a ``replacement...`` folder stand for the damaged ones of the same name."""
    better = {path for path in paths if "/replacement" in f"/{path.rpartition('/')[0]}"}
    stems = {stem_of(path) for path in better}
    return [path for path in paths if path in better or stem_of(path) not in stems]


def _check_split_folders(root: Path, listing: Listing) -> None:
    for entry in listing:
        lies_in = split_of_folder(entry.path.partition("/")[0])
        if lies_in and lies_in != entry.split:
            raise DataError(
                f"{entry.where}: {stem_of(entry.path)!r} is of split {entry.split}, but below data.root ({root})"
                f" it lies in the folder of {lies_in} ({entry.path}). The tables do not match the tree: take those of the"
                " same version of Kinetics."
            )


# ---- tables


def find_tables(folder: Path) -> dict[str, Path]:
    """Split to published table, in the order train, val, test; empty where the folder has none."""
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    # .txt first: where Kinetics-600 has both, the .csv is incomplete.
    for path in sorted(folder.iterdir(), key=lambda path: (path.suffix != ".txt", path.name)):
        match = _TABLE.fullmatch(path.name)
        if match and set(_COLUMNS) <= set(_header(path)):
            found.setdefault(_SPLITS[match["split"]], path)
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _header(path: Path) -> list[str]:
    """The names of the columns; lists of paths and labels go by the same file names and have none."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            line = file.readline(1000)
    except OSError:
        return []
    return [name.strip().strip('"') for name in line.split(",")]


def read_table(path: Path, split: str) -> Iterator[Listed]:
    """The videos of a published table: label (may be absent for test), YouTube id, start and end in seconds."""
    text = read_text(path, "table", "Set data.annotations to the folder of the published tables.")
    reader = csv.DictReader((line + "\n" for line in text.split("\n")), strict=True)
    try:
        for cells in reader:
            yield _listed(path, reader.line_num, split, cells)
    except csv.Error as cause:
        raise _bad(path, reader.line_num + 1, f"it must be CSV ({cause})") from cause


def _listed(path: Path, number: int, split: str, cells: Mapping[str | None, str | list[str] | None]) -> Listed:
    values = [str(cells.get(name) or "").strip() for name in (*_COLUMNS, "label", "split")]
    if None in cells or None in cells.values():
        raise _bad(path, number, "it must have as many cells as the header")
    youtube_id, start, end, label, own_split = values
    if not youtube_id or "/" in youtube_id:
        raise _bad(path, number, f"youtube_id ({youtube_id!r}) must name a video")
    if own_split and _SPLITS.get(own_split.lower()) != split:
        raise _bad(path, number, f"split ({own_split!r}) must be {split!r} as the name of the table says")
    try:
        window = f"_{_seconds(start):06d}_{_seconds(end):06d}"
    except ValueError:
        rule = f"time_start ({start!r}) and time_end ({end!r}) must be seconds"
        raise _bad(path, number, rule) from None
    stem = f"{youtube_id}{window}"
    return Listed(stem, (stem, youtube_id), label, split, youtube_id, f"{path}, line {number}")


def _seconds(text: str) -> int:
    value = float(text)
    if not 0 <= value < 1e6:
        raise ValueError(text)
    return int(value)


def _bad(path: Path, number: int, rule: str) -> DataError:
    return DataError(
        f"{path}, line {number}: {rule}. Fix the line, or set data.annotations to the folder of the published tables."
    )


def _drop_bare_ids(listed: Sequence[Listed]) -> list[Listed]:
    """A file ``<id>`` stands for a clip only where the video gave one clip."""
    counts = Counter(video.group for video in listed)
    return [replace(video, keys=video.keys[:1]) if counts[video.group] > 1 else video for video in listed]
