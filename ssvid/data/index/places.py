"""Where what was measured of a file lies in the cache folder, by the content of the file; and measured flow, to be read.

$SSVID_CACHE/flow/v1/dis-128px-10/ab/ab12....flow.mkv       see ``ssvid.video.flow_file`` for what it holds
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ssvid.data.index.scan_cache import cache_folder
from ssvid.errors import DataError, DecodeError
from ssvid.types import VideoInfo
from ssvid.video.flow import FlowSettings

if TYPE_CHECKING:
    from ssvid.data.manifest import VideoRow
    from ssvid.video.decoders.contract import VideoReader

# Part of the folder's name: raise it with every change of what is measured, or old measurements are believed.
FLOW_VERSION = 1
SUFFIX = ".flow.mkv"


def kept_of_content(row: VideoRow) -> Path:
    """The name under which something is kept of a row's file, below a folder of its first letters.

    Raises:
        DataError: the table knows no content identity of the file.
    """
    if not row.content_id:
        raise DataError(
            f"the manifest has no content_id of {row.path!r}, by which what was measured of a file is found."
            " Write it again with: ssvid data index ROOT --overwrite."
        )
    return Path(row.content_id[:2], "-".join(map(str, (row.content_id, *row.gray_range))))


def flow_folder(settings: FlowSettings) -> Path:
    """Where the flow of these settings is kept."""
    return cache_folder() / "flow" / f"v{FLOW_VERSION}" / settings.measurement


def flow_path(row: VideoRow, settings: FlowSettings) -> Path:
    """The file of a video's flow.

    Raises:
        DataError: the table knows no content identity of the video's file.
    """
    name = kept_of_content(row)
    return flow_folder(settings) / name.with_name(name.name + SUFFIX)


def failure_path(path: Path) -> Path:
    """Beside the flow of a video: why it could not be measured, in words."""
    return path.with_suffix(".failed.txt")


def open_flow(row: VideoRow, settings: FlowSettings, info: VideoInfo) -> VideoReader:
    """The flow of a video, read in a with-block like the video itself.

    Raises:
        DecodeError: it could not be measured, was not, or its file is damaged.
    """
    from ssvid.video.flow_file import FlowReader  # here: a table is read without any decoder

    path = flow_path(row, settings)
    if not path.is_file() and (note := failure_path(path)).is_file():
        raise DecodeError(info.path, f"its flow could not be measured: {note.read_text(encoding='utf-8')}")
    return FlowReader(path, info, settings)
