"""HMDB51 as it is downloaded: 6,766 clips of 51 classes, and three official splits of 70 and 30 clips per class.

Source: Kuehne, Jhuang, Garrote, Poggio, Serre, "HMDB: A Large Video Database for Human Motion Recognition", ICCV 2011.
A clip is named ``<source>_<class>_<body parts>_<camera>_np<people>_<view>_<quality>_<number>.avi``. Clips of a class that
were cut from one source lie on one side in all three splits; clips of other classes from the same film need not.
"""

from __future__ import annotations

import re
from pathlib import Path

from ssvid.data.fetch.sources import TORCHVISION, DataSet, Source
from ssvid.data.readers.matching import (
    Listed,
    Listing,
    OfficialSplit,
    SplitLine,
    find_videos,
    match_tree,
    require_annotations,
    split_lines,
)
from ssvid.data.readers.shelf import register_reader
from ssvid.errors import DataError

FOLDS = 3
USUAL_FOLDERS = (
    "testTrainMulti_7030_splits",
    "test_train_splits/testTrainMulti_7030_splits",
    "hmdb51_splits",
    "annotations",
    "splits/hmdb51_testTrainMulti_7030_splits",
)
_SERRE = "https://serre-lab.clps.brown.edu/wp-content/uploads/2013/10"
_DOWNLOAD = DataSet(
    home="https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/",
    videos=(Source(f"{_SERRE}/hmdb51_org.rar", into="hmdb51_org", nested=True),),
    annotations=(
        Source(f"{_SERRE}/test_train_splits.rar", md5="15e67781e70dcfbdce2d7dbb9b3344b5", recorded_by=TORCHVISION),
    ),
)
SPLIT_OF_FLAG = {"0": "unused", "1": "train", "2": "test"}
_FILE = re.compile(r"(?P<label>.+)_test_split(?P<fold>\d+)\.txt")
# Visible body parts, camera motion, number of people, camera viewpoint, quality, number of the clip.
_ATTRIBUTES = r"_[a-z]+_[a-z]+_np\d+_[a-z]+_[a-z]+_\d+"


@register_reader("hmdb51", folds=FOLDS, about="6,766 clips of 51 actions, 2 GB (.rar)", download=_DOWNLOAD)
def read_hmdb51(root: Path, official: OfficialSplit) -> Listing:
    """The videos of one official split: label, ``train``, ``test`` or ``unused``, group ``<class>/<source>``.

    The tree may be ``<class>/*`` or flat, at any depth below the root, with any video extension. ``unused`` clips are in
    neither set of this split; they may come from the sources of test clips.

    Raises:
        DataError: the split files are not found, are damaged or do not match the tree.
    """
    what = f"the files <class>_test_split{official.fold}.txt"
    folder = require_annotations(
        root, official, USUAL_FOLDERS, what, lambda place: bool(split_files(place, official.fold))
    )
    files = split_files(folder, official.fold)
    _check_complete(folder, files, official.fold)
    listed = [video for label, path in files.items() for video in read_class_split(path, label)]
    lists = f"the files *_test_split{official.fold}.txt in {folder}"
    return match_tree(root, find_videos(root), listed, official, lists=lists)


def split_files(folder: Path, fold: int) -> dict[str, Path]:
    """Class to split file of one official split, sorted; empty where the folder has none. Classes hold underscores."""
    if not folder.is_dir():
        return {}
    matches = ((_FILE.fullmatch(path.name), path) for path in folder.iterdir())
    return dict(sorted((match["label"], path) for match, path in matches if match and int(match["fold"]) == fold))


def _check_complete(folder: Path, files: dict[str, Path], fold: int) -> None:
    """A class that the other splits know must have a file in this one, or it would be lost in silence."""
    known = {label for other in range(1, FOLDS + 1) for label in split_files(folder, other)}
    lacking = sorted(known - files.keys())
    if lacking:
        raise DataError(
            f"{folder} must have a file for each of its {len(known)} classes in split {fold}: {lacking[0]}_test_split{fold}"
            f".txt is missing{f' and {len(lacking) - 1} more' if len(lacking) > 1 else ''}. Unpack the official split"
            " files again."
        )


def read_class_split(path: Path, label: str) -> list[Listed]:
    """The videos of ``<class>_test_split<number>.txt``: ``<file> <flag>``, 1 train, 2 test, 0 neither."""
    return [_listed(line, label) for line in split_lines(path)]


def _listed(line: SplitLine, label: str) -> Listed:
    name, _, flag = line.text.replace("\t", " ").rpartition(" ")
    if flag not in SPLIT_OF_FLAG:
        raise line.error("it must be the name of a file, a space, and 0 (unused), 1 (train) or 2 (test)")
    stem = Path(name.strip()).stem
    return Listed(name.strip(), (stem,), label, SPLIT_OF_FLAG[flag], f"{label}/{source_of(stem, label)}", line.where)


def source_of(stem: str, label: str) -> str:
    """The footage that a clip was cut from: what stands before its class and attributes in its name."""
    match = re.fullmatch(rf"(?P<source>.*)_{re.escape(label)}{_ATTRIBUTES}", stem)
    return match["source"] if match else re.sub(r"_\d+$", "", stem)
