"""The one table of a data set: which videos there are, what a full decode found in them, what they are labeled.

A manifest is a CSV with a header. Its paths are relative to a root, it holds nothing of the machine it was written on,
and it survives a round trip exactly. No torch is imported here.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ssvid.data.contents import drawn_names, units_of
from ssvid.errors import DataError, did_you_mean
from ssvid.files import expanded, write_atomic
from ssvid.types import FLOW_CHANNELS, VideoInfo
from ssvid.video.flow import FlowSettings
from ssvid.video.frame_folders import is_there
from ssvid.video.identity import is_quick

if TYPE_CHECKING:
    from ssvid.video.decoders.contract import VideoReader

OK = "ok"
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class VideoRow:
    """One video (a file, or a folder of pictures), or one window of a video.

    path: relative to the manifest's root, POSIX. num_frames: frames that a sequential decode of the *whole file*
    delivers. fps: frames per second. height, width: pixels as displayed. label, split, group: "" where unknown.
    status: "ok" or "unreadable: why". decoders_ok: decoders that deliver the right frames of this file, on the machine
    that indexed it. content_id: identity of the file, see ``ssvid.video.identity``; a prepared copy keeps its source's as
    ``source_id``. start_frame, end_frame: the window [start, end) within the file; -1 means to the end. quick_id: of the
    file's ends, to compare with what knows videos by that alone; where the table is so old, content_id is the same.
    notes: what is odd about the file, "subject: words; subject: words". gray_range: the values that become 0 and 255 where
    the file is gray of more than 8 bits and the index was asked for that; else (). truth: what is known of its frames, a
    path relative to the root, see ``ssvid.data.truth``; "" where nothing is. flow: the settings of the measured flow that is
    read in the place of the frames (``FlowSettings.text``); "" where the frames are read.
    """

    path: str
    num_frames: int
    fps: float
    height: int
    width: int
    variable_fps: bool = False
    label: str = ""
    split: str = ""
    group: str = ""
    status: str = OK
    decoders_ok: tuple[str, ...] = ()
    content_id: str = ""
    source_id: str = ""
    start_frame: int = 0
    end_frame: int = -1
    quick_id: str = ""
    notes: str = ""
    gray_range: tuple[int, ...] = ()
    truth: str = ""
    flow: str = ""

    @property
    def is_readable(self) -> bool:
        """Whether the index could decode the file from end to end."""
        return self.status == OK

    @property
    def window_frames(self) -> int:
        """Number of frames in the window; the whole file where no window is set."""
        end = self.num_frames if self.end_frame < 0 else min(self.end_frame, self.num_frames)
        return max(0, end - self.start_frame)

    @property
    def window_seconds(self) -> float:
        """Duration of the window; 0 where the frame rate is unknown."""
        return self.window_frames / self.fps if self.fps > 0 else 0.0

    def video_info(self, root: str | Path) -> VideoInfo:
        """What a clip maker plans with: the *window* as if it were a video of its own, frame 0 at ``start_frame``."""
        path, seen = str(Path(root) / self.path), (self.window_frames, self.fps)
        if self.flow:
            size = FlowSettings.parse(self.flow).size_of(self.height, self.width)
            return VideoInfo(path, *seen, *size, self.variable_fps, channels=FLOW_CHANNELS)
        return VideoInfo(path, *seen, self.height, self.width, self.variable_fps, gray_range=self.gray_range)

    def open(self, root: str | Path, decoder: str = "auto") -> AbstractContextManager[VideoReader]:
        """The whole file, read in a with-block: frames are counted from its first, not from that of the window."""
        from ssvid.video.opening import open_video  # here: a table is read without any decoder

        whole = replace(self, start_frame=0, end_frame=-1).video_info(root)
        if self.flow:
            from ssvid.data.index.places import open_flow  # here: a table is read without the cache

            return open_flow(self, FlowSettings.parse(self.flow), whole)
        return open_video(whole.path, decoder, info=whole, decoders_ok=self.decoders_ok)


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(VideoRow))
# Which decoders a machine has, and the words in which one of them gives up, are no part of a data set's identity.
_NOT_IDENTITY = ("status", "decoders_ok", "quick_id", "notes")
# Tables of before lack these columns.
_ADDED = ("quick_id", "notes", "gray_range", "truth", "flow")
# Part of the identity where it says something: an older table is what it was.
_IDENTITY_IF_SET = ("gray_range", "truth", "flow")


@dataclass(frozen=True)
class Manifest:
    """The rows of a data set and the folder their paths are relative to.

    missing: videos that the data set's official lists name and that have no row, because they were not there and that was
    allowed. They stand in every result; a file beside the table keeps them.
    """

    root: Path
    rows: tuple[VideoRow, ...]
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(expanded(self.root)))
        object.__setattr__(self, "rows", tuple(self.rows))
        object.__setattr__(self, "missing", tuple(self.missing))

    def __len__(self) -> int:
        return len(self.rows)

    def save(self, path: str | Path) -> None:
        """Write the table as CSV. Whoever reads ``path`` meanwhile sees the old table or the new one, never a part."""
        text = "".join(_write_record(cells) for cells in (COLUMNS, *map(_cells, self.rows)))
        # surrogateescape: names that are no UTF-8 (old archives have them) survive the round trip as they are.
        write_atomic(path, lambda file: file.write(text.encode("utf-8", "surrogateescape")))
        _save_missing(missing_path(path), self.missing)

    @classmethod
    def load(cls, path: str | Path, root: str | Path | None = None, *, allow_outside: bool = False) -> Manifest:
        """Read a table that ``save`` wrote.

        Args:
            path: the CSV.
            root: the folder that its paths are relative to; the CSV's own folder where None.
            allow_outside: accept paths that leave the root.

        Raises:
            DataError: the file is missing or no manifest; the first bad line is named with its rule.
        """
        path = Path(expanded(path))
        rows = tuple(_read_rows(path, allow_outside=allow_outside))
        if not rows:
            raise DataError(f"manifest ({path}) must list at least one video. Write it again with: ssvid data index.")
        return cls(Path(root) if root is not None else path.absolute().parent, rows, _load_missing(missing_path(path)))

    def sha256(self) -> str:
        """Identity of the data set, hex: every row in order, independent of root, decoders and their error texts."""
        digest = hashlib.sha256()
        for row in self.rows:
            named = dict(zip(COLUMNS, _cells(row), strict=True))
            left_out = (*_NOT_IDENTITY, *(name for name in _IDENTITY_IF_SET if not named[name]))
            cells = [cell for name, cell in named.items() if name not in left_out]
            cells.append(_write_bool(row.is_readable))
            digest.update(ascii(cells).encode())  # repr would depend on the Unicode version of this Python
        return digest.hexdigest()

    def labels(self) -> tuple[str, ...]:
        """Sorted names of all labels; rows without a label add none."""
        return tuple(sorted({row.label for row in self.rows if row.label}))

    def splits(self) -> tuple[str, ...]:
        """Sorted names of all splits; rows without a split add none."""
        return tuple(sorted({row.split for row in self.rows if row.split}))

    def select(self, split: str | None = None, readable: bool = True) -> Manifest:
        """The rows of one split (all of them where it is None or ""), without the unreadable ones unless told so.

        Raises:
            DataError: no row has this split.
        """
        if split and split not in self.splits():
            raise DataError(
                f"split ({split!r}) must be one of the manifest's splits. {did_you_mean(split, self.splits())}"
                " Leave it empty to take all videos."
            )
        rows = (row for row in self.rows if not split or row.split == split)
        return self.with_rows(row for row in rows if row.is_readable or not readable)

    def with_rows(self, rows: Iterable[VideoRow]) -> Manifest:
        """The same root with other rows; what is missing stays missing."""
        return Manifest(self.root, tuple(rows), self.missing)

    def path_of(self, row: VideoRow) -> Path:
        """Where the file of a row, or its folder of pictures, lies on this machine."""
        return self.root / row.path

    def check_files(self, way_out: str = "") -> None:
        """Make sure that every readable row's file, or folder of pictures, exists, before hours of training find out.

        Args:
            way_out: what to do about a missing one, in the words of the caller.

        Raises:
            DataError: names the first missing file, how many are missing, and the way out.
        """
        missing = [row.path for row in self.rows if row.is_readable and not is_there(self.path_of(row))]
        if missing:
            raise DataError(
                f"root ({self.root}) must hold the files of the manifest: {len(missing)} of {len(self.rows)} are"
                f" missing, the first is {missing[0]!r}. "
                + (
                    way_out
                    or "Set data.root to the folder that holds them, or write the manifest again with: ssvid data index."
                )
            )

    def train_val_split(self, val_fraction: float, seed: int) -> tuple[Manifest, Manifest]:
        """Hold out a share of the videos for validation.

        Rows that share a group or the same content stay on one side. The side of such a unit is a hash of its name and
        the seed, so it does not change when other files are added; the share is met in expectation. With at least two
        units and a positive fraction, neither side is empty; a single unit is all train.

        Args:
            val_fraction: share of units held out, in [0, 1).
            seed: another seed holds out others.

        Returns:
            (train, val), each in the order of the rows.
        """
        if not 0.0 <= val_fraction < 1.0:
            raise DataError(
                f"val_fraction ({val_fraction}) must be at least 0 and below 1. Set data.val_fraction=0.05."
            )
        units = units_of(self.rows)
        draws = {unit: _unit_draw(name, seed) for unit, name in drawn_names(self.rows, units).items()}
        held_out = {unit for unit, draw in draws.items() if draw < val_fraction}
        order = sorted(draws, key=lambda unit: (draws[unit], unit))
        if val_fraction > 0:
            held_out = (held_out | set(order[:1])) - set(order[-1:])
        sides: tuple[list[VideoRow], list[VideoRow]] = ([], [])
        for row, unit in zip(self.rows, units, strict=True):
            sides[unit in held_out].append(row)
        return self.with_rows(sides[0]), self.with_rows(sides[1])


def missing_path(path: str | Path) -> Path:
    """The file beside a table that names the missing videos, one a line; there is none where none is missing."""
    return Path(path).with_suffix(".missing.txt")


def _save_missing(path: Path, names: tuple[str, ...]) -> None:
    if names:
        text = "".join(f"{name}\n" for name in names)
        write_atomic(path, lambda file: file.write(text.encode("utf-8", "surrogateescape")))
    else:
        path.unlink(missing_ok=True)


def _load_missing(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    return tuple(path.read_bytes().decode("utf-8", "surrogateescape").removesuffix("\n").split("\n"))


def contained_path(text: str, *, allow_outside: bool = False) -> str:
    """A path as a manifest writes it: POSIX, relative to the root, without "." parts.

    The check is of the text alone: a link inside the root was put there by the owner of the data, a path in a list was
    put there by whoever wrote the list.

    Raises:
        ValueError: it is empty or leaves the root; the text is the rule that it broke.
    """
    path = PurePosixPath(text)
    if not text.strip() or "\0" in text or path == PurePosixPath("."):
        raise ValueError(f"path ({text!r}) must name a file")
    if not allow_outside and (path.is_absolute() or ".." in path.parts):
        raise ValueError(f"path ({text!r}) must be relative and must not leave the root")
    return str(path)


def _unit_draw(unit: str, seed: int) -> float:
    """Uniform in [0, 1), a function of the unit and the seed alone."""
    digest = hashlib.sha256(f"{seed} {unit}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


# ---- cells


def _write_bool(value: bool) -> str:
    return "true" if value else "false"


def _read_bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def _read_whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("must be a whole number") from None


def _read_real(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("must be a number") from None
    if not math.isfinite(value):
        raise ValueError("must be finite")
    return value


_READERS: Mapping[str, Callable[[str], Any]] = {
    "num_frames": _read_whole,
    "fps": _read_real,
    "height": _read_whole,
    "width": _read_whole,
    "variable_fps": _read_bool,
    "decoders_ok": lambda text: tuple(text.split("+")) if text else (),
    "start_frame": _read_whole,
    "end_frame": _read_whole,
    "gray_range": lambda text: tuple(map(_read_whole, text.split("+"))) if text else (),
}


def _cells(row: VideoRow) -> list[str]:
    return [_write_cell(getattr(row, name)) for name in COLUMNS]


def _write_record(cells: Iterable[str]) -> str:
    """One line of CSV. Written with CR LF and cut, because the writer quotes a CR only where it ends its own lines."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"


