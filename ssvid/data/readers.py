"""Where the videos of a data set are listed: a bare folder, class folders, or a list of paths. No file is opened here.

A list is read strictly: its first bad line is named, nothing is guessed over. No torch is imported here.
"""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ssvid.data.manifest import contained_path
from ssvid.errors import DataError, did_you_mean

# fmt: off
VIDEO_EXTENSIONS: tuple[str, ...] = (
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".m1v", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4",
    ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".qt", ".ts", ".vob", ".webm", ".wmv",
)
# fmt: on

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

# The header of a CSV list: what each of its columns may be called.
LIST_COLUMNS: dict[str, tuple[str, ...]] = {
    "path": ("path", "file", "video"),
    "label": ("label", "class", "action"),
    "split": ("split", "subset"),
    "group": ("group", "subject"),
    "start_seconds": ("start_seconds", "start"),
    "end_seconds": ("end_seconds", "end"),
}
_FIELD_OF = {alias: name for name, aliases in LIST_COLUMNS.items() for alias in aliases}
_POSITIONS = ("path", "label", "start_seconds", "end_seconds")


@dataclass(frozen=True)
class Entry:
    """A video, or a window of one, as a reader found it.

    path: relative to the root, POSIX. label, split, group: "" where unknown. start_seconds, end_seconds: the window;
    None is the end of the video. where: the line that lists it, for error texts.
    """

    path: str
    label: str = ""
    split: str = ""
    group: str = ""
    start_seconds: float = 0.0
    end_seconds: float | None = None
    where: str = field(default="", compare=False)


def list_videos(
    name: str, root: str | Path, list_file: str | Path | None = None, *, allow_outside: bool = False
) -> list[Entry]:
    """List the videos of a data set.

    Args:
        name: ``folder`` (every video below ``root``, nested, no labels), ``class_folder`` (``root/<class>/*`` or
            ``root/{train,val,test}/<class>/*``) or ``list`` (``list_file`` holds paths relative to ``root``).
        root: the folder that holds the videos.
        list_file: the list, for ``list`` alone.
        allow_outside: accept listed paths that leave the root.

    Returns:
        The entries of folders sorted by path, those of a list in its order.

    Raises:
        DataError: nothing was found, the layout is another, or a line is bad; it says which, the rule, the way out.
    """
    root = Path(root)
    if name not in READERS:
        raise DataError(
            f"data.name ({name!r}) must name a reader of videos. {did_you_mean(name, (*READERS, 'manifest'))}"
        )
    if not root.is_dir():
        what = "it is a file" if root.exists() else "it does not exist"
        raise DataError(f"root ({root}) must be a folder: {what}. Set data.root to the folder that holds the videos.")
    if name == "list":
        if not list_file:
            raise DataError("list must name a file for data.name=list. Set data.list to it, or set data.name=folder.")
        return read_list(root, Path(list_file), allow_outside=allow_outside)
    if list_file:
        raise DataError(f"list ({list_file}) must be empty for data.name={name}. Set data.name=list to read it.")
    return _FOLDER_READERS[name](root)


# ---- folders


def read_folder(root: Path) -> list[Entry]:
    """Every video below ``root``, sorted; without labels."""
    return [Entry(path) for path in _find_videos(root)]


def read_class_folder(root: Path) -> list[Entry]:
    """Videos whose folder is their label, with or without a folder per split above it."""
    paths = [PurePosixPath(path) for path in _find_videos(root)]
    has_splits = _has_split_folders(paths)
    for path in paths:
        if len(path.parts) != 2 + has_splits:
            wanted = "<split>/<class>/<file>" if has_splits else "<class>/<file>"
            raise DataError(
                f"path ({str(path)!r}) must lie in a class folder: {root}/{wanted}, without further folders."
                " Move it, set data.root one folder deeper or higher, or set data.name=folder to do without labels."
            )
    if has_splits:
        return [Entry(str(path), path.parts[1], SPLIT_FOLDERS[path.parts[0].lower()]) for path in paths]
    return [Entry(str(path), path.parts[0]) for path in paths]


def _has_split_folders(paths: list[PurePosixPath]) -> bool:
    """Whether the top folders are splits. One of several classes may well be called "train" (the vehicle)."""
    tops = {path.parts[0].lower() for path in paths if len(path.parts) > 1}
    return bool(tops) and tops <= SPLIT_FOLDERS.keys()


def _find_videos(root: Path) -> list[str]:
    """Paths relative to ``root`` of all files with a video extension, sorted; hidden names are left out."""
    others: Counter[str] = Counter()
    found = []
    for path in _walk(root):
        if path.suffix.lower() in VIDEO_EXTENSIONS:
            found.append(path.relative_to(root).as_posix())
        else:
            others[path.suffix.lower() or "without extension"] += 1
    if not found:
        raise DataError(
            f"root ({root}) must hold at least one video ({' '.join(VIDEO_EXTENSIONS)}), at any depth."
            f" Found instead: {_describe(others)}. Set data.root to another folder{_hint(others)}."
        )
    return sorted(found)


