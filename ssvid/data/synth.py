"""The embedded data set: synthetic scenes, really encoded, with their ground truth beside them.

    OUT/manifest.csv
    OUT/train/<motion>/<motion>_00000.mp4     OUT/test/<motion>/...
    OUT/truth/train/<motion>/<motion>_00000.npz
    OUT/layers/train/<scene>/<scene>_00000/...           of scenes whose layers are known

A video is a function of (seed, split, index) alone: neither the number of videos nor the number of workers changes it.
The splits never share a scene, because the split is part of every scene's seed.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from ssvid.data.manifest import Manifest, VideoRow
from ssvid.data.synth_layers import layer_seed, truth_arrays, write_layers
from ssvid.errors import DataError, did_you_mean
from ssvid.files import require_empty_folder, takes_paths, write_pictures
from ssvid.machine import num_cores
from ssvid.progress import Progress
from ssvid.video.identity import content_id, quick_id
from ssvid.video.scan import scan_video
from ssvid.video.synthetic import Rendering, Scene, draw_scene, render
from ssvid.video.synthetic_actions import phase_numbers
from ssvid.video.synthetic_motions import CLASSES
from ssvid.video.synthetic_scenes import SCENES, KnownScene, draw_known_scene
from ssvid.video.writer import write_video

SPLITS = ("train", "test")  # the position is part of every scene's seed, so the order never changes
CRF = 18
PRESET = "superfast"
# Key frames only. Between key frames a still scene is coded with less and less error, and each key frame puts it back: a
# beat of GOP frames that tells the playback speed of a video in which nothing moves (a known leak of compressed video).
GOP = 1
MIN_SIZE_PX = 32
MIN_FRAMES = 2
LAYERS = "layers"
# Of motions, or of scenes -> its classes.
SETS: Mapping[str, tuple[str, ...]] = MappingProxyType({**CLASSES, LAYERS: SCENES})
NUM_SCANNED = 2  # videos of each split that all decoders are tried on; a scan costs as much as two videos


@dataclass(frozen=True)
class SyntheticVideos:
    """Which videos are made; the classes take turns, so that they are balanced.

    seconds, fps: length and rate of every video. size_px: height and width, even. seed: another one gives other videos.
    motions: which classes, "everyday" (``MOTIONS``), "directions" (``DIRECTIONS``, of which no single frame tells the class),
        "irreversible" (``IRREVERSIBLE``, which cannot run backward), "actions" (``ACTIONS``, each done once in four parts, of which
        each frame's is known; they take 3 seconds) or "layers" (``SCENES``, objects that cross the picture once in the whole video, and
        whose layers with alpha, effects and background are known).
    tempo: everything moves so many times as fast; of layers it is 1.
    """

    num_train: int = 400
    num_test: int = 200
    seconds: float = 3.0
    fps: float = 25.0
    size_px: int = 128
    seed: int = 0
    motions: str = "everyday"
    tempo: float = 1.0

    @property
    def num_frames(self) -> int:
        """Frames of a video."""
        return round(self.seconds * self.fps)

    def check(self) -> None:
        """Raise DataError for what cannot be rendered."""
        for name in ("num_train", "num_test", "seed"):
            if getattr(self, name) < 0:
                raise DataError(f"{name} ({getattr(self, name)}) must be 0 or more.")
        if self.num_train + self.num_test == 0:
            raise DataError("num_train (0) and num_test (0) must not both be 0. Ask for at least one video.")
        if self.motions not in SETS:
            raise DataError(f"motions ({self.motions!r}) is unknown. {did_you_mean(self.motions, tuple(SETS))}")
        if not 0 < self.tempo < math.inf:
            raise DataError(f"tempo ({self.tempo}) must be above 0 and finite. 1 is the usual speed.")
        if self.motions == LAYERS and self.tempo != 1:
            rule = "must be 1 of scenes of layers: their objects cross the picture once in the whole video"
            raise DataError(f"tempo ({self.tempo}) {rule}. Change how fast they are by seconds.")
        if not 0 < self.fps <= 1000:
            raise DataError(f"fps ({self.fps}) must be above 0 and at most 1000.")
        if not MIN_FRAMES <= self.seconds * self.fps < math.inf:  # NaN fails too
            rule = f"must be a finite length that gives at least {MIN_FRAMES} frames at {self.fps} fps"
            raise DataError(f"seconds ({self.seconds}) {rule}.")
        if self.size_px < MIN_SIZE_PX or self.size_px % 2:
            raise DataError(f"size_px ({self.size_px}) must be even (H.264) and at least {MIN_SIZE_PX}.")


@dataclass(frozen=True)
class _Job:
    """One video to be made; pickled to a worker."""

    out: Path
    split: str
    index: int
    videos: SyntheticVideos

    @property
    def name(self) -> str:
        motion = class_of(self.index, self.videos.motions)
        return f"{self.split}/{motion}/{motion}_{self.index:05d}"


@takes_paths("out")
def synthesize(
    out: str | os.PathLike[str],
    videos: SyntheticVideos | None = None,
    *,
    workers: int = 0,
    progress: Progress | None = None,
) -> Manifest:
    """Render, encode and write the data set.

    Args:
        out: a new or empty folder.
        workers: processes; 0 takes as many as this process may use. Does not change a pixel.
        progress: called as progress(videos done, videos in all).

    Returns:
        The manifest, also written to ``out/manifest.csv``.

    Raises:
        DataError: a bad argument, or ``out`` holds something. What was written is removed when the work fails.
    """
    videos = videos or SyntheticVideos()
    videos.check()
    if workers < 0:
        raise DataError(f"workers ({workers}) must be 0 or more.")
    out = Path(out)
    require_empty_folder(out)
    counts = dict(zip(SPLITS, (videos.num_train, videos.num_test), strict=True))
    jobs = [_Job(out, split, i, videos) for split in SPLITS for i in range(counts[split])]
    try:
        rows = _run(jobs, min(workers or num_cores(), len(jobs)), progress or (lambda done, total: None))
        manifest = Manifest(out, tuple(rows))
        manifest.save(out / "manifest.csv")
    except BaseException:  # also an interrupt: a half-written data set would be refused at the next try
        for name in (*SPLITS, "truth", LAYERS):
            shutil.rmtree(out / name, ignore_errors=True)
        raise
    return manifest


def scene_of(seed: int, split: str, index: int, size_px: int = 128, motions: str = "everyday") -> Scene:
    """The scene of a video of the data set, to be rendered again at other times or speeds."""
    return draw_scene(class_of(index, motions), (seed, SPLITS.index(split), index), size_px)


def layers_of(seed: int, split: str, index: int, num_frames: int, size_px: int = 128) -> KnownScene:
    """The scene of a video of the data set "layers", drawn again."""
    address = layer_seed(seed, SPLITS.index(split), index)
    return draw_known_scene(class_of(index, LAYERS), address, num_frames=num_frames, size=(size_px, size_px))


def class_of(index: int, motions: str = "everyday") -> str:
    """The class of the video of this number."""
    return SETS[motions][index % len(SETS[motions])]


def truth_path(row_path: str) -> str:
    """Where the ground truth of a video lies, relative to the manifest's root."""
    return Path("truth", row_path).with_suffix(".npz").as_posix()