def _write_cell(value: object) -> str:
    if isinstance(value, bool):
        return _write_bool(value)
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    # float() first: the repr of a numpy scalar carries its type.
    return repr(float(value)) if isinstance(value, float) else str(value)


# ---- lines

_REWRITE = "Fix the line, or write the manifest again with: ssvid data index."


def _read_rows(path: Path, *, allow_outside: bool) -> Iterator[VideoRow]:
    """The rows of a CSV whose header holds exactly ``COLUMNS``, in any order; those of ``_ADDED`` may be absent.

    Raises:
        DataError: the file is missing or no CSV, the header has an unknown or lacks a column, a line is bad: it is named.
    """
    try:
        file = open(path, encoding="utf-8-sig", errors="surrogateescape", newline="")  # noqa: SIM115
    except OSError as cause:
        raise DataError(
            f"manifest ({path}) must be a readable file: {cause.strerror}. Write one with: ssvid data index."
        ) from cause
    with file:
        reader = csv.reader(file, strict=True)
        number = 1  # of the line on which a record starts
        try:
            header = next(reader, [])
            _check_header(path, header)
            number = reader.line_num + 1
            for record in reader:
                if record:
                    yield _parse(header, record, allow_outside=allow_outside)
                number = reader.line_num + 1
        except csv.Error as cause:
            raise DataError(f"{path}, line {number}: it must be CSV ({cause}). {_REWRITE}") from cause
        except ValueError as cause:
            raise DataError(f"{path}, line {number}: {cause}. {_REWRITE}") from None


