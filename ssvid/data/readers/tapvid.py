"""TAP-Vid, as ``ssvid data tapvid`` converts its pickles: folders of pictures with tracks of points. See ``ssvid.data.tapvid``."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ssvid.data.readers.matching import Entry, Listing, OfficialSplit
from ssvid.data.readers.sequences import folders_in, with_truth
from ssvid.data.readers.shelf import register_reader
from ssvid.errors import DataError

FRAMES, TRUTH = "frames", "truth"


@register_reader("tapvid", about="TAP-Vid as ssvid data tapvid converts its pickles: tracks of points")
def read_tapvid(root: Path, official: OfficialSplit) -> Listing:
    """The converted videos, all of split ``test``, with their tracks.

    Raises:
        DataError: nothing was converted there, or a video has no tracks.
    """
    if not (root / FRAMES).is_dir():
        raise DataError(
            f"data.root ({root}) must hold the folders {FRAMES} and {TRUTH} that ssvid data tapvid writes. Convert the pickle:"
            f" ssvid data tapvid tapvid_davis.pkl {root}."
        )
    paths = folders_in(root, root / FRAMES)
    if not paths:
        raise DataError(f"{root / FRAMES} must hold a folder for each video, it holds none. Convert the pickle again.")
    listing = Listing(Entry(path, split="test") for path in paths)
    return with_truth(listing, root, lambda path: root / TRUTH / f"{PurePosixPath(path).name}.npz")
