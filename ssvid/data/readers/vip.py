"""VIP (Video Instance-level Parsing): videos of people with the parts of their bodies and clothes, 20 classes.

    Images/<video>/*.jpg    Annotations/Category_ids/<video>/*.png    lists/{train,val}_videos.txt

Source: Zhou, Liang, Gong, Lin, "Adaptive Temporal Encoding Network for Video Instance-level Human Parsing", ACM MM 2018.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ssvid.data.readers.matching import Listed, Listing, OfficialSplit, match_tree, require_annotations, split_lines
from ssvid.data.readers.sequences import find_base, folders_in, with_truth
from ssvid.data.readers.shelf import register_reader
from ssvid.errors import DataError

USUAL_FOLDERS = ("lists", "VIP_Fine/lists", "annotations")
SPLITS = {"train_videos.txt": "train", "val_videos.txt": "val", "test_videos.txt": "test"}
_PICTURES, _PARTS = "Images", "Annotations/Category_ids"


@register_reader("vip", folds=1, about="VIP: people with parts of their bodies and clothes, by hand from OneDrive")
def read_vip(root: Path, official: OfficialSplit) -> Listing:
    """The videos of the lists that are there, ``val_videos.txt`` at least, with the parts of each frame; no labels.

    Raises:
        DataError: the lists or the pictures are not found, do not match, or a video has no parts.
    """
    needed = "val_videos.txt"
    folder = require_annotations(root, official, USUAL_FOLDERS, needed, lambda place: (place / needed).is_file())
    listed = [
        Listed(line.text, (line.text,), "", split, line.text, line.where)
        for name, split in SPLITS.items()
        if (folder / name).is_file()
        for line in split_lines(folder / name)
    ]
    base = find_base(root, _PICTURES)
    if base is None:
        raise DataError(
            f"data.root ({root}) must hold the folder {_PICTURES}, or a folder that does. Set data.root to the folder VIP_Fine"
            " of VIP."
        )
    lists = f"the lists in {folder}"
    listing = match_tree(root, folders_in(root, base / _PICTURES), listed, official, lists=lists)
    if not (base / _PARTS).is_dir():
        return listing
    return with_truth(listing, root, lambda path: base / _PARTS / PurePosixPath(path).name)
