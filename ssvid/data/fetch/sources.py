"""What is known of the files of a data set: addresses, sizes, checksums. Each reader's file holds those of its own.

Sizes are what the servers announced when they were written down. No publisher gives a checksum. Where a well-kept project
records one, it stands there with the name of that project; elsewhere the download records its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ssvid.errors import DataError

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
class Order:
    """Which part of a data set is fetched.

    version: "" is the usual one. splits: () are the usual ones. annotations_only: the split files or tables alone.
    mirror: take the videos from the mirror.
    """

    version: str = ""
    splits: tuple[str, ...] = ()
    annotations_only: bool = False
    mirror: bool = False


@dataclass(frozen=True)
class DataSet:
    """What ``ssvid data download NAME`` fetches.

    home: the page with the terms of use. videos, annotations: the files. mirror: other addresses of the videos.
    versions, splits: those that can be fetched alone; the usual version first.
    """

    home: str
    videos: tuple[Source, ...] = ()
    annotations: tuple[Source, ...] = ()
    mirror: tuple[Source, ...] = ()
    versions: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()

    def sources(self, order: Order, read: Callable[[Source], str]) -> Iterable[Source]:
        """The files of an order. read: fetches a file that lists others and returns its text."""
        return self.annotations + (() if order.annotations_only else self.mirror if order.mirror else self.videos)

    def check(self, name: str, order: Order) -> None:
        """Raise DataError where the data set has no such part."""
        if order.mirror and not self.mirror:
            raise DataError(f"--mirror: no mirror of {name} is known. Leave it out.")
        if order.annotations_only and not self.annotations:
            raise DataError(f"--annotations-only: {name} has no separate annotations. Leave it out.")
        versions = [order.version] if order.version else []
        for values, known, option in ((versions, self.versions, "--version"), (order.splits, self.splits, "--split")):
            for value in values:
                if value not in known:
                    rule = f"must be one of {', '.join(known)}" if known else f"does nothing for {name}. Leave it out"
                    raise DataError(f"{option} ({value!r}) {rule}.")
