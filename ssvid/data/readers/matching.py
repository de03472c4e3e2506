"""What a reader of videos returns, and what readers share: the search for videos and for split files, and their match.

No file is opened here but text files. No torch is imported here.
"""

from __future__ import annotations

import codecs
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from ssvid.errors import DataError, name_some
from ssvid.files import expanded
from ssvid.video.frame_folders import (
    MAX_FPS,
    PICTURE_ENDINGS,
    PICTURES_FPS,
    ending_of,
    kind_of,
    usual_kind,
    visible_files,
)

# fmt: off
VIDEO_EXTENSIONS: tuple[str, ...] = (
    ".264", ".265", ".3g2", ".3gp", ".amv", ".asf", ".avc", ".avi", ".dav", ".dif", ".divx", ".dv", ".f4v", ".flv", ".h264",
    ".h265", ".hevc", ".insv", ".ivf", ".m1v", ".m2p", ".m2ts", ".m2v", ".m4v", ".mk3d", ".mkv", ".mov", ".mp4", ".mpe",
    ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".tod", ".tp", ".trp", ".ts", ".vob",
    ".webm", ".wmv", ".y4m",
)
# What lies beside videos by custom and can be none: nobody needs to be told that it is passed over.
_COMPANY: frozenset[str] = frozenset({
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".rst", ".pdf", ".html", ".htm", ".log", ".ini",
    ".srt", ".vtt", ".ass", ".sub", ".nfo", ".db", ".py", ".ipynb", ".sh", ".m", ".npy", ".npz", ".pkl", ".h5", ".mat",
    ".parquet", ".doc", ".docx", ".xls", ".xlsx", ".sha256", ".md5",
})
# fmt: on
_ANIMATION = ".gif"
_NAMED_VIDEOS = frozenset((*VIDEO_EXTENSIONS, _ANIMATION))


@dataclass(frozen=True)
class Entry:
    """A video, or a window of one, as a reader found it.

    path: relative to the root, POSIX. label, split, group: "" where unknown. start_seconds, end_seconds: the window;
    None is the end of the video. where: the line that lists it, for error texts. truth: what is known of its frames, a file
    or folder relative to the root (``ssvid.data.truth``); "" where nothing is. fps: frames per second of a folder of
    pictures, where the data set says it; else 0. taken_fps: what is taken then; 0 is ``PICTURES_FPS``.
    """

    path: str
    label: str = ""
    split: str = ""
    group: str = ""
    start_seconds: float = 0.0
    end_seconds: float | None = None
    where: str = field(default="", compare=False)
    truth: str = ""
    fps: float = 0.0
    taken_fps: float = 0.0

    @property
    def pictures_fps(self) -> float:
        """Frames per second that a folder of pictures is taken to have."""
        return self.fps or self.taken_fps or PICTURES_FPS


class Listing(list[Entry]):
    """The entries of a data set, and where its split files and its folder differ.

    missing: videos that the split files list and the folder lacks, as they are listed; never more than what the user
    allowed. unlisted: videos of the folder that no split file lists; they are left out. passed_over: ending -> number of
    files that may be videos and are not read. folders: those of the videos that are folders of pictures.
    """

    def __init__(
        self,
        entries: Iterable[Entry] = (),
        *,
        missing: Iterable[str] = (),
        unlisted: Iterable[str] = (),
        passed_over: Mapping[str, int] | None = None,
        folders: Iterable[str] = (),
    ) -> None:
        super().__init__(entries)
        self.folders = tuple(sorted(folders))
        self.missing = tuple(missing)
        self.unlisted = tuple(unlisted)
        self.passed_over = Counter(passed_over or {})

    def at_rate(self, fps: float) -> Self:
        """The same, where folders of pictures whose data set tells no rate have this one, in frames per second.

        Raises:
            DataError: it is not above 0 and below ``MAX_FPS``.
        """
        if not 0 < fps < MAX_FPS:
            raise DataError(
                f"fps ({fps:g}) of pictures must be above 0 and below {MAX_FPS}. Set data.fps=25 (--fps 25)."
            )
        self[:] = [replace(entry, taken_fps=fps) for entry in self]
        return self

    def notes(self) -> list[str]:
        """Sentences about what lies in the folder and is left out."""
        notes = []
        if self.unlisted:
            notes.append(f"{len(self.unlisted)} videos are in no split file and left out: {name_some(self.unlisted)}.")
        if self.passed_over:
            notes.append(
                f"{self.passed_over.total()} files are passed over, because their names do not end like those of videos:"
                f" {_describe(self.passed_over, most=12)}. Rename those that are videos, or name them in a list"
                f" (data.name=list), which takes any ending.{_hint(self.passed_over)}"
            )
        if 0 < len(self.folders) < len(self):
            notes.append(
                f"{len(self.folders)} of {len(self)} videos are folders of pictures beside video files:"
                f" {name_some(self.folders)}. If they are no clips (masks, previews), set data.root to the folder of the"
                " clips, or name these in a list (data.name=list)."
            )
        return notes


