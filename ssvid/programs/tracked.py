"""What was followed through one's own footage, drawn: films, masks, key frames, and the page that shows them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
from PIL import Image

from ssvid.data.masks import VOID
from ssvid.evals.label_propagation.drawing import (
    Tracks,
    draw,
    draw_small,
    evened,
    key_frame_sheet,
    key_frames,
)
from ssvid.evals.label_propagation.films import beside_truth, write_film
from ssvid.evals.label_propagation.following import Follower
from ssvid.evals.label_propagation.page import (
    Film,
    Followed,
    Row,
    TrackPage,
    address,
    film,
    jaccard_panels,
    still,
)
from ssvid.evals.label_propagation.regions import jaccard
from ssvid.evals.label_propagation.saving import LabelFolder, label_folder
from ssvid.programs.footage import OpenedFootage
from ssvid.progress import Progress

_KEY_FRAMES, _COLUMNS = 8, 4


@dataclass(frozen=True)
class Outputs:
    """What is written. masks, tracks, beside_truth: None where there is nothing to write into them."""

    film: Path
    page: Path
    masks: Path | None = None
    tracks: Path | None = None
    beside_truth: Path | None = None

    @property
    def paths(self) -> dict[str, Path]:
        """Those that are there, by name."""
        return {name: path for name, path in asdict(self).items() if path is not None}

    def within(self, folder: Path) -> Outputs:
        """The same names in another folder."""
        return Outputs(**{name: folder / path.name for name, path in self.paths.items()})


@dataclass
class Seen:
    """What was seen while the film was drawn.

    key_frames, key_truths: (caption, picture); the truth where it is known. posters: of films, by the name of the output.
    shares: object -> share of the picture in each frame. tracks: of the points, None where there are none.
    jaccard: object -> (frame, J), where the truth is known.
    """

    key_frames: list[tuple[str, np.ndarray]] = field(default_factory=list)
    key_truths: list[tuple[str, np.ndarray]] = field(default_factory=list)
    posters: dict[str, np.ndarray] = field(default_factory=dict)
    shares: dict[int, list[float]] = field(default_factory=dict)
    tracks: Tracks | None = None
    jaccard: dict[int, list[tuple[int, float]]] = field(default_factory=dict)

    @property
    def mean_jaccard(self) -> dict[int, float]:
        """Object -> mean J over its frames."""
        return {number: float(np.mean([value for _, value in found])) for number, found in self.jaccard.items()}


# ---- films


def draw_films(opened: OpenedFootage, follower: Follower, outputs: Outputs, told: Progress) -> Seen:
    """Follow masks and points, and write masks and films frame by frame.

    Raises:
        DecodeError: a frame cannot be read.
    """
    seen = Seen(shares={number: [] for number in opened.ids}, tracks=_no_tracks(opened))
    middle = opened.row.num_frames // 2
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(label_folder(outputs.masks)) if outputs.masks is not None else None
        pictures = _pictures(opened, _labels(opened, follower, folder, seen, stack), seen)
        write_film(outputs.film, _watched(pictures, middle, seen, "film", told, opened.row.num_frames), opened.fps)
    if outputs.beside_truth is not None and outputs.masks is not None and opened.truth is not None:
        found = _saved_labels(outputs.masks, opened.row.num_frames)
        truth = map(opened.truth.at, range(opened.row.num_frames))
        with contextlib.closing(opened.frames()) as frames:
            pictures = beside_truth(frames, found, truth)
            write_film(outputs.beside_truth, _watched(pictures, middle, seen, "beside_truth"), opened.fps)
    return seen


def _labels(
    opened: OpenedFootage, follower: Follower, folder: LabelFolder | None, seen: Seen, stack: contextlib.ExitStack
) -> Iterator[np.ndarray | None]:
    """The labels of each frame, saved and measured, None where only points are followed; its points are in the tracks then."""
    frames = stack.enter_context(contextlib.closing(opened.frames()))
    together = follower.together(frames, opened.size_px, opened.given, opened.ids, opened.points_Q3)
    for frame, found in enumerate(together):
        if seen.tracks is not None:
            seen.tracks.points_TQ2[frame], seen.tracks.visible_TQ[frame] = found.points_Q2, found.visible_Q
        if folder is not None and found.labels_HW is not None:
            folder.add(found.labels_HW)
            _measure(opened, frame, found.labels_HW, seen)
        yield found.labels_HW


def _no_tracks(opened: OpenedFootage) -> Tracks | None:
    """Room for the points of all frames, in none of which a place is known; None where no point is followed."""
    if not len(opened.points_Q3):
        return None
    shape = (opened.row.num_frames, len(opened.points_Q3))
    return Tracks(np.full((*shape, 2), np.nan), np.zeros(shape, dtype=bool))


def _pictures(opened: OpenedFootage, labels: Iterator[np.ndarray | None], seen: Seen) -> Iterator[np.ndarray]:
    """The pictures of the film. The video is read a second time: the network is ahead by a batch."""
    keys = set(key_frames(opened.row.num_frames, _KEY_FRAMES, sorted(opened.given)[:_KEY_FRAMES]))
    seconds_T = opened.seconds()
    with contextlib.closing(opened.frames()) as frames:
        for frame, (frame_HWC, labels_HW) in enumerate(zip(frames, labels, strict=True)):
            shown = seen.tracks.until(frame) if seen.tracks is not None else None
            if frame in keys:
                given = ", mask given" if frame in opened.given else ""
                caption = f"frame {frame}, {seconds_T[frame]:.2f} s{given}"
                seen.key_frames.append((caption, draw_small(frame_HWC, labels_HW, shown)))
                truth_HW = opened.truth.at(frame) if opened.truth is not None else None
                if truth_HW is not None:
                    seen.key_truths.append((f"truth of frame {frame}", draw_small(frame_HWC, truth_HW)))
            yield draw(frame_HWC, labels_HW, shown)


def _measure(opened: OpenedFootage, frame: int, labels_HW: np.ndarray, seen: Seen) -> None:
    """How large each object is, and J where the truth is known and its mask was not given."""
    counts = np.bincount(labels_HW.ravel(), minlength=VOID + 1)
    for number in opened.ids:
        seen.shares[number].append(counts[number] / labels_HW.size)
    truth_HW = opened.truth.at(frame) if opened.truth is not None else None
    if truth_HW is None:
        return
    given = set(np.unique(opened.given[frame]).tolist()) if frame in opened.given else set()
    for number in opened.true_ids:
        if frame > opened.first_given[number] and number not in given:
            value = jaccard(truth_HW == number, labels_HW == number, truth_HW == VOID)
            seen.jaccard.setdefault(number, []).append((frame, value))


def _watched(
    pictures: Iterator[np.ndarray],
    middle: int,
    seen: Seen,
    name: str,
    told: Progress = lambda done, total: None,
    total: int = 0,
) -> Iterator[np.ndarray]:
    """The pictures; the one in the middle becomes the film's poster."""
    for number, picture_HWC in enumerate(pictures):
        if number == middle:
            seen.posters[name] = evened(picture_HWC)
        yield picture_HWC
        told(number + 1, total)


