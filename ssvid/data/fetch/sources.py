"""The addresses of the data sets that ``ssvid data download`` fetches: one table, with what is known of each file.

Sizes are what the servers announced when they were written down here. None of the publishers gives a checksum. Where a
well-kept project records one, it stands here with the name of that project; elsewhere the download records its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssvid.errors import DataError, did_you_mean

TFDS = "TensorFlow Datasets"
TORCHVISION = "torchvision"


@dataclass(frozen=True)
class Source:
    """One file to fetch, and where its content goes.

    url: its address. into: folder below the destination for its content; "" is the destination itself. size_bytes: None
    where nobody has written it down. sha256, md5: hex, "" where nobody records it. recorded_by: who records the checksum.
    unpack: it is an archive. nested: it holds archives, which are unpacked in their turn. note: what goes wrong with it,
    and the way out, for error texts.
    """

    url: str
    into: str = ""
    size_bytes: int | None = None
    sha256: str = ""
    md5: str = ""
    recorded_by: str = ""
    unpack: bool = True
    nested: bool = False
    note: str = ""

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class DataSet:
    """What ``ssvid data download NAME`` fetches.

    about: for people. home: the page with the terms of use. videos, annotations: the files. mirror: other addresses of
    the videos. reader: the value of data.name, "" where there is no reader yet.
    """

    about: str
    home: str
    videos: tuple[Source, ...]
    annotations: tuple[Source, ...] = ()
    mirror: tuple[Source, ...] = ()
    reader: str = ""


_CRCV = "https://www.crcv.ucf.edu/data/UCF101"
_CRCV_NOTE = (
    "This server is known for a certificate chain that many machines cannot verify. --mirror takes the videos from"
    " THUMOS'14 instead."
)
_SERRE = "https://serre-lab.clps.brown.edu/wp-content/uploads/2013/10"

DATA_SETS: dict[str, DataSet] = {
    "ucf101": DataSet(
        about="13,320 clips of 101 actions, 6.9 GB",
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
        reader="ucf101",
    ),
    "hmdb51": DataSet(
        about="6,766 clips of 51 actions, 2 GB",
        home="https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/",
        videos=(Source(f"{_SERRE}/hmdb51_org.rar", into="hmdb51_org", nested=True),),
        annotations=(
            Source(f"{_SERRE}/test_train_splits.rar", md5="15e67781e70dcfbdce2d7dbb9b3344b5", recorded_by=TORCHVISION),
        ),
        reader="hmdb51",
    ),
    "davis": DataSet(
        about="DAVIS 2017, train and val at 480p: 90 sequences with masks, 0.8 GB",
        home="https://davischallenge.org/davis2017/code.html",
        videos=(
            Source(
                "https://data.vision.ee.ethz.ch/csergi/share/davis/DAVIS-2017-trainval-480p.zip",
                size_bytes=832_766_765,
                sha256="e3d0b5b77c3d031b000a19e0e25e3e2cac65d183755601bc2cf066df1a2aa492",
                recorded_by=TFDS,
            ),
        ),
    ),
}

# Kinetics: CVDF keeps the videos in some hundred archives per split, and a list of their addresses for each split.
KINETICS_VERSIONS = ("400", "600", "700")
KINETICS_SPLITS = ("train", "val", "test")
KINETICS_HOME = "https://github.com/cvdfoundation/kinetics-dataset"
_CVDF = "https://s3.amazonaws.com/kinetics"
_CVDF_FOLDER = {"400": "400", "600": "600", "700": "700_2020"}
# The tables of Kinetics-600 in .csv are incomplete by CVDF's own words.
_CVDF_TABLE = {"400": "csv", "600": "txt", "700": "csv"}


def data_set(name: str) -> DataSet:
    """The row of the table.

    Raises:
        DataError: there is none of that name.
    """
    if name not in DATA_SETS:
        raise DataError(f"data set ({name!r}) must be one that can be fetched. {did_you_mean(name, DATA_SETS)}")
    return DATA_SETS[name]


def kinetics_tables(version: str) -> tuple[Source, ...]:
    """The published tables of train, val and test."""
    folder = f"{_CVDF}/{_CVDF_FOLDER[version]}/annotations"
    return tuple(
        Source(
            f"{folder}/{split}.{'csv' if split == 'test' else _CVDF_TABLE[version]}", into="annotations", unpack=False
        )
        for split in KINETICS_SPLITS
    )


def kinetics_list(version: str, split: str) -> Source:
    """The list of the addresses of a split's archives."""
    folder = _CVDF_FOLDER[version]
    return Source(f"{_CVDF}/{folder}/{split}/k{folder}_{split}_path.txt", into="archives", unpack=False)


def kinetics_archives(version: str, split: str, text: str) -> tuple[Source, ...]:
    """The archives that such a list names, and for the training videos of Kinetics-400 the one that mends damaged ones.

    Raises:
        DataError: a line is no address of an archive on the same server.
    """
    start = f"{_CVDF}/{_CVDF_FOLDER[version]}/"
    addresses = [line.strip() for line in text.splitlines() if line.strip()]
    for address in addresses:
        if not address.startswith(start) or not address.endswith((".tar.gz", ".tgz", ".tar")) or ".." in address:
            raise DataError(
                f"{kinetics_list(version, split).url} must list archives below {start}; it has {address!r}. See"
                f" {KINETICS_HOME} for what has changed."
            )
    mended = [f"{start}replacement_for_corrupted_k400.tgz"] if (version, split) == ("400", "train") else []
    return (
        *(Source(address, into=split) for address in addresses),
        *(Source(address, into="train/replacement") for address in mended),
    )
