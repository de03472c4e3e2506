"""UCF101 as it is downloaded: 13,320 clips of 101 classes in 25 groups each, and three official splits.

Source: Soomro, Zamir, Shah, "UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild", 2012.
Clips of one group were cut from the same footage; the official lists never part a group.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ssvid.data.fetch.sources import TFDS, DataSet, Source
from ssvid.data.readers.matching import (
    Listed,
    Listing,
    OfficialSplit,
    SplitLine,
    find_videos,
    holds_all,
    match_tree,
    require_annotations,
    split_lines,
)
from ssvid.data.readers.shelf import register_reader

USUAL_FOLDERS = (
    "ucfTrainTestlist",
    "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist",
    "annotations",
    "splits/ucfTrainTestlist",
)
_CLASSES = "classInd.txt"

_CRCV = "https://www.crcv.ucf.edu/data/UCF101"
_CRCV_NOTE = (
    "This server is known for a certificate chain that many machines cannot verify. --mirror takes the videos from"
    " THUMOS'14 instead."
)
_DOWNLOAD = DataSet(
    home="https://www.crcv.ucf.edu/research/data-sets/ucf101/",
    videos=(Source(f"{_CRCV}/UCF101.rar", size_bytes=6_932_971_618, note=_CRCV_NOTE),),
    annotations=(
        Source(
            f"{_CRCV}/UCF101TrainTestSplits-RecognitionTask.zip",
            size_bytes=113_943,
            sha256="5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27",
            recorded_by=TFDS,
            note=_CRCV_NOTE,
        ),
    ),
    # The same clips, flat in one zip, as THUMOS'14 (by the authors of UCF101) hands them out: needs no unrar.
    mirror=(
        Source(
            "https://storage.googleapis.com/thumos14_files/UCF101_videos.zip",
            size_bytes=6_960_400_115,
            sha256="dabf56f573cd19c79e096563529fec8126a2a34e18e10c72eb621dd687532b0d",
            recorded_by=TFDS,
        ),
    ),
)
# The folder is HandstandPushups and its files are v_HandStandPushups_...: names are compared without their case.
_STEM = re.compile(r"v_(?P<action>.+)_g(?P<group>\d+)_c\d+")


@register_reader("ucf101", folds=3, about="13,320 clips of 101 actions, 6.9 GB (.rar)", download=_DOWNLOAD)
def read_ucf101(root: Path, official: OfficialSplit) -> Listing:
    """The videos of one official split: label, ``train`` or ``test``, group ``<Class>/g<number>``.

    The tree may be ``<Class>/*`` or flat, at any depth below the root, with any video extension.

    Raises:
        DataError: the split files are not found, are damaged or do not match the tree.
    """
    names = [f"{side}list{official.fold:02d}.txt" for side in ("train", "test")]
    needed = (_CLASSES, *names)
    folder = require_annotations(root, official, USUAL_FOLDERS, ", ".join(needed), holds_all(needed))
    classes = read_classes(folder / _CLASSES)
    listed = [*read_split(folder / names[0], "train", classes), *read_split(folder / names[1], "test", classes)]
    lists = f"{' and '.join(names)} in {folder}"
    paths = find_videos(root)
    return match_tree(root, paths, listed, official, lists=lists, fold_stem=str.casefold)


def read_classes(path: Path) -> dict[str, int]:
    """Name to number of ``classInd.txt``: ``1 ApplyEyeMakeup``. The numbers run from 1 in the order of the lines."""
    classes: dict[str, int] = {}
    for line in split_lines(path):
        number, _, name = line.text.partition(" ")
        name = name.strip()
        if not number.isdecimal() or not name or int(number) != len(classes) + 1 or name in classes:
            raise line.error(f"it must be the number {len(classes) + 1}, a space, and the name of a new class")
        classes[name] = int(number)
    return classes


def read_split(path: Path, split: str, classes: Mapping[str, int]) -> list[Listed]:
    """The videos of a ``trainlist`` (``<Class>/<file> <number>``) or a ``testlist`` (without the number)."""
    return [_listed(line, split, classes) for line in split_lines(path)]


def _listed(line: SplitLine, split: str, classes: Mapping[str, int]) -> Listed:
    name, number = [*line.text.split(None, 1), ""][:2]
    label, _, file = name.rpartition("/")
    stem = Path(file).stem
    match = _STEM.fullmatch(stem)
    if not match or not label or "/" in label:
        raise line.error(
            "it must be <Class>/v_<Class>_g<group>_c<clip>.avi, in lists for training with the class number"
        )
    if label not in classes:
        raise line.error(f"class {label!r} must stand in {_CLASSES}")
    if match["action"].casefold() != label.casefold():
        raise line.error(f"the file must be named after its class {label!r}")
    if number and number != str(classes[label]):
        raise line.error(f"class {label!r} must have number {classes[label]} as in {_CLASSES}")
    return Listed(name, (stem,), label, split, f"{label}/g{match['group']}", line.where)
