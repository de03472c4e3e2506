"""J-HMDB: 928 short clips of 21 classes of HMDB51, with the joints of one person in each frame, and three official splits.

    Rename_Images/<class>/<clip>/00001.png    joint_positions/<class>/<clip>/joint_positions.mat
    splits/<class>_test_split<1 to 3>.txt

Source: Jhuang, Gall, Zuffi, Schmid, Black, "Towards understanding action recognition", ICCV 2013.
"""

from __future__ import annotations

from pathlib import Path

from ssvid.data.readers.hmdb51 import read_class_split, split_files
from ssvid.data.readers.matching import Listing, OfficialSplit, find_videos, match_tree, require_annotations
from ssvid.data.readers.sequences import find_base, folders_in, with_truth
from ssvid.data.readers.shelf import register_reader

USUAL_FOLDERS = ("splits", "JHMDB/splits", "annotations")
_PICTURES, _JOINTS = "Rename_Images", "joint_positions"


@register_reader(
    "jhmdb", folds=3, about="J-HMDB: 928 clips of 21 actions with joints, by hand from jhmdb.is.tue.mpg.de"
)
def read_jhmdb(root: Path, official: OfficialSplit) -> Listing:
    """The clips of one official split: label, ``train`` or ``test``, joints; group as in HMDB51.

    Where the pictures are not there, the clips as video files are taken, at any depth.

    Raises:
        DataError: the split files are not found, are damaged or do not match the tree, or a clip has no joints.
    """
    what = f"the files <class>_test_split{official.fold}.txt"
    folder = require_annotations(
        root, official, USUAL_FOLDERS, what, lambda place: bool(split_files(place, official.fold))
    )
    files = split_files(folder, official.fold)
    listed = [video for label, path in files.items() for video in read_class_split(path, label)]
    base = find_base(root, _PICTURES)
    paths = folders_in(root, base / _PICTURES, depth=2) if base else find_videos(root)
    lists = f"the files *_test_split{official.fold}.txt in {folder}"
    listing = match_tree(root, paths, listed, official, lists=lists)
    joints = find_base(root, _JOINTS)
    if joints is None:
        return listing
    labels = {entry.path: entry.label for entry in listing}
    names = {entry.path: Path(entry.path).name if base else Path(entry.path).stem for entry in listing}
    return with_truth(listing, root, lambda path: joints / _JOINTS / labels[path] / names[path] / "joint_positions.mat")
