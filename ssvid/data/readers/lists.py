"""Lists of videos: one path a line, with label and window if wanted, or a CSV with a header.

A list is read strictly: its first bad line is named, nothing is guessed over.
"""

from __future__ import annotations

import csv
import math
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ssvid.data.manifest import contained_path
from ssvid.data.readers.matching import Entry, Listing, OfficialSplit, SplitLine, read_text
from ssvid.data.readers.shelf import register_reader
from ssvid.errors import DataError
from ssvid.video.frame_folders import is_there

# The header of a CSV list: what each of its columns may be called.
LIST_COLUMNS: dict[str, tuple[str, ...]] = {
    "path": ("path", "file", "video"),
    "label": ("label", "class", "action"),
    "split": ("split", "subset"),
    "group": ("group", "subject"),
    "start_seconds": ("start_seconds", "start"),
    "end_seconds": ("end_seconds", "end"),
    "truth": ("truth", "masks"),
}
_FIELD_OF = {alias: name for name, aliases in LIST_COLUMNS.items() for alias in aliases}
_POSITIONS = ("path", "label", "start_seconds", "end_seconds")


def _line(file: Path, number: int, cells: list[str]) -> SplitLine:
    return SplitLine(file, number, " ".join(cells), cells)


@register_reader("list", about="lines of 'path label', or a CSV with a header (--list FILE)", takes_list=True)
def read_list(root: Path, official: OfficialSplit) -> Listing:
    """Read a list of videos: one path a line, or ``path label [start end]``, or a CSV with a header.

    The columns are separated by tab, comma, semicolon or space, the same in the whole file; paths with spaces need one of
    the first three.
    start and end are seconds. Blank lines and lines that begin with # are skipped.

    Raises:
        DataError: the file is no such list, or a line is bad; the first is named.
    """
    list_file = Path(official.list_file)
    text = read_text(list_file, "list", "Set data.list to a text file with one path a line.")
    first = next((line for line in text.split("\n") if _is_content(line)), None)
    if first is None:
        raise DataError(f"list ({list_file}) must hold at least one path. Fill it, or set data.name=folder.")
    separator = _detect_separator(root, first.strip())
    lines = list(_split_lines(list_file, text, separator))
    header = _header(root, lines[0])
    if not header and len(lines) > 1:
        _refuse_unknown_header(root, lines[0], lines[1])
    if header and len(lines) == 1:
        raise DataError(f"list ({list_file}) must hold at least one path below its header. Fill it.")
    entries: list[Entry] = []
    listed: dict[tuple[str, float, float | None], int] = {}
    # Line by line through all the rules: the first bad line is to be named, whatever is wrong with it.
    for line in lines[1:] if header else lines:
        cells = _named_cells(line, header, labeled=len(lines[0].cells) > 1)
        entry = _entry(root, line, cells, allow_outside=official.allow_outside)
        earlier = listed.setdefault((entry.path, entry.start_seconds, entry.end_seconds), line.number)
        if earlier != line.number:
            rule = f"a video or window must be listed once, it stands in line {earlier} already"
            raise line.error(rule, "Remove one of the two.")
        entries.append(entry)
    return Listing(entries)


