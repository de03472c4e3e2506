"""``speed``: a video and a trained network -> a curve for every frame, a film that is sped up by it, a map, and a page."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssvid.apps.asking import MapSums
from ssvid.apps.speedup import SpeedUpConfig
from ssvid.errors import DataError, RecipeError
from ssvid.files import folder_appearing_whole, require_empty_folder, takes_paths, write_json, write_picture, write_text
from ssvid.machine import versions
from ssvid.programs.footage import OpenedVideo, open_own_video
from ssvid.programs.pretrain import RUNS
from ssvid.programs.speed_curves import (
    Asked,
    CurveConfig,
    SpeedCurve,
    SpeedUp,
    Watched,
    checked_settings,
    checked_speed,
    load_asker,
    num_film_frames,
    require_speed,
)
from ssvid.programs.speed_films import PageFilm, write_mapped
from ssvid.programs.speed_page import SpeedPage, draw_curve, picture_uri, render_speed_page
from ssvid.progress import Say, every_tenth, speaker
from ssvid.train.run_folder import next_free
from ssvid.video.sound import add_sound, has_sound, pieces_of

_FILES = {
    "film.mp4": "the video as the page plays it",
    "curve.csv": "the probability of every frame",
    "curve.svg": "the curve with thumbnails, as a picture",
    "map.mp4": "the video with the map on it",
    "map.png": "frames of it on one sheet",
    "adaptive.mp4": "the video sped up where it looks natural",
    "uniform.mp4": "the video sped up alike everywhere, as long",
    "frames.csv": "which frame of the video each frame of both films shows",
    "speed.json": "settings, network, versions",
}


@dataclass(frozen=True)
class SpeedResult:
    """What was found and written. curve: of every frame. sped: None where no film was asked for. page: open it in a browser."""

    folder: Path
    page: Path
    curve: SpeedCurve
    sped: SpeedUp | None = None
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain types; curves and frames are in the folder's tables."""
        probs_T = self.curve.probs_T
        plain: dict[str, Any] = {
            "folder": str(self.folder),
            "page": str(self.page),
            "says": self.curve.says,
            "num_frames": len(probs_T),
            "mean_probability": float(probs_T.mean()),
            "notes": list(self.curve.notes),
            "seconds": self.seconds,
        }
        if self.sped is not None:
            plain["speed_up"] = {
                "factor": self.sped.factor,
                "film_seconds": self.sped.seconds,
                "num_frames": len(self.sped.film_frames),
                "slowest": float(self.sped.speeds_N.min()),
                "fastest": float(self.sped.speeds_N.max()),
            }
        return plain

    def __str__(self) -> str:
        curve, sped = self.curve, self.sped
        probs_T = curve.probs_T
        lines = [
            f"{len(probs_T)} frames asked in {self.seconds:.0f} s: {curve.says} with a probability of {probs_T.mean():.2f} in the "
            f"mean, {probs_T.min():.2f} to {probs_T.max():.2f}"
        ]
        if sped is not None:
            lines.append(
                f"film of {sped.seconds:.1f} s, {sped.factor:.2f} times shorter: {sped.speeds_N.min():.1f} to "
                f"{sped.speeds_N.max():.1f} times as fast"
            )
        lines += [f"note: {note}" for note in curve.notes]
        return "\n".join([*lines, f"page: {self.page}"])