def _saved_labels(folder: Path, count: int) -> Iterator[np.ndarray]:
    for frame in range(count):
        with Image.open(folder / f"{frame:05d}.png") as picture:
            yield np.asarray(picture)


# ---- the page


@dataclass(frozen=True)
class About:
    """How it was made. backbone: where its weights lie. protocol: its name, "" where its values were given."""

    opened: OpenedFootage
    follower: Follower
    backbone: str
    protocol: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What the one who looks must know."""
        opened, row = self.opened, self.opened.row
        told = []
        if row.variable_fps:
            told.append(f"the video's frames have unequal durations; the film shows each for 1/{opened.fps:g} s")
        if row.fps <= 0:
            told.append(f"the video tells no frame rate; {opened.fps:g} frames per second are assumed")
        if row.height % 2 or row.width % 2:
            told.append("the film is a pixel larger than the video where a side is odd: H.264 needs even sides")
        if self.backbone == "random":
            told.append("the network is random: it was not trained")
        if opened.truth is not None and (missing := sorted(set(opened.ids) - set(opened.true_ids))):
            told.append(f"the truth does not hold object {', '.join(map(str, missing))}, which is not scored")
        return tuple(told)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What stands in the page's table."""
        row, network = self.opened.row, self.follower.network.info
        return [
            ("video", f"{row.path}: {row.num_frames} frames of {row.width}x{row.height} at {row.fps:.6g} per second"),
            ("backbone", self.backbone),
            (
                "network",
                f"{network.name}, stage {self.follower.stage}, a cell every {self.follower.stride_px} pixels",
            ),
            ("protocol", self.protocol or "values of one's own, listed below"),
        ]

    @property
    def settings(self) -> str:
        """All values of the protocol."""
        protocol = self.follower.protocol
        return "\n".join(f"{one.name}: {getattr(protocol, one.name)}" for one in fields(protocol))