def _check_header(path: Path, header: list[str]) -> None:
    found = {
        "unknown": [name for name in header if name not in COLUMNS],
        "missing": [name for name in COLUMNS if name not in (*header, *_ADDED)],
        "twice": [name for name, count in Counter(header).items() if count > 1],
    }
    problems = [f"{what} {', '.join(map(repr, names))}" for what, names in found.items() if names]
    if problems:
        raise DataError(
            f"{path}, line 1: a manifest must have exactly the columns {', '.join(COLUMNS)}; {'; '.join(problems)}."
            " Write it again with: ssvid data index; a list of paths and labels is read with data.name=list."
        )


def _parse(header: list[str], record: list[str], *, allow_outside: bool) -> VideoRow:
    """A row of its cells. Raises ValueError: the text is the rule that they break."""
    if len(record) != len(header):
        raise ValueError(f"it must have {len(header)} cells, it has {len(record)}")
    values: dict[str, Any] = dict(zip(header, record, strict=True))
    for name, read in _READERS.items():
        text = values.get(name, "")
        try:
            values[name] = read(text)
        except ValueError as cause:
            raise ValueError(f"{name} ({text!r}) {cause}") from None
    values["path"] = contained_path(values["path"], allow_outside=allow_outside)
    if values.get("truth"):
        values["truth"] = contained_path(values["truth"], allow_outside=allow_outside)
    if is_quick(values["content_id"]):
        values["quick_id"] = values["content_id"]
    row = VideoRow(**values)
    if rule := _broken_rule(row):
        raise ValueError(rule)
    return row