@takes_paths("video", "checkpoint", "out")
def speed(
    video: str | Path,
    *,
    checkpoint: str | Path,
    speed_up: float = 0.0,
    seconds: float = 0.0,
    with_map: bool = False,
    sound: bool = False,
    window: int = 0,
    hop: int = 0,
    fps: float = 0.0,
    overlap: str = CurveConfig.overlap,
    threshold: float = SpeedUpConfig.threshold,
    smooth_seconds: float = SpeedUpConfig.smooth_seconds,
    task: str = "",
    batch_size: int = CurveConfig.batch_size,
    device: str = "auto",
    decoder: str = "auto",
    out: str | Path | None = None,
    show_progress: bool = True,
) -> SpeedResult:
    """Ask a trained task of every stretch of a video, and write a folder with a page that shows what it says.

    SpeedNet (Benaim et al., CVPR 2020, arXiv 2004.06130), sections 4 and 5. Frames are streamed: a long video takes no more memory
    than a short one.

    Args:
        video: a file, or a folder of numbered pictures.
        checkpoint: a run folder or a checkpoint of a task that answers clip by clip, such as ``speediness``.
        speed_up: make a film that is so many times shorter; seconds: one that is so long. At most one of them; 0 is none.
        with_map: paint where in the picture the answer comes from. sound: give the adaptive film the video's sound at its pitch.
        window, hop, fps, overlap, task, batch_size: as ``CurveConfig``. threshold, smooth_seconds: as ``SpeedUpConfig``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``. decoder: ``auto``, or one that is right for the file.
        out: a new folder; ``runs/speed``, numbered, where None.

    Raises:
        SsvidError: any mistake in the video, the checkpoint, the options or the length; nothing is written then.
    """
    started, say = time.perf_counter(), speaker(show_progress)
    folder = Path(out) if out is not None else next_free(RUNS, "speed")
    require_empty_folder(folder)
    settings = checked_settings(CurveConfig(window, hop, fps, overlap, task, batch_size))
    config = checked_speed(SpeedUpConfig(threshold=threshold, smooth_seconds=smooth_seconds))
    wants_film = bool(speed_up or seconds)
    opened = open_own_video(video, decoder)
    _check_sound(opened, sound, wants_film)
    asker = load_asker(checkpoint, settings, device)
    if wants_film:
        require_speed(asker)
    asked = Asked.of(opened, asker, settings)
    num_out = num_film_frames(asked.film, speed_up, seconds) if wants_film else 0
    with folder_appearing_whole(folder) as staged:
        keep = (lambda size: _map_sums(staged / "sums.npy", len(asked.shown), size)) if with_map else None
        watched = asked.watch(every_tenth(say, "frames asked"), config.factors if wants_film else (1.0,), keep)
        sped = watched.sped_up(num_out, config) if wants_film else None
        made = _Made(opened, watched, sped, sound, staged, say)
        made.write(str(checkpoint), config)
    curve = sped.curve if sped is not None else watched.curve
    return SpeedResult(folder, folder / "index.html", curve, sped, round(time.perf_counter() - started, 2))


def _check_sound(opened: OpenedVideo, sound: bool, wants_film: bool) -> None:
    if not sound:
        return
    if not wants_film:
        raise RecipeError("--sound is for a film that is sped up. Add --speed-up 2 or --seconds 60, or leave it out.")
    if not has_sound(opened.path):
        raise DataError(f"{opened.path} has no sound track, and --sound asks for its sound. Leave --sound out.")


def _map_sums(path: Path, num_beats: int, size: tuple[int, int]) -> MapSums:
    """Sums of maps on disk, so that memory does not grow with the video."""
    sums_N2HW = np.lib.format.open_memmap(path, "w+", np.float32, (num_beats, 2, *size))
    return MapSums(sums_N2HW, np.zeros(num_beats, np.int32))


