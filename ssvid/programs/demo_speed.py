"""``demo speed``: a network learns speediness on rendered videos; then it watches one whose speed changes on a known schedule."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from ssvid.data.synth import SyntheticVideos, synthesize
from ssvid.files import write_json, write_text
from ssvid.programs.pretrain import pretrain
from ssvid.programs.speed import SpeedResult, speed
from ssvid.programs.speed_page import draw_curve
from ssvid.progress import Say, every_tenth
from ssvid.video.schedules import Scheduled, scheduled_video
from ssvid.video.writer import write_video

PRETRAIN = "demo/speediness"
NUM_TRAIN, SECONDS, SIZE_PX = 400, 3.0, 64  # of the videos that are learned from, as in the other demo
WATCHED_SECONDS, WATCHED_PX, MOTION = 15.0, 96, "orbit"  # of the one that is watched
SPEED_UP = 2.0


@dataclass(frozen=True)
class SpeedDemoResult:
    """What the demo leaves. rank: correlation of curve and true speed, Spearman. log2_error: mean error of log2 V.

    accuracy: of speediness on held-out videos. shown: what ``ssvid speed`` wrote.
    """

    folder: Path
    accuracy: float
    rank: float
    log2_error: float
    shown: SpeedResult

    def as_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "folder": str(self.folder),
            "accuracy": self.accuracy,
            "rank_correlation": self.rank,
            "log2_error": self.log2_error,
            "speed": self.shown.as_dict(),
        }

    def __str__(self) -> str:
        return f"""\
Speediness on held-out videos: accuracy {self.accuracy:.3f} (chance 0.50)
A video of {WATCHED_SECONDS:g} s whose speed changes on a schedule that the network does not know:
  curve and true speed: rank correlation {self.rank:+.2f} (1 is perfect, 0 is none)
  factor that looks natural, beside the true one: off by {self.log2_error:.2f} octaves in the mean
One video and one seed. Twenty videos, another network: docs/results/speed.md.

the page              {self.shown.page}   open it in a browser
curve beside truth    {self.folder / "truth.svg"}
every number          {self.folder / "results.json"}
Your own videos:      ssvid speed my.mp4 --checkpoint {self.folder / "pretrained"} --speed-up 2"""


def run_speed_demo(folder: Path, seed: int, say: Say, show_progress: bool) -> SpeedDemoResult:
    """All of it, in a folder that is empty or not there."""
    videos, run = folder / "videos", folder / "pretrained"
    say(f"1/4 rendering and encoding {NUM_TRAIN} videos, {SECONDS:g} s at {SIZE_PX} px -> {videos}")
    synthesize(videos, SyntheticVideos(NUM_TRAIN, 0, SECONDS, size_px=SIZE_PX), progress=every_tenth(say, "    videos"))
    say("2/4 pretraining without labels")
    trained = pretrain(PRETRAIN, f"data.root={videos}", f"seed={seed}", run_dir=run, show_progress=show_progress)
    say("3/4 rendering a video whose speed changes on a known schedule")
    watched = scheduled_video(MOTION, seed, seconds=WATCHED_SECONDS, size_px=WATCHED_PX)
    path = folder / "watched.mp4"
    write_video(path, watched.frames_THWC, watched.fps)
    say("4/4 watching it: curve, film, map, page")
    shown = speed(
        path, checkpoint=run, speed_up=SPEED_UP, with_map=True, out=folder / "speed", show_progress=show_progress
    )
    result = SpeedDemoResult(folder, float(trained.metrics["accuracy"]), *beside_truth(shown, watched), shown)
    write_truth(folder / "truth.svg", shown, watched)
    write_json(folder / "results.json", result.as_dict())
    return result


def beside_truth(shown: SpeedResult, watched: Scheduled) -> tuple[float, float]:
    """Rank correlation of the curve and the true speed, and the mean error of log2 V."""
    assert shown.sped is not None  # it was asked for
    rank = spearmanr(shown.curve.probs_T, watched.speeds_T).statistic
    error = np.abs(np.log2(shown.sped.natural_N) - np.log2(watched.natural_factors)).mean()
    return float(rank), float(error)


def write_truth(path: Path, shown: SpeedResult, watched: Scheduled) -> None:
    """The curve with the true factor beside the one that looks natural."""
    count = len(watched.speeds_T)
    at = [int((k + 0.5) * count / 10) for k in range(10)]
    thumbnails = [(number, watched.frames_THWC[number]) for number in at]
    drawing, _ = draw_curve(shown.curve, count / watched.fps, thumbnails, shown.sped, watched.natural_factors)
    write_text(path, drawing)