def _is_content(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


_MARKS = ("\t", ",", ";", " ")


def _detect_separator(root: Path, first: str) -> str:
    """What separates the columns of a list, by its first line: one of ``_MARKS``, or "" where lines are bare paths.

    What names a file is believed first, so that paths may hold any of these marks.
    """
    if _is_file(root / first):
        return ""
    marks = [mark for mark in _MARKS if mark in first]
    named = [mark for mark in marks if _is_file(root / first.split(mark)[0].strip(' "'))]
    return next(iter(named + marks), "")


def _is_file(path: Path) -> bool:
    """Whether there is a file, or a folder of pictures."""
    try:
        return is_there(path)
    except (OSError, ValueError):  # a name that the file system cannot hold, so no file has it
        return False


def _split_lines(file: Path, text: str, separator: str) -> Iterator[SplitLine]:
    if separator in (",", ";"):
        yield from _split_csv(file, text, separator)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if _is_content(line):
            cells = line.strip().split(separator) if separator else [line]
            # Several spaces are one separator; two tabs in a row are an empty cell.
            yield _line(file, number, [cell.strip() for cell in cells if cell or separator != " "])


def _split_csv(file: Path, text: str, separator: str) -> Iterator[SplitLine]:
    # Not splitlines, which also breaks at characters that are part of a name.
    reader = csv.reader(
        (line + "\n" for line in text.split("\n")), delimiter=separator, strict=True, skipinitialspace=True
    )
    number = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells) and not cells[0].lstrip().startswith("#"):
                yield _line(file, number, [cell.strip() for cell in cells])
            number = reader.line_num + 1
    except csv.Error as cause:
        way_out = f'Put paths with {separator} or quotes in double quotes and double the quotes inside ("").'
        raise _line(file, number, []).error(f"it must be CSV ({cause})", way_out) from cause


def _header(root: Path, line: SplitLine) -> tuple[str, ...]:
    """The fields of the columns where the first line is a header, else ()."""
    names = ["_".join(cell.lower().split()) for cell in line.cells]
    if not set(names) & set(LIST_COLUMNS["path"]) or _is_file(root / line.cells[0]):
        return ()
    columns = tuple(_FIELD_OF.get(name, name) for name in names)
    unknown = [name for name in columns if name not in LIST_COLUMNS]
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if unknown or twice:
        problem = f"unknown {', '.join(map(repr, unknown))}" if unknown else f"twice {', '.join(map(repr, twice))}"
        raise line.error(
            f"the words of a list's header must be among {_KNOWN_WORDS}; {problem}",
            "Rename or remove them; a table written by ssvid data index is read with data.name=manifest.",
        )
    return columns


_KNOWN_WORDS = "; ".join("|".join(aliases) for aliases in LIST_COLUMNS.values())