@dataclass
class _Made:
    """What is written into the folder, piece by piece."""

    opened: OpenedVideo
    watched: Watched
    sped: SpeedUp | None
    sound: bool
    folder: Path
    say: Say

    def write(self, checkpoint: str, config: SpeedUpConfig) -> None:
        curve = self.sped.curve if self.sped is not None else self.watched.curve
        film = self.watched.asked.film
        shown = PageFilm(self.opened, film.frames_N, film.fps)
        shown.write(self.folder / "film.mp4", every_tenth(self.say, "frames of the film"))
        if self.watched.heard.maps is not None:
            self._write_map(shown, self.watched.heard.maps)
        if self.sped is not None:
            self._write_films(self.sped)
        self._write_tables(curve)
        seconds = len(film) / film.fps
        drawing, frame = draw_curve(curve, seconds, shown.thumbnails, self.sped)
        write_text(self.folder / "curve.svg", drawing)
        facts = self._facts(checkpoint, config)
        write_json(self.folder / "speed.json", dict(facts) | {"versions": versions()})
        assert shown.poster is not None  # a film has a middle
        page = SpeedPage(
            title=f"{self.opened.row.path}: {curve.says}?",
            about=f"{len(curve.probs_T)} frames, {seconds:.1f} s: how surely each stretch is {curve.says} (1) or {curve.otherwise} (0).",
            film="./film.mp4",
            poster=picture_uri(shown.poster),
            curve=curve,
            drawing=drawing,
            frame=frame,
            seconds=seconds,
            files=[(name, what) for name, what in _FILES.items() if (self.folder / name).exists()],
            facts=facts,
            notes=curve.notes,
            map="./map.mp4" if self.watched.heard.maps is not None else "",
            sheet=picture_uri(shown.sheet_picture) if shown.sheet else "",
            sped=self.sped,
            has_sound=self.sound,
            is_speed=self.watched.asked.asker.question.is_speed,
        )
        write_text(self.folder / "index.html", render_speed_page(page))

    def _write_map(self, shown: PageFilm, maps: MapSums) -> None:
        curve, asked = self.watched.curve, self.watched.asked
        if len(asked.shown) != len(asked.film):  # the network saw another rate than the film has
            beats_N = np.arange(len(asked.film)) / asked.film.fps * asked.shown.fps
            nearest_N = np.clip(np.rint(beats_N).astype(int), 0, len(asked.shown) - 1)
            maps = MapSums(maps.sums_N2HW[nearest_N], maps.counts_N[nearest_N])

        def caption(beat: int) -> str:
            return f"{beat / asked.film.fps:.1f} s: {curve.probs_T[asked.film.frames_N[beat]]:.2f}"

        shown.write_map(self.folder / "map.mp4", maps, caption, every_tenth(self.say, "frames of the map"))
        write_picture(self.folder / "map.png", shown.sheet_picture)
        os.unlink(self.folder / "sums.npy")

    def _write_films(self, sped: SpeedUp) -> None:
        for name, film_frames in (("adaptive", sped.film_frames), ("uniform", sped.uniform_frames)):
            told = every_tenth(self.say, f"frames of the {name} film")
            write_mapped(self.folder / f"{name}.mp4", self.opened, film_frames, sped.fps, told)
        if self.sound:
            times_T = sped.curve.seconds_T - sped.curve.seconds_T[0]
            pieces = pieces_of(times_T[sped.film_frames], sped.fps, float(times_T[-1]) + 1 / sped.fps)
            add_sound(self.folder / "adaptive.mp4", self.opened.path, pieces)

    def _write_tables(self, curve: SpeedCurve) -> None:
        head, columns = ["frame", "seconds", "probability"], [curve.seconds_T, curve.probs_T]
        if self.sped is not None:
            places_T = (curve.seconds_T - curve.seconds_T[0]) * self.sped.fps
            beats_T = np.clip(np.rint(places_T).astype(int), 0, len(self.sped.speeds_N) - 1)
            head, columns = (
                [*head, "natural_factor", "film_speed"],
                [*columns, self.sped.natural_N[beats_T], self.sped.speeds_N[beats_T]],
            )
        _write_csv(
            self.folder / "curve.csv",
            head,
            ([n, *map(_short, line)] for n, line in enumerate(zip(*columns, strict=True))),
        )
        if self.sped is not None:
            lines = zip(self.sped.film_frames.tolist(), self.sped.uniform_frames.tolist(), strict=True)
            told = ([n, a, _short(curve.seconds_T[a]), u, _short(curve.seconds_T[u])] for n, (a, u) in enumerate(lines))
            _write_csv(
                self.folder / "frames.csv",
                ["film_frame", "adaptive_frame", "adaptive_seconds", "uniform_frame", "uniform_seconds"],
                told,
            )

    def _facts(self, checkpoint: str, config: SpeedUpConfig) -> list[tuple[str, str]]:
        row, asker, asked = self.opened.row, self.watched.asked.asker, self.watched.asked
        told = [
            ("video", f"{row.path}: {row.num_frames} frames of {row.width}x{row.height} at {row.fps:.6g} per second"),
            ("checkpoint", checkpoint),
            ("weights", asker.weights),
            (
                "network",
                f"{asker.backbone.info.name}, windows of {asker.window} frames every {asker.hop}, at {asked.shown.fps:.6g} per second",
            ),
            ("overlap", asked.settings.overlap),
            ("shots", f"{len(self.watched.curve.shots)}, found by how much neighboring frames differ"),
        ]
        if self.sped is not None:
            factors = f"{len(self.watched.heard.answers)} versions, {self.watched.heard.answers[-1].factor:.2f} times as fast at most"
            told.append(
                (
                    "speed-up",
                    f"{factors}; natural below {config.threshold:g}, rule {config.rule}, smoothed over {config.smooth_seconds:g} s",
                )
            )
        return told


def _short(value: Any) -> str:
    return f"{float(value):.6g}"


def _write_csv(path: Path, head: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    write_text(path, text.getvalue())