def page_of(about: About, seen: Seen, outputs: Outputs) -> TrackPage:
    """The page of the outputs, which have been written."""
    opened = about.opened
    words = counted(len(opened.ids), len(opened.points_Q3))
    alt = f"key frames of {opened.row.path} with {words} drawn on them"
    return TrackPage(
        title=f"{opened.row.path}, tracked",
        about=f"{words} followed through {opened.row.num_frames} frames, {opened.row.num_frames / opened.fps:.1f} s.",
        films=list(_films(opened, seen, outputs, words)),
        sheet=still(_sheet(seen), alt),
        files=_files(outputs),
        facts=about.facts,
        settings=about.settings,
        notes=about.notes,
        objects=list(_object_rows(opened, seen)),
        object_columns=_OBJECT_COLUMNS + (["mean J"] if seen.jaccard else []),
        points=list(_point_rows(opened, seen.tracks)) if seen.tracks is not None else [],
        point_columns=["given in frame", "x, y there", "x, y in the last frame", "visible in frames"],
        panels=jaccard_panels(seen.jaccard),
    )


_OBJECT_COLUMNS = ["first given in frame", "share of the picture there", "share in the last frame", "frames without it"]


def counted(num_objects: int, num_points: int) -> str:
    """What is followed, in words: 2 objects and 1 point."""
    counts = ((num_objects, "object"), (num_points, "point"))
    return " and ".join(f"{count} {kind}{'s' * (count != 1)}" for count, kind in counts if count)


def _films(opened: OpenedFootage, seen: Seen, outputs: Outputs, words: str) -> Iterator[Film]:
    name = opened.row.path
    yield film(outputs.film, seen.posters["film"], f"film of {name} with {words} drawn on it", "what was followed")
    if outputs.beside_truth is not None:
        poster, alt = seen.posters["beside_truth"], f"film of {name}: found masks beside the true ones"
        yield film(outputs.beside_truth, poster, alt, "found, and the truth")


def _sheet(seen: Seen) -> np.ndarray:
    """Key frames, four to a row, and under each row the truth where it is known of all of them."""
    if len(seen.key_truths) != len(seen.key_frames):
        return key_frame_sheet([*seen.key_frames, *seen.key_truths], columns=_COLUMNS)
    rows = range(0, len(seen.key_frames), _COLUMNS)
    blocks = [
        key_frame_sheet([*found[at : at + _COLUMNS]], columns=_COLUMNS)
        for at in rows
        for found in (seen.key_frames, seen.key_truths)
    ]
    widest = max(block.shape[1] for block in blocks)
    return np.concatenate([np.pad(b, ((0, 4), (0, widest - b.shape[1]), (0, 0))) for b in blocks])[:-4]


def _files(outputs: Outputs) -> list[tuple[str, str, str]]:
    told: dict[str, str] = {
        "film": "the film",
        "masks": "a PNG of each frame, whose values are the ids of the objects, as the DAVIS evaluator reads them",
        "tracks": "where each point is in each frame",
        "beside_truth": "what was found beside the truth",
    }
    return [(address(path.name), path.name, told[name]) for name, path in outputs.paths.items() if name in told]


def _object_rows(opened: OpenedFootage, seen: Seen) -> Iterator[Row]:
    for number in opened.ids:
        start, shares = opened.first_given[number], seen.shares[number]
        absent = sum(share == 0 for share in shares[start:])
        cells = [str(start), f"{100 * shares[start]:.2f} %", f"{100 * shares[-1]:.2f} %", str(absent)]
        if seen.jaccard:
            value = seen.mean_jaccard.get(number)
            cells.append("-" if value is None else f"{100 * value:.1f} %")
        yield Followed("object", number), cells


def _point_rows(opened: OpenedFootage, tracks: Tracks) -> Iterator[Row]:
    for point, (frame, x, y) in enumerate(opened.points_Q3.tolist()):
        last_x, last_y = tracks.points_TQ2[-1, point].tolist()
        after = tracks.visible_TQ[int(frame) :, point]
        cells = [f"{frame:.0f}", f"{x:g}, {y:g}", f"{last_x:.1f}, {last_y:.1f}", f"{after.sum()} of {len(after)}"]
        yield Followed("point", point + 1), cells