def _refuse_unknown_header(root: Path, first: SplitLine, second: SplitLine) -> None:
    """Raise DataError where the first line names columns by words that are not known: it has no path, the second has."""
    if any(_is_file(root / cell) or set(cell) & set("./\\") for cell in first.cells):
        return
    if any(set(cell) & set("./\\") and not _is_number(cell) for cell in second.cells):
        raise first.error(
            f"it looks like a header, and none of its words is one for paths; known are {_KNOWN_WORDS}",
            "Rename its columns, or remove the line.",
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_LABEL_WAY_OUT = (
    "Add the label, or leave it out of every line; a path with spaces needs tab, comma or semicolon as separator."
)


def _named_cells(line: SplitLine, header: tuple[str, ...], *, labeled: bool) -> dict[str, str]:
    """The cells of a line by field. Without a header it has 1 to 4 of them, and all lines or none have a label."""
    count = len(line.cells)
    if header:
        if count != len(header):
            rule = f"it must have {len(header)} columns as the header, it has {count}"
            raise line.error(rule, "Fix the line; quote cells that hold a comma.")
        return dict(zip(header, line.cells, strict=True))
    if count > len(_POSITIONS):
        rule = f"it must have at most {len(_POSITIONS)} columns (path, label, start, end), it has {count}"
        raise line.error(rule, "Remove the others, or name them in a header line; quote paths that hold a comma.")
    if (count > 1) != labeled:
        rule = "it must have a label as the first line" if labeled else "it must be a path alone as the first line"
        raise line.error(f"{rule}, it has {count} column{'s' * (count > 1)}", _LABEL_WAY_OUT)
    return dict(zip(_POSITIONS, line.cells, strict=False))


def _entry(root: Path, line: SplitLine, cells: dict[str, str], *, allow_outside: bool) -> Entry:
    path = _listed_path(root, line, cells["path"], allow_outside=allow_outside)
    start = _seconds(line, "start", cells.get("start_seconds", ""))
    end = _seconds(line, "end", cells.get("end_seconds", ""))
    if end is not None and end <= (start or 0.0):
        raise line.error(
            f"end ({end:g} s) must be greater than start ({start or 0.0:g} s)",
            "Fix them; an empty end is the last frame.",
        )
    label, split, group = (cells.get(name, "") for name in ("label", "split", "group"))
    truth = _truth(root, line, cells.get("truth", ""), allow_outside=allow_outside)
    return Entry(path, label, split, group, start or 0.0, end, line.where, truth)


def _truth(root: Path, line: SplitLine, text: str, *, allow_outside: bool) -> str:
    """The path relative to the root of the file or folder that tells of the frames; "" where none is named."""
    if not text:
        return ""
    try:
        path = contained_path(text.removeprefix(f"{root.absolute().as_posix()}/"), allow_outside=allow_outside)
    except ValueError as cause:
        raise line.error(str(cause), f"Write it relative to data.root ({root}), or set data.root higher.") from None
    if not (root / path).exists():
        rule = f"truth ({text!r}) must name a folder of masks, or a file, below the root ({root}); there is none"
        raise line.error(rule, "Fix the path, or leave the cell empty.")
    return path


def _listed_path(root: Path, line: SplitLine, text: str, *, allow_outside: bool) -> str:
    """The path relative to the root of a file, or a folder of pictures, that exists. An absolute path inside the root is one as well."""
    base = f"{root.absolute().as_posix()}/"
    try:
        path = contained_path(text.removeprefix(base), allow_outside=allow_outside)
    except ValueError as cause:
        way_out = f"Write it relative to data.root ({root}), or set data.root higher."
        raise line.error(*(_other_cause(root, line, text) or (str(cause), way_out))) from None
    if not _is_file(root / path):
        general = (
            f"path ({text!r}) must name a file below the root ({root}); there is none",
            "Fix the path or data.root; a path or label with spaces needs tab, comma or semicolon as separator; the words "
            f"of a header must be among {_KNOWN_WORDS}.",
        )
        raise line.error(*(_other_cause(root, line, text) or general))
    return path


def _other_cause(root: Path, line: SplitLine, text: str) -> tuple[str, str] | None:
    """Why a path names no file although its file may well be there: the rule that it breaks, and the way out."""
    bare = text.strip("\"'")
    if "\\" in text:
        return (
            f"path ({text!r}) has backslashes, as Windows writes them; a list has paths with /",
            f"Write {bare.replace(chr(92), '/')}, relative to data.root ({root}): tr '\\\\' / < {line.file} > NEW",
        )
    if "://" in text:
        return (
            f"path ({text!r}) is an address; a list names files below the root ({root})",
            "Download the videos first.",
        )
    if text != bare:
        return (
            f"path ({text!r}) has quotes in its name",
            "Remove them: quotes are understood in lists whose columns are separated by comma or semicolon.",
        )
    if Path(text).is_absolute() or ".." in Path(text).parts:
        return None
    there = next((base for base in (line.file.parent, Path.cwd()) if _is_file(base / text)), None)
    if there:
        return (
            f"path ({text!r}) is taken relative to the root ({root}), and names a file relative to {there}",
            f"Set data.root={there}.",
        )
    alike = _file_alike(root / text)
    if alike is None:
        return None
    return (
        f"path ({text!r}) must name a file below the root ({root}); there is {alike.name!r}",
        "Write the name with its ending, and with large and small letters, as the file has it.",
    )


def _file_alike(path: Path) -> Path | None:
    """The file whose name differs from the path's in case, form of Unicode or by its ending, where it is the only one."""
    try:
        beside = list(path.parent.iterdir()) if path.parent.is_dir() else []
    except (OSError, ValueError):
        return None
    same = [file for file in beside if _folded(file.name) == _folded(path.name)]
    alike = same or [file for file in beside if _folded(file.stem) == _folded(path.name)]
    return alike[0] if len(alike) == 1 and alike[0].is_file() else None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _seconds(line: SplitLine, name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise line.error(
            f"{name} ({text!r}) must be seconds, 0 or more",
            "Fix it; the columns are path, label, start, end; a path or label with spaces needs tab or comma.",
        )
    return value