def _run(jobs: list[_Job], workers: int, progress: Progress) -> list[VideoRow]:
    rows: dict[str, VideoRow] = {}
    for done, row in enumerate(_results(jobs, workers), start=1):
        rows[row.path] = row
        progress(done, len(jobs))
    decoders = _agreed_decoders(rows.values())
    return [replace(rows[f"{job.name}.mp4"], decoders_ok=decoders) for job in jobs]


def _results(jobs: list[_Job], workers: int) -> Iterator[VideoRow]:
    if workers == 1:
        yield from map(_make_video, jobs)
        return
    # spawn: forking a process whose torch threads have started may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures: list[Future[VideoRow]] = [pool.submit(_make_video, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _make_video(job: _Job) -> VideoRow:
    """Render and encode one video and write its truth; returns its row, scanned for a few videos only."""
    made, path = job.videos, job.out / f"{job.name}.mp4"
    frames_THWC, truth = (_draw_layers if made.motions == LAYERS else _draw_motion)(job)
    write_video(path, frames_THWC, made.fps, crf=CRF, preset=PRESET, gop=GOP)
    truth_file = job.out / truth_path(f"{job.name}.mp4")
    truth_file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(truth_file, **truth)
    # All files come from one encoder with one setting, so a scan of a few of them tells of all.
    decoders = scan_video(path).decoders_ok if job.index < NUM_SCANNED else ()
    return VideoRow(
        path=f"{job.name}.mp4", num_frames=made.num_frames, fps=float(made.fps), height=made.size_px, width=made.size_px,
        label=class_of(job.index, made.motions), split=job.split, decoders_ok=decoders, content_id=content_id(path),
        quick_id=quick_id(path), truth=truth_path(f"{job.name}.mp4"),
    )  # fmt: skip


def _draw_motion(job: _Job) -> tuple[np.ndarray, dict[str, Any]]:
    """Frames, and the arrays of what is known of them."""
    made = job.videos
    scene = scene_of(made.seed, job.split, job.index, made.size_px, made.motions)
    scene = replace(scene, speed=made.tempo * scene.speed)
    rendering = render(scene, np.arange(made.num_frames) / made.fps)
    return rendering.frames_THWC, _motion_truth(scene, rendering)


def _draw_layers(job: _Job) -> tuple[np.ndarray, dict[str, Any]]:
    """The same of a scene whose layers are known, which are written."""
    made, folder = job.videos, job.out / LAYERS / job.name
    scene = layers_of(made.seed, job.split, job.index, made.num_frames, made.size_px)
    write_pictures(folder / "masks", scene.ids())
    write_layers(folder, scene)
    return scene.frames_THWC, {"names": np.array(scene.names), **truth_arrays(scene)}


def _motion_truth(scene: Scene, rendering: Rendering) -> dict[str, Any]:
    poses, acted = rendering.poses, dict[str, Any]()
    if rendering.progress_T is not None:
        acted = {"phase": phase_numbers(rendering.progress_T), "progress": rendering.progress_T}
    return dict(
        motion=scene.motion, speed=scene.speed, direction=scene.direction, turn=scene.turn, start=scene.start,
        size_px=scene.size_px, seed=np.asarray(scene.seed), times=rendering.times, x=poses.x, y=poses.y,
        angle=poses.angle, scale=poses.scale, affine=poses.affine_ST23.astype(np.float32), camera=poses.camera_T2,
        masks=np.packbits(rendering.masks_STHW, axis=-1), tracks=rendering.tracks_TP2.astype(np.float32),
        visible=rendering.visible_TP, point_owner=rendering.point_owner_P, **acted,
    )  # fmt: skip


def _agreed_decoders(rows: Iterable[VideoRow]) -> tuple[str, ...]:
    """The decoders that were right for every scanned video, in the scan's order."""
    scanned = [row.decoders_ok for row in rows if row.decoders_ok]
    return tuple(name for name in scanned[0] if all(name in other for other in scanned)) if scanned else ()