def _walk(root: Path) -> Iterator[Path]:
    """All visible files below ``root``, through links to folders as well, each folder once."""

    def refuse(cause: OSError) -> None:
        raise DataError(
            f"folder ({cause.filename}) must be readable: {cause.strerror}. Mend its permissions or set data.root to"
            " another folder."
        ) from cause

    seen: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(root, onerror=refuse, followlinks=True):
        identity = os.stat(folder)
        key = (identity.st_dev, identity.st_ino)
        subfolders[:] = [] if key in seen else sorted(name for name in subfolders if not name.startswith("."))
        visible = () if key in seen else (Path(folder, name) for name in names if not name.startswith("."))
        seen.add(key)
        # A dangling link is kept: the index lists it as unreadable instead of losing it silently.
        yield from (path for path in visible if path.is_file() or path.is_symlink())


def _describe(others: Counter[str]) -> str:
    if not others:
        return "no file at all"
    kinds = [f"{count} {kind}" for kind, count in others.most_common(5)]
    return ", ".join(kinds) + (" and others" if len(others) > 5 else "")


def _hint(others: Counter[str]) -> str:
    if any(others[kind] for kind in (".jpg", ".jpeg", ".png", ".bmp", ".gif")):
        return " (pictures are not read: encode the frames of each clip as a video first)"
    if any(others[kind] for kind in (".zip", ".rar", ".tar", ".gz", ".tgz", ".7z")):
        return ", or unpack the archive"
    return ""


# ---- lists


@dataclass(frozen=True)
class _Line:
    """One record of a list: where it stands, its cells, and the cells as they were written."""

    file: Path
    number: int
    cells: list[str]

    @property
    def where(self) -> str:
        return f"{self.file}, line {self.number}"

    def error(self, rule: str, way_out: str) -> DataError:
        text = " ".join(self.cells)
        shown = text if len(text) <= 120 else text[:117] + "..."
        return DataError(f"{self.where} ({shown!r}): {rule}. {way_out}")


def read_list(root: Path, list_file: Path, *, allow_outside: bool = False) -> list[Entry]:
    """Read a list of videos: one path a line, or ``path label [start end]``, or a CSV with a header.

    The columns are separated by tab, comma or space, the same in the whole file; paths with spaces need tab or comma.
    start and end are seconds. Blank lines and lines that begin with # are skipped.

    Raises:
        DataError: the file is no such list, or a line is bad; the first is named.
    """
    text = _read_text(list_file)
    first = next((line for line in text.split("\n") if _is_content(line)), None)
    if first is None:
        raise DataError(f"list ({list_file}) must hold at least one path. Fill it, or set data.name=folder.")
    separator = _detect_separator(root, first.strip())
    lines = list(_split_lines(list_file, text, separator))
    header = _header(root, lines[0])
    if header and len(lines) == 1:
        raise DataError(f"list ({list_file}) must hold at least one path below its header. Fill it.")
    entries: list[Entry] = []
    listed: dict[tuple[str, float, float | None], int] = {}
    # Line by line through all the rules: the first bad line is to be named, whatever is wrong with it.
    for line in lines[1:] if header else lines:
        cells = _named_cells(line, header, labeled=len(lines[0].cells) > 1)
        entry = _entry(root, line, cells, allow_outside=allow_outside)
        earlier = listed.setdefault((entry.path, entry.start_seconds, entry.end_seconds), line.number)
        if earlier != line.number:
            rule = f"a video or window must be listed once, it stands in line {earlier} already"
            raise line.error(rule, "Remove one of the two.")
        entries.append(entry)
    return entries


def _read_text(list_file: Path) -> str:
    try:
        # surrogateescape: file names need not be UTF-8, and they must come back as the system knows them.
        text = list_file.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except OSError as cause:
        raise DataError(
            f"list ({list_file}) must be a readable file: {cause.strerror}. Set data.list to a text file with one"
            " path a line."
        ) from cause
    if "\0" in text:
        raise DataError(f"list ({list_file}) must be a text file, it holds binary data. Set data.list to another.")
    return text.replace("\r\n", "\n")


