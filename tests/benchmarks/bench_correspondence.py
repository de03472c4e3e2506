"""Do cycle consistency and colorization learn to find the same thing again? Masks and points of synthetic videos, over seeds.

Usage: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_correspondence --out DIR [--seeds 3] [--videos 100] [--only TASK ...] [--knobs 10]

Trains the smoke recipes of both tasks, and of colorization with shifted frames, each beside its placebo, on 400 synthetic videos;
lets all follow masks and points through other ones (``ssvid track track/synthetic``), beside the random network, labels that do not
move, raw pixels and optical flow. What is there is not done again: with the folder of bench_all_tasks, its networks are taken.
Writes correspondence.md. With --knobs it says instead what single settings of a protocol come to on so many videos of a seed of
their own: how the settings of track@1 were found.
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import ssvid
from ssvid.backbones import Backbone, initialize_backbone
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.data.synth import SyntheticVideos, synthesize
from ssvid.data.truth import read_truth
from ssvid.evals.label_propagation.following import Follower
from ssvid.evals.label_propagation.regions import jaccard
from ssvid.exports import load_backbone
from ssvid.features.propagation_protocol import PropagationProtocol
from ssvid.files import write_text
from ssvid.machine import environment
from ssvid.protocols.metrics import title_of
from ssvid.results.rows import ResultRow, read_results
from ssvid.results.summaries import Summary, summarize, summarize_difference
from tests.benchmarks.bench_smoke import ARMS, train

TASKS = {
    "cycle_consistency": ("smoke/cycle_consistency",),
    "colorization": ("smoke/colorization",),
    "colorization, shifted": ("smoke/colorization", "task.options.frame_shift=0.25"),
}
METRICS = ("davis_jf", "davis_j", "davis_f", "tapvid_delta")
OTHERS = ("pretrained", "placebo", "random", "identity", "raw pixels", "optical flow")
BASE = {"size_rule": "short_side", "size_px": 256, "num_previous": 7, "radius_cells": 6.0}
KNOBS: tuple[dict[str, Any], ...] = (
    {},
    {"size_rule": "native"},
    *({"radius_cells": value} for value in (3.0, 9.0, 12.0)),
    *({"temperature": value} for value in (0.02, 0.1, 0.2)),
    *({"top_k": value} for value in (5, 20)),
    *({"num_previous": value} for value in (3, 15)),
    {"feedback": "hard"},
    {"label_resampling": "bilinear"},
    {"radius_on_first": True},
    {"decision_min_max": True},
    {"top_k": 5, "radius_on_first": True, "decision_min_max": True},
    {"point_temperature": 0.01},
    {"point_temperature": 0.01, "point_radius_cells": 2.0},
)
EVERY = 3  # frames of the videos that knobs are chosen on
THRESHOLDS_PX = (1, 2, 4, 8, 16)  # of TAP-Vid, at 256 px


def run_of(out: Path, task: str, arm: str, seed: int) -> Path:
    return out / f"{task.replace(', ', '-')}-{arm}{seed}"


def train_all(out: Path, tasks: Sequence[str], seeds: int) -> None:
    videos = out / "videos"
    if not videos.exists():
        synthesize(videos, SyntheticVideos(num_train=400, num_test=0))
    for task in tasks:
        recipe, *options = TASKS[task]
        for arm, overrides in ARMS.items():
            for seed in range(seeds):
                run = run_of(out, task, arm, seed)
                if not (run / "results.json").is_file():
                    train(recipe, videos, run, *options, f"seed={seed}", *overrides)


def synthetic_videos(folder: Path, num: int) -> Sequence[str]:
    """What a recipe says of so many synthetic videos with known masks and points, made once, 1.2 seconds long."""
    if not folder.exists():
        synthesize(folder, SyntheticVideos(num_train=0, num_test=100, seconds=1.2))
    table = folder.with_name(f"{folder.name}{num}.csv")
    manifest = Manifest.load(folder / "manifest.csv")
    manifest.with_rows(manifest.rows[:num]).save(table)
    return f"data.root={folder}", f"data.list={table}"


def follow_all(
    folder: Path, videos: Sequence[str], runs: Sequence[Path], placebos: Sequence[Path], *overrides: str
) -> list[ResultRow]:
    """The rows of ``ssvid track track/synthetic`` for all seeds; read where they are there."""
    if (folder / "results.json").is_file():
        return read_results(folder / "results.json")
    networks: dict[str, Any] = {"backbone": runs, "placebo": placebos, "device": "cpu"}
    return ssvid.track("track/synthetic", *videos, *overrides, **networks, out=folder, show_progress=False).rows


def tracked(out: Path, task: str, seeds: int, num_videos: int) -> list[ResultRow]:
    """All rows of a task."""
    runs, placebos = ([run_of(out, task, arm, seed) for seed in range(seeds)] for arm in ARMS)
    videos = synthetic_videos(out / "tracked", num_videos)
    return follow_all(out / f"track-{task.replace(', ', '-')}", videos, runs, placebos)


def cell(s: Summary) -> str:
    spread = f" ± {100 * s.over_seeds:.1f}" if s.over_seeds is not None else ""
    low, high = (100 * v for v in s.interval)
    return f"{100 * s.value:.1f}{spread} [{low:.0f}, {high:.0f}]"


def difference(s: Summary) -> str:
    """A paired difference, and how many of its standard errors over seeds it is away from zero."""
    if not s.over_seeds:
        return cell(s)
    return f"{cell(s)}; {s.value / (s.over_seeds / math.sqrt(s.num_seeds)):.1f} s.e."


def tables(found: dict[str, list[ResultRow]]) -> Iterator[str]:
    for metric in METRICS:
        head = ["task", *OTHERS, "- placebo", "- random"]
        yield f"\n**{title_of(metric)}**, %\n\n| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|"
        for task, rows in found.items():
            mine = [row for row in rows if row.metric == metric]
            cells = {s.name: cell(s) for s in summarize(mine)}
            minus = [
                difference(summarize_difference(mine, "pretrained", other, metric)) for other in ("placebo", "random")
            ]
            yield f"| {task} | " + " | ".join([*(cells.get(name, "-") for name in OTHERS), *minus]) + " |"


@dataclass(frozen=True)
class Seen:
    """Every third frame of a video with what is known of it."""

    frames_THWC: np.ndarray
    labels_THW: np.ndarray
    points_TQ2: np.ndarray
    visible_TQ: np.ndarray

    @classmethod
    def of(cls, manifest: Manifest, row: VideoRow) -> "Seen":
        truth, frames = read_truth(manifest.root, row), np.arange(0, row.num_frames, EVERY)
        assert truth.masks is not None and truth.tracks is not None
        with row.open(manifest.root) as reader:
            pixels = reader.frames_at(frames).permute(0, 2, 3, 1).numpy()
        masks = [truth.masks.at(int(frame)) for frame in frames]
        labels = np.stack([mask for mask in masks if mask is not None])
        return cls(pixels, labels, truth.tracks.points_TQ2[frames], truth.tracks.visible_TQ[frames])


def followed(network: Backbone, protocol: PropagationProtocol, video: Seen) -> tuple[float, float]:
    """Mean J of the objects of the first frame, and the share of visible points within TAP-Vid's distances."""
    follower, size_px = Follower.of(network, protocol), video.frames_THWC.shape[1:3]
    first_HW = video.labels_THW[0]
    ids = [number for number in (1, 2) if (first_HW == number).any()]
    found = list(follower.masks(iter(video.frames_THWC), size_px, {0: first_HW}, ids))
    inner = range(1, len(found) - 1)
    j = np.mean([[jaccard(video.labels_THW[t] == number, found[t] == number) for t in inner] for number in ids])
    asked = np.flatnonzero(video.visible_TQ[0])
    queries_Q3 = np.column_stack([np.zeros(len(asked)), video.points_TQ2[0, asked]])
    places_TQ2, _ = follower.points(iter(video.frames_THWC), size_px, queries_Q3)
    away_TQ = np.linalg.norm(places_TQ2 - video.points_TQ2[:, asked], axis=-1)[1:] * 256 / size_px[0]
    near = away_TQ[video.visible_TQ[1:, asked]]
    return float(j), float(np.mean([(near < px).mean() for px in THRESHOLDS_PX]))