def _broken_rule(row: VideoRow) -> str:
    """The first rule between the cells that a row breaks, or ""."""
    if row.status != OK and not row.status.startswith(UNREADABLE):
        return f'status ({row.status!r}) must be "ok" or "unreadable: why"'
    if min(row.num_frames, row.height, row.width, row.start_frame) < 0 or row.fps < 0:
        return "num_frames, fps, height, width and start_frame must not be negative"
    if row.is_readable and not (row.num_frames and row.fps and row.height and row.width):
        return "num_frames, fps, height and width of a readable video must be positive"
    if row.end_frame != -1 and row.end_frame <= row.start_frame:
        return f"end_frame ({row.end_frame}) must be -1 or greater than start_frame ({row.start_frame})"
    if row.is_readable and row.window_frames == 0:
        return f"start_frame ({row.start_frame}) must be below num_frames ({row.num_frames})"
    return gray_range_problem(row.gray_range) or _flow_problem(row.flow)


def _flow_problem(flow: str) -> str:
    try:
        FlowSettings.parse(flow or FlowSettings().text)
    except ValueError as problem:
        return str(problem)
    return ""


def gray_range_problem(gray_range: Sequence[int]) -> str:
    """The rule that a range of gray values breaks, or ""; () is none."""
    ascending = sorted({value for value in gray_range if 0 <= value < 2**16})
    if len(gray_range) in (0, 2) and list(gray_range) == ascending:
        return ""
    given = " ".join(map(str, gray_range))
    return f"gray_range ({given}) must be two values from 0 to 65535, the one that becomes black before the one that becomes white"


def row_id(row: VideoRow) -> str:
    """The name of a video in results: its path, with the window where it has one (``a/b.mp4#30-90``)."""
    windowed = row.start_frame or row.end_frame >= 0
    return f"{row.path}#{row.start_frame}-{row.end_frame}" if windowed else row.path
