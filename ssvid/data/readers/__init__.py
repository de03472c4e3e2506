"""Where the videos of a data set are listed: one file per data set, each a plug-in.

A stranger's package adds its own through the entry points ``ssvid.readers``.
"""

from ssvid.data.fetch.sources import DataSet, Source
from ssvid.data.readers.matching import Entry, Listing, OfficialSplit, find_videos
from ssvid.data.readers.shelf import Reader, list_readers, list_videos, register_reader

__all__ = [
    "DataSet",
    "Entry",
    "Listing",
    "OfficialSplit",
    "Reader",
    "Source",
    "find_videos",
    "list_readers",
    "list_videos",
    "register_reader",
]