def knobs(out: Path, num_videos: int) -> Iterator[str]:
    """J and delta of seed 0 of each task, its placebo and the random network, under one changed setting after the other."""
    videos = out / "chosen_on"
    if not videos.exists():
        synthesize(videos, SyntheticVideos(num_train=0, num_test=20, seed=9))
    manifest = Manifest.load(videos / "manifest.csv")
    seen = [Seen.of(manifest, row) for row in manifest.rows[:num_videos]]
    networks = {
        f"{task}, {arm}": load_backbone(run_of(out, task, arm, 0))
        for task in ("cycle_consistency", "colorization, shifted")
        for arm in ARMS
    }
    like = next(iter(networks.values()))
    networks["random"] = initialize_backbone(like.info.name, like.info.options, seed=0)
    networks["random"].provenance = like.provenance
    yield "| changed | " + " | ".join(networks) + " |\n" + "|---" * (len(networks) + 1) + "|"
    for changed in KNOBS:
        protocol = PropagationProtocol(**{**BASE, **changed})
        means = [np.mean([followed(n, protocol, video) for video in seen], axis=0) for n in networks.values()]
        words = ", ".join(f"{key} {value}" for key, value in changed.items()) or "nothing"
        yield f"| {words} | " + " | ".join(f"{100 * j:.1f} / {100 * delta:.1f}" for j, delta in means) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--only", nargs="*", default=list(TASKS))
    parser.add_argument("--knobs", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    train_all(args.out, args.only, args.seeds)
    if args.knobs:
        for line in knobs(args.out, args.knobs):
            print(line, flush=True)
        return
    found = {task: tracked(args.out, task, args.seeds, args.videos) for task in args.only}
    text = "\n".join([*tables(found), f"\n`{json.dumps(environment(), default=str)}`\n"])
    write_text(args.out / "correspondence.md", text)
    print(text)


if __name__ == "__main__":
    main()