def _is_content(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _detect_separator(root: Path, first: str) -> str:
    """What separates the columns of a list, by its first line: tab, comma, space, or "" where lines are bare paths.

    What names a file is believed first, so that paths may hold any of these marks.
    """
    if _is_file(root / first):
        return ""
    marks = [mark for mark in ("\t", ",", " ") if mark in first]
    named = [mark for mark in marks if _is_file(root / first.split(mark)[0].strip(' "'))]
    return next(iter(named + marks), "")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that the file system cannot hold, so no file has it
        return False


def _split_lines(file: Path, text: str, separator: str) -> Iterator[_Line]:
    if separator == ",":
        yield from _split_csv(file, text)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if _is_content(line):
            cells = line.strip().split(separator) if separator else [line]
            # Several spaces are one separator; two tabs in a row are an empty cell.
            yield _Line(file, number, [cell.strip() for cell in cells if cell or separator != " "])


def _split_csv(file: Path, text: str) -> Iterator[_Line]:
    # Not splitlines, which also breaks at characters that are part of a name.
    reader = csv.reader((line + "\n" for line in text.split("\n")), strict=True, skipinitialspace=True)
    number = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells) and not cells[0].lstrip().startswith("#"):
                yield _Line(file, number, [cell.strip() for cell in cells])
            number = reader.line_num + 1
    except csv.Error as cause:
        way_out = 'Put paths with commas or quotes in double quotes and double the quotes inside ("").'
        raise _Line(file, number, []).error(f"it must be CSV ({cause})", way_out) from cause


def _header(root: Path, line: _Line) -> tuple[str, ...]:
    """The fields of the columns where the first line is a header, else ()."""
    names = [cell.lower() for cell in line.cells]
    if not set(names) & set(LIST_COLUMNS["path"]) or _is_file(root / line.cells[0]):
        return ()
    columns = tuple(_FIELD_OF.get(name, name) for name in names)
    unknown = [name for name in columns if name not in LIST_COLUMNS]
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if unknown or twice:
        problem = f"unknown {', '.join(map(repr, unknown))}" if unknown else f"twice {', '.join(map(repr, twice))}"
        known = "; ".join("|".join(aliases) for aliases in LIST_COLUMNS.values())
        raise line.error(
            f"the columns of a list must be among {known}; {problem}",
            "Rename or remove them; a table written by ssvid data index is read with data.name=manifest.",
        )
    return columns


_LABEL_WAY_OUT = "Add the label, or leave it out of every line; a path with spaces needs tab or comma as separator."


def _named_cells(line: _Line, header: tuple[str, ...], *, labeled: bool) -> dict[str, str]:
    """The cells of a line by field. Without a header it has 1 to 4 of them, and all lines or none have a label."""
    count = len(line.cells)
    if header:
        if count != len(header):
            rule = f"it must have {len(header)} columns as the header, it has {count}"
            raise line.error(rule, "Mend the line; quote cells that hold a comma.")
        return dict(zip(header, line.cells, strict=True))
    if count > len(_POSITIONS):
        rule = f"it must have at most {len(_POSITIONS)} columns (path, label, start, end), it has {count}"
        raise line.error(rule, "Remove the others, or name them in a header line; quote paths that hold a comma.")
    if (count > 1) != labeled:
        rule = "it must have a label as the first line" if labeled else "it must be a path alone as the first line"
        raise line.error(f"{rule}, it has {count} column{'s' * (count > 1)}", _LABEL_WAY_OUT)
    return dict(zip(_POSITIONS, line.cells, strict=False))


def _entry(root: Path, line: _Line, cells: dict[str, str], *, allow_outside: bool) -> Entry:
    path = _listed_path(root, line, cells["path"], allow_outside=allow_outside)
    start = _seconds(line, "start", cells.get("start_seconds", ""))
    end = _seconds(line, "end", cells.get("end_seconds", ""))
    if end is not None and end <= (start or 0.0):
        raise line.error(
            f"end ({end:g} s) must be greater than start ({start or 0.0:g} s)",
            "Mend them; an empty end is the last frame.",
        )
    names = {name: cells.get(name, "") for name in ("label", "split", "group")}
    return Entry(path, **names, start_seconds=start or 0.0, end_seconds=end, where=line.where)


def _listed_path(root: Path, line: _Line, text: str, *, allow_outside: bool) -> str:
    """The path relative to the root of a file that exists. An absolute path inside the root is one as well."""
    base = f"{root.absolute().as_posix()}/"
    try:
        path = contained_path(text.removeprefix(base), allow_outside=allow_outside)
    except ValueError as cause:
        raise line.error(str(cause), f"Write it relative to data.root ({root}), or set data.root higher.") from None
    if not _is_file(root / path):
        raise line.error(
            f"path ({text!r}) must name a file below the root ({root}); there is none",
            "Mend the path or data.root; a path or label with spaces needs tab or comma as separator.",
        )
    return path


def _seconds(line: _Line, name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise line.error(
            f"{name} ({text!r}) must be seconds, 0 or more",
            "Mend it; the columns are path, label, start, end; a path or label with spaces needs tab or comma.",
        )
    return value


_FOLDER_READERS: dict[str, Callable[[Path], list[Entry]]] = {"folder": read_folder, "class_folder": read_class_folder}
READERS: tuple[str, ...] = (*_FOLDER_READERS, "list")
