"""DAVIS 2017: 90 sequences with masks of objects, made into videos by ``ssvid data join-frames``.

Source: Pont-Tuset, Perazzi, Caelles, Arbelaez, Sorkine-Hornung, Van Gool, "The 2017 DAVIS Challenge on Video Object
Segmentation", 2017.
"""

from __future__ import annotations

from pathlib import Path

from ssvid.data.fetch.sources import TFDS, DataSet, Source
from ssvid.data.readers.matching import (
    Listed,
    Listing,
    OfficialSplit,
    find_videos,
    holds_all,
    match_tree,
    require_annotations,
    split_lines,
)
from ssvid.data.readers.shelf import register_reader

USUAL_FOLDERS = ("ImageSets/2017", "DAVIS/ImageSets/2017", "annotations")
_LISTS = ("train.txt", "val.txt")
_DOWNLOAD = DataSet(
    home="https://davischallenge.org/davis2017/code.html",
    videos=(
        Source(
            "https://data.vision.ee.ethz.ch/csergi/share/davis/DAVIS-2017-trainval-480p.zip",
            size_bytes=832_766_765,
            sha256="e3d0b5b77c3d031b000a19e0e25e3e2cac65d183755601bc2cf066df1a2aa492",
            recorded_by=TFDS,
        ),
    ),
)


@register_reader("davis", folds=1, about="DAVIS 2017, train and val at 480p: pictures, 0.8 GB", download=_DOWNLOAD)
def read_davis(root: Path, official: OfficialSplit) -> Listing:
    """The sequences of ``train`` and ``val``, each a video named after it, at any depth below the root; no labels.

    Raises:
        DataError: the lists are not found or do not match the tree, or the sequences are folders of pictures still.
    """
    folder = require_annotations(root, official, USUAL_FOLDERS, " and ".join(_LISTS), holds_all(_LISTS))
    listed = [
        Listed(line.text, (line.text,), "", Path(name).stem, line.text, line.where)
        for name in _LISTS
        for line in split_lines(folder / name)
    ]
    lists = f"{' and '.join(_LISTS)} in {folder}"
    return match_tree(root, find_videos(root), listed, official, lists=lists)