class FoundVideos(list[str]):
    """Paths of videos below a folder, sorted: files, and folders of pictures.

    passed_over: ending -> number of other files that may be videos. folders: those of the paths that are folders.
    """

    def __init__(self, files: Iterable[str], passed_over: Mapping[str, int], folders: Iterable[str] = ()) -> None:
        self.folders = frozenset(folders)
        super().__init__(sorted((*files, *self.folders)))
        self.passed_over = Counter(passed_over)


@dataclass(frozen=True)
class OfficialSplit:
    """Which of a data set's official splits is read, and from where.

    fold: its number, from 1. annotations: the folder of the split files; "" looks in the usual places.
    allow_missing: leave out listed videos that the folder lacks, instead of refusing.
    list_file: ``data.list``, for a reader that takes one. allow_outside: accept listed paths that leave the root.
    command: the one that fetches the data set, for error texts; "" where none does.
    """

    fold: int = 1
    annotations: str = ""
    allow_missing: bool = False
    list_file: str = ""
    allow_outside: bool = False
    command: str = ""

    @property
    def fetched(self) -> str:
        """How to get what is missing, to hang on a sentence; "" where no command fetches it."""
        return f"; {self.command} fetches them" if self.command else ""


@dataclass(frozen=True)
class Listed:
    """A video as a split file lists it.

    name: as it stands there. keys: what its file may be called, extension and folder left out; the first that exists
    is taken. where: file and line.
    """

    name: str
    keys: tuple[str, ...]
    label: str
    split: str
    group: str
    where: str


# ---- the tree


def find_videos(root: Path) -> FoundVideos:
    """Paths relative to ``root`` of all files with a video extension and all folders of pictures, sorted.

    A folder is a video where it directly holds two pictures of one kind or more and no video file; the root itself is
    none. Hidden names are left out. Animated pictures (.gif) are videos where nothing else is: beside videos they are
    previews more often than not.

    Raises:
        DataError: there is none; it says what was found instead.
    """
    by_ending: dict[str, list[str]] = {}
    folders: list[str] = []
    for folder, names in walk(root):
        place = _relative(folder, root)
        is_video = bool(place) and _are_frames(names)
        folders += [place] * is_video
        for name in names:
            if not (is_video and kind_of(name)):
                by_ending.setdefault(ending_of(name), []).append(f"{place}/{name}" if place else name)
    known = [ending for ending in VIDEO_EXTENSIONS if ending in by_ending]
    known = known or [ending for ending in (_ANIMATION,) if ending in by_ending and not folders]
    others = Counter({ending: len(paths) for ending, paths in by_ending.items() if ending not in known})
    if not known and not folders:
        raise DataError(
            f"root ({root}) must hold at least one video ({' '.join(VIDEO_EXTENSIONS)}), or a folder of pictures, at any"
            f" depth. Found instead: {_describe(others)}. Set data.root to another folder.{_hint(others)}"
        )
    passed_over = {ending: count for ending, count in others.items() if ending not in _COMPANY}
    return FoundVideos((path for ending in known for path in by_ending[ending]), passed_over, folders)


def _are_frames(names: Sequence[str]) -> bool:
    """Whether files of these names in one folder are a video's frames; beside a video file pictures are previews."""
    return bool(usual_kind(names)) and not any(ending_of(name) in VIDEO_EXTENSIONS for name in names)


def is_clip(folder: Path) -> bool:
    """Whether a folder is one video, and not one of videos: its pictures are frames, and it holds no folder."""
    with os.scandir(folder) as scanned:
        entries = [entry for entry in scanned if not entry.name.startswith(".")]
    return _are_frames(list(visible_files(entries))) and not any(entry.is_dir() for entry in entries)


def _relative(folder: str, root: Path) -> str:
    """A folder below the root as a POSIX path; "" for the root itself. Much faster than pathlib."""
    return os.path.relpath(folder, root).replace(os.sep, "/") if folder != str(root) else ""


def walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder below ``root`` with the names of its visible files, through links to folders as well, each folder once.

    No file is looked at; a dangling link is kept: the index lists it as unreadable instead of losing it silently.
    """

    seen: set[tuple[int, int]] = set()
    waiting = [str(root)]
    while waiting:
        folder = waiting.pop()
        try:
            identity = os.stat(folder)
            key = (identity.st_dev, identity.st_ino)
            if key in seen:
                continue
            seen.add(key)
            with os.scandir(folder) as scanned:
                entries = list(scanned)
        except OSError as cause:
            raise DataError(
                f"folder ({cause.filename or folder}) must be readable: {cause.strerror}. Fix its permissions or set"
                " data.root to another folder."
            ) from cause
        yield folder, list(visible_files(entries))
        below = sorted((e.name for e in entries if not e.name.startswith(".") and e.is_dir()), reverse=True)
        waiting += [os.path.join(folder, name) for name in below]


def _describe(others: Counter[str], most: int = 5) -> str:
    if not others:
        return "no file at all"
    kinds = [f"{count} {ending or 'without ending'}" for ending, count in others.most_common(most)]
    return ", ".join(kinds) + (" and others" if len(others) > most else "")


def _hint(others: Mapping[str, int]) -> str:
    if any(ending in others for ending in PICTURE_ENDINGS):
        return (
            " Pictures are the frames of a video where their folder holds two of one kind or more and no video file, and is"
            " not the root itself: if that is one clip, set data.root to the folder above it."
        )
    if any(ending in others for ending in (".zip", ".rar", ".tar", ".gz", ".tgz", ".7z")):
        return " To read what an archive holds, unpack the archive."
    return ""


def stem_of(path: str) -> str:
    """The name of a video by its POSIX path, without the extension of a video file; a folder's name may hold dots."""
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] if ending_of(name) in _NAMED_VIDEOS else name


# ---- split files


def find_annotations(
    root: Path, official: OfficialSplit, usual: Sequence[str], holds: Callable[[Path], bool]
) -> Path | None:
    """The folder of the split files: the one that was named, else the first usual place that holds them.

    Args:
        usual: names of folders to look for, in the root and beside it; both of these are looked at as well.
        holds: whether a folder holds the split files.

    Returns:
        The folder; None where none was named and no usual place holds them.

    Raises:
        DataError: the folder that was named is none.
    """
    if official.annotations:
        named = Path(expanded(official.annotations))
        if not named.is_dir():
            what = "it is a file" if named.exists() else "it does not exist"
            raise DataError(
                f"data.annotations ({named}) must be the folder of the split files: {what}. Set data.annotations to it,"
                " or leave it empty where they lie in or beside data.root."
            )
        return named
    root = root.absolute()
    places = [base / name for base in (root, root.parent) for name in ("", *usual)]
    return next((place for place in places if holds(place)), None)


def require_annotations(
    root: Path, official: OfficialSplit, usual: Sequence[str], what: str, holds: Callable[[Path], bool]
) -> Path:
    """As ``find_annotations``; DataError where there are none. ``what`` says which split files are needed."""
    folder = find_annotations(root, official, usual, holds)
    if folder is not None and holds(folder):
        return folder
    if official.annotations:
        raise DataError(
            f"data.annotations ({official.annotations}) must hold {what}. Set it to the folder of the official split"
            f" files{official.fetched}."
        )
    raise DataError(
        f"data.root ({root}) must hold {what}, or lie beside a folder that does ({', '.join(usual)}). Set"
        f" data.annotations=FOLDER to the official split files{official.fetched}."
    )


def holds_all(names: Sequence[str]) -> Callable[[Path], bool]:
    """Whether a folder holds files of all these names."""
    return lambda folder: all((folder / name).is_file() for name in names)


def read_text(path: Path, what: str, way_out: str) -> str:
    """The text of a file with plain line ends.

    Raises:
        DataError: it cannot be read, or is no text; ``what`` is its role and ``way_out`` ends the message.
    """
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise DataError(f"{what} ({path}) must be a readable file: {cause.strerror}. {way_out}") from cause
    # Windows writes UTF-16 with a mark at its start. surrogateescape: file names need not be UTF-8, and they must come back
    # as the system knows them.
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace" if is_utf16 else "surrogateescape")
    if "\0" in text:
        raise DataError(f"{what} ({path}) must be a text file, it holds binary data. {way_out}")
    return text.replace("\r\n", "\n")


