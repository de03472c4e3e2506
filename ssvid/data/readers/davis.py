"""DAVIS: sequences with a mask of each object in each frame, as they are downloaded, or joined by ``ssvid data join-frames``.

    JPEGImages/<resolution>/<sequence>/00000.jpg    Annotations/<resolution>/<sequence>/00000.png

DAVIS-2017: 60 sequences to train on and 30 of validation, several objects each (Pont-Tuset, Perazzi, Caelles, Arbelaez,
Sorkine-Hornung, Van Gool, "The 2017 DAVIS Challenge on Video Object Segmentation", 2017). DAVIS-2016: 30 and 20 of these
sequences, one object each, stored in gray: 255 is the object (Perazzi, Pont-Tuset, McWilliams, Van Gool, Gross,
Sorkine-Hornung, "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

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
from ssvid.data.readers.sequences import find_base, folders_in, require_each_frame, with_truth
from ssvid.data.readers.shelf import register_reader
from ssvid.errors import DataError
from ssvid.video.frame_folders import PICTURE_ENDINGS

LISTS_2017 = ("ImageSets/2017", "DAVIS/ImageSets/2017", "annotations")
LISTS_2016 = ("ImageSets/480p", "DAVIS/ImageSets/480p", "ImageSets/1080p", "DAVIS/ImageSets/1080p", "annotations")
_LISTS = ("train.txt", "val.txt")
_PICTURES, _MASKS = "JPEGImages", "Annotations"
_FPS = 24.0
_HOME = "https://davischallenge.org/davis2017/code.html"
_ETH = "https://data.vision.ee.ethz.ch/csergi/share/davis"
_480P = DataSet(
    home=_HOME,
    videos=(
        Source(
            f"{_ETH}/DAVIS-2017-trainval-480p.zip",
            size_bytes=832_766_765,
            sha256="e3d0b5b77c3d031b000a19e0e25e3e2cac65d183755601bc2cf066df1a2aa492",
            recorded_by=TFDS,
        ),
    ),
)
_FULL = DataSet(
    home=_HOME,
    videos=(
        Source(
            f"{_ETH}/DAVIS-2017-trainval-Full-Resolution.zip",
            size_bytes=2_956_935_323,
            sha256="519494b320e7a333b98188e0f44e028f379c3312a1fc1a3e8bddd64b2c9ecfaf",
            recorded_by=TFDS,
        ),
    ),
)


@register_reader("davis", folds=1, about="DAVIS 2017, train and val at 480p: masks, 0.8 GB", download=_480P)
def read_davis(root: Path, official: OfficialSplit) -> Listing:
    """The sequences of ``train`` and ``val`` at 480p with the masks of their objects; no labels.

    Raises:
        DataError: the lists are not found or do not match the tree, or a frame has no mask.
    """
    return _read_2017(root, official, "480p")


@register_reader("davis_full", folds=1, about="the same at full resolution (most at 1080p), 3 GB", download=_FULL)
def read_davis_full(root: Path, official: OfficialSplit) -> Listing:
    """As ``davis``, from the folders called ``Full-Resolution``."""
    return _read_2017(root, official, "Full-Resolution")


@register_reader("davis2016", folds=1, about="DAVIS 2016, train and val: a mask of one object")
def read_davis2016(root: Path, official: OfficialSplit) -> Listing:
    """The sequences of DAVIS-2016, whose lists name each picture with its mask; a list of names of sequences is read too.

    480p is taken where it is there; ``data.annotations=DAVIS/ImageSets/1080p`` takes the other resolution.

    Raises:
        DataError: the lists are not found or do not match the tree, or a frame has no mask.
    """
    folder = require_annotations(root, official, LISTS_2016, " and ".join(_LISTS), holds_all(_LISTS))
    listed = [video for name in _LISTS for video in _sequences(split_lines(folder / name), Path(name).stem)]
    base = find_base(root, _PICTURES)
    if base is None:
        raise DataError(
            f"data.root ({root}) must hold the folder {_PICTURES}, or a folder that does. Set data.root to the folder of"
            " DAVIS-2016, which https://davischallenge.org/davis2016/code.html hands out."
        )
    usual = [folder.name, "480p", "1080p"]
    resolution = next((name for name in usual if (base / _PICTURES / name).is_dir()), "480p")
    return _matched(root, base, resolution, listed, official, f"{' and '.join(_LISTS)} in {folder}")


def _read_2017(root: Path, official: OfficialSplit, resolution: str) -> Listing:
    folder = require_annotations(root, official, LISTS_2017, " and ".join(_LISTS), holds_all(_LISTS))
    listed = [video for name in _LISTS for video in _sequences(split_lines(folder / name), Path(name).stem)]
    lists = f"{' and '.join(_LISTS)} in {folder}"
    base = find_base(root, _PICTURES)
    if base is not None:
        return _matched(root, base, resolution, listed, official, lists)
    return _joined(root, resolution, match_tree(root, find_videos(root), listed, official, lists=lists))


def _matched(
    root: Path, base: Path, resolution: str, listed: Sequence[Listed], official: OfficialSplit, lists: str
) -> Listing:
    """The folders of pictures of one resolution, with their masks where there are any."""
    pictures, masks = base / _PICTURES / resolution, base / _MASKS / resolution
    if not pictures.is_dir():
        found = ", ".join(sorted(path.name for path in (base / _PICTURES).iterdir() if path.is_dir())) or "none"
        raise DataError(
            f"{base / _PICTURES} must hold the folder {resolution}; its folders: {found}. Set data.name=davis for 480p,"
            " davis_full for Full-Resolution, or davis2016 for DAVIS-2016."
        )
    listing = match_tree(root, folders_in(root, pictures), listed, official, lists=lists)
    listing[:] = [replace(entry, fps=_FPS) for entry in listing]
    if not masks.is_dir():
        return listing
    listing = with_truth(listing, root, lambda path: masks / PurePosixPath(path).name)
    require_each_frame(listing, root, PICTURE_ENDINGS)
    return listing


def _joined(root: Path, resolution: str, listing: Listing) -> Listing:
    """Sequences that were joined to files, with the masks of those that have a folder of them below the root."""
    base = find_base(root, _MASKS)
    if base is None:
        return listing
    masks = {entry.path: base / _MASKS / resolution / PurePosixPath(entry.path).stem for entry in listing}
    listing[:] = [
        replace(entry, truth=masks[entry.path].relative_to(root).as_posix()) if masks[entry.path].is_dir() else entry
        for entry in listing
    ]
    return listing


def _sequences(lines: Sequence[SplitLine], split: str) -> Iterator[Listed]:
    """The sequences of a list: a name on each line (2017), or a picture and its mask (2016), each sequence once."""
    seen = set()
    for line in lines:
        path = PurePosixPath(line.text.split()[0])
        is_picture = path.suffix.lower() in PICTURE_ENDINGS
        name = path.parent.name if is_picture else line.text
        if not name or "/" in name:
            raise line.error(
                "it must be the name of a sequence, or /JPEGImages/<resolution>/<sequence>/<picture> and its mask"
            )
        if is_picture and name in seen:
            continue
        seen.add(name)
        yield Listed(name, (name,), "", split, name, line.where)
