"""Two videos of one action side by side, brought together by the features of a network: a page of films, and a picture.

One video is labeled: the phase of each of its moments is known. The other one plays at its own pace. Beside it stands the moment
of the labeled video that is nearest to what it shows, whose label it gets; and, to compare with, what the labeled video shows
after the same share of its time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.errors import DecodeError
from ssvid.evals.alignment.measures import Moments, kendall_tau, nearest_moments
from ssvid.files import write_picture, write_text
from ssvid.pictures import LIGHT, Color, row, sheet, tiles, words
from ssvid.protocols.metrics import title_of
from ssvid.results.rows import ResultRow
from ssvid.templates import data_uri, render
from ssvid.video import write_video

_PANEL_PX, _LINE_PX, _BAR_PX, _TILE_PX, _NUM_TILES = 176, 24, 10, 72, 10
_MOST_MOMENTS = 200  # of a film; of longer videos every second moment is shown, or every third
_COLORS: tuple[Color, ...] = (
    (68, 119, 170),
    (238, 102, 119),
    (34, 136, 51),
    (204, 187, 68),
    (102, 204, 238),
    (170, 51, 119),
)
_RIGHT, _WRONG = (110, 210, 120), (250, 110, 100)


class Aligned(NamedTuple):
    """Two videos and their moments: frames counted from the start of the window, and what is known of each moment."""

    manifest: Manifest
    labeled: VideoRow
    played: VideoRow
    labeled_frames: np.ndarray
    played_frames: np.ndarray
    of_labeled: Moments
    of_played: Moments


class Film(NamedTuple):
    """A film of the page. uri: the whole file. caption: what it shows and how often the label was right."""

    uri: str
    width_px: int
    height_px: int
    alt: str
    caption: str


class _Transfer(NamedTuple):
    """For each moment of the video that plays: the nearest moment of the labeled one, and the one at the same share of its time."""

    nearest_M: np.ndarray
    same_time_M: np.ndarray


def transferred(pair: Aligned) -> _Transfer:
    """Which moments of the labeled video the moments of the other one are brought together with."""
    times_N, times_M = pair.of_labeled.times_N, pair.of_played.times_N
    same_time_M = np.abs(times_N[None] - times_M[:, None]).argmin(axis=1)
    return _Transfer(nearest_moments(pair.of_played.vectors_ND, pair.of_labeled.vectors_ND), same_time_M)


def write_alignments(stem: Path, pairs: Sequence[Aligned], rows: Sequence[ResultRow], *, seed: int) -> list[Path]:
    """Write the page and the picture of some pairs; their paths. A pair of which a file is gone since is left out."""
    films, lines = [], []
    for pair in pairs:
        try:
            panels = _panels(pair)
        except DecodeError:  # it could be read a moment ago
            continue
        films.append(_film(pair, panels))
        lines += [*_strips(pair, panels), np.zeros((_LINE_PX // 2, 8, 3), np.uint8)]
    if not films:
        return []
    page, picture = stem.with_name(f"{stem.name}.html"), stem.with_name(f"{stem.name}.png")
    told = {"title": _title(rows[0]), "notes": rows[0].context.get("notes", ()), "title_of": title_of}
    write_text(page, render("alignment.html", films=films, rows=rows, seed=seed, **told))
    write_picture(picture, sheet(lines))
    return [page, picture]


def _title(first: ResultRow) -> str:
    context = first.context
    return f"Alignment: {first.name} {context['backbone']['name']}, {context['data']['test']['num_videos']} test videos"


# ---- pictures


class _Panels(NamedTuple):
    """Small frames of both videos, moment by moment, uint8 NHWC."""

    labeled: np.ndarray
    played: np.ndarray


def _panels(pair: Aligned) -> _Panels:
    sides = (pair.labeled, pair.labeled_frames), (pair.played, pair.played_frames)
    return _Panels(*(_small_frames(pair.manifest, video, frames) for video, frames in sides))


def _small_frames(manifest: Manifest, video: VideoRow, frames: np.ndarray) -> np.ndarray:
    """The square in the middle of each frame, fitted into a panel."""
    with video.open(manifest.root) as reader:
        found = []
        for _, frame_HWC in reader.each_frame(frames + video.start_frame):
            height, width = frame_HWC.shape[:2]
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            square = np.ascontiguousarray(frame_HWC[top : top + side, left : left + side].transpose(2, 0, 1))
            found.append(tiles(torch.from_numpy(square)[None], _PANEL_PX)[0])
    return np.stack(found)


def _film(pair: Aligned, panels: _Panels) -> Film:
    """The pair as H.264 in a data URI."""
    step = -(-len(pair.of_played.times_N) // _MOST_MOMENTS)
    fps = pair.played.fps / max(1, int(np.diff(pair.played_frames[:2])[0])) / step
    pictures = list(_film_pictures(pair, panels))[::step]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_video(path, pictures, max(fps, 1.0), crf=26)
        uri = data_uri("video/mp4", path.read_bytes())
    height, width = pictures[0].shape[:2]
    alt = f"{row_id(pair.played)} beside the moments of {row_id(pair.labeled)} that are nearest"
    return Film(uri, width, height, alt, _caption(pair))


def _caption(pair: Aligned) -> str:
    of, phase_N, truth_M = transferred(pair), pair.of_labeled.phase_N, pair.of_played.phase_N
    shares = [100 * float((phase_N[places] == truth_M).mean()) for places in of]
    tau = kendall_tau(pair.of_played.vectors_ND, pair.of_labeled.vectors_ND)
    return (
        f"{pair.played.label}: {row_id(pair.played)} gets the phases of {row_id(pair.labeled)}. Right along the alignment: "
        f"{shares[0]:.0f} % of the moments; by the same share of the time: {shares[1]:.0f} %. tau {tau:+.2f}."
    )


def _film_pictures(pair: Aligned, panels: _Panels) -> Iterator[np.ndarray]:
    """For each moment of the video that plays: the nearest moment of the labeled one, itself, the one at the same time."""
    of, phase_N, truth_M = transferred(pair), pair.of_labeled.phase_N, pair.of_played.phase_N
    heads = ("labeled: nearest moment", "plays at its own pace", "labeled: same time")
    head = row(words([(text, LIGHT)], _PANEL_PX, _LINE_PX) for text in heads)
    bars = _bars(pair, 3 * _PANEL_PX)
    for moment, truth in enumerate(truth_M):
        near, same = int(of.nearest_M[moment]), int(of.same_time_M[moment])
        frames = row([panels.labeled[near], panels.played[moment], panels.labeled[same]])
        labels = row(
            _label(text, int(phase), None if text == "truth" else phase == truth)
            for text, phase in (("gives", phase_N[near]), ("truth", truth), ("gives", phase_N[same]))
        )
        shown = bars.copy()
        place = round(moment / max(1, len(truth_M) - 1) * (shown.shape[1] - 3))
        shown[:, place : place + 3] = 255
        yield sheet([head, frames, labels, shown])


def _label(text: str, phase: int, is_right: bool | None) -> np.ndarray:
    verdict = "" if is_right is None else ", right" if is_right else ", wrong"
    color = LIGHT if is_right is None else _RIGHT if is_right else _WRONG
    return words([(f"{text} phase {phase}{verdict}", color)], _PANEL_PX, _LINE_PX)


def _bars(pair: Aligned, width_px: int) -> np.ndarray:
    """Three bars over the time of the video that plays, a color for each phase: along the alignment, the truth, by the same time."""
    of, phase_N = transferred(pair), pair.of_labeled.phase_N
    places = np.linspace(0, len(pair.of_played.phase_N) - 1, width_px).round().astype(int)
    colors = np.array(_COLORS, dtype=np.uint8)
    lines = [phase_N[of.nearest_M], pair.of_played.phase_N, phase_N[of.same_time_M]]
    painted = [np.broadcast_to(colors[line[places] % len(colors)], (_BAR_PX, width_px, 3)) for line in lines]
    gap = np.zeros((2, width_px, 3), np.uint8)
    return np.concatenate([part for bar in painted for part in (gap, bar)] + [gap, gap])


def _strips(pair: Aligned, panels: _Panels) -> list[np.ndarray]:
    """Some moments of the video that plays, above them those of the labeled one that are nearest, below those at the same time."""
    of, last = transferred(pair), len(pair.of_played.times_N) - 1
    shown = np.linspace(0, last, min(_NUM_TILES, last + 1)).round().astype(int)
    told = (
        ("nearest moment", panels.labeled[of.nearest_M[shown]]),
        ("plays", panels.played[shown]),
        (
            "same time",
            panels.labeled[of.same_time_M[shown]],
        ),
    )
    strips = [
        row([words([(text, LIGHT)], 112, _TILE_PX), *tiles(torch.from_numpy(frames.transpose(0, 3, 1, 2)), _TILE_PX)])
        for text, frames in told
    ]
    bars = _bars(pair, _TILE_PX * len(shown))
    head = words([(pair.played.label, LIGHT)], 112 + _TILE_PX * len(shown), _LINE_PX)
    return [head, *strips, row([np.zeros((len(bars), 112, 3), np.uint8), bars])]