@dataclass(frozen=True)
class SplitLine:
    """A line of a split file or list, without the space around it. cells: its columns, where it has been cut."""

    file: Path
    number: int
    text: str
    cells: Sequence[str] = ()

    @property
    def where(self) -> str:
        """File and line, for error texts."""
        return f"{self.file}, line {self.number}"

    def error(
        self, rule: str, way_out: str = "Fix the line, or set data.annotations to the official split files."
    ) -> DataError:
        """The error that names this line."""
        shown = self.text if len(self.text) <= 120 else self.text[:117] + "..."
        return DataError(f"{self.where} ({shown!r}): {rule}. {way_out}")


def split_lines(path: Path) -> list[SplitLine]:
    """The lines of a split file that are not blank; with LF or CR LF, spaces at their ends or not.

    Raises:
        DataError: it cannot be read, or there is none.
    """
    text = read_text(path, "split file", "Set data.annotations to the folder of the official split files.")
    lines = [SplitLine(path, number, line.strip()) for number, line in enumerate(text.split("\n"), start=1)]
    lines = [line for line in lines if line.text]
    if not lines:
        raise DataError(
            f"split file ({path}) must list at least one video or class, it is empty. Unpack the official split files again."
        )
    return lines


def match_tree(
    root: Path,
    paths: Sequence[str],
    listed: Sequence[Listed],
    official: OfficialSplit,
    *,
    lists: str,
    fold_stem: Callable[[str], str] = str,
    fold_class: Callable[[str], str] = str.casefold,
) -> Listing:
    """Find the file of every listed video, wherever it lies below the root.

    Args:
        paths: the videos of the tree, from ``find_videos``.
        lists: the split files in words, for error texts.
        fold_stem, fold_class: bring names of files, and of class folders, into the form in which they are compared.

    Returns:
        Entries in the order of the lists.

    Raises:
        DataError: a video is listed twice, lies twice or in the folder of another class; videos are missing and that
            was not allowed, or all of them are.
    """
    _refuse_twice(listed, fold_stem)
    stems: dict[str, list[str]] = {}
    for path in paths:
        stems.setdefault(fold_stem(stem_of(path)), []).append(path)
    classes = {fold_class(video.label): video.label for video in listed if video.label}
    entries, missing, used = [], [], set()
    for video in listed:
        files = next((found for key in video.keys if (found := stems.get(fold_stem(key)))), [])
        if not files:
            missing.append(video.name)
            continue
        if len(files) > 1:
            files = [
                path for path in files if ending_of(path) in _NAMED_VIDEOS
            ] or files  # not the pictures cut from it
        if len(files) > 1:
            raise DataError(
                f"{video.name!r} must lie once below data.root ({root}), it lies at {files[0]} and {files[1]}. Set"
                " data.root one folder deeper, or remove the copy."
            )
        path = files[0]
        lies_in = classes.get(fold_class(path.rpartition("/")[0].rpartition("/")[2]), video.label)
        if lies_in != video.label:
            raise DataError(
                f"{video.where}: {video.name!r} is of class {video.label!r}, but below data.root ({root}) it lies in the"
                f" folder of {lies_in!r} ({path}). The split files do not match the tree: fix one of them."
            )
        entries.append(Entry(path, video.label, video.split, video.group, where=video.where))
        used.add(path)
    if missing and not (entries and official.allow_missing):
        raise _missing(root, missing, len(listed), official, lists)
    return Listing(entries, missing=missing, unlisted=(path for path in paths if path not in used))


def _refuse_twice(listed: Sequence[Listed], fold_stem: Callable[[str], str]) -> None:
    earlier: dict[str, Listed] = {}
    for video in listed:
        first = earlier.setdefault(fold_stem(video.keys[0]), video)
        if first is video:
            continue
        places = f"({first.where}; {video.where})"
        if first.split != video.split:
            raise DataError(
                f"{video.name!r} is listed both as {first.split} and as {video.split} {places}: a score on it would be"
                " worth nothing. Set data.annotations to the official split files."
            )
        raise DataError(
            f"{video.name!r} is listed twice {places}. Remove one of the lines, or set data.annotations to the official"
            " split files."
        )


def _missing(root: Path, missing: Sequence[str], total: int, official: OfficialSplit, lists: str) -> DataError:
    if len(missing) == total:
        return DataError(
            f"data.root ({root}) holds none of the {total} videos that {lists} list: {name_some(missing)}. Set data.root"
            f" to the folder of the videos{official.fetched}."
        )
    by = f" ({official.command})" if official.command else ""
    return DataError(
        f"{len(missing)} of the {total} videos that {lists} list are missing below data.root"
        f" ({root}): {name_some(missing)}. Complete the tree{by}, or set"
        " data.allow_missing=true (--allow-missing) to do without them: their number and names then stand in every"
        " result."
    )
