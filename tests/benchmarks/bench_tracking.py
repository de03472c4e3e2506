"""Do pretrained features follow points better than random ones? Known point tracks of synthetic videos, paired by video.

Usage: python -m tests.benchmarks.bench_tracking --run RUN [--run RUN ...] [--placebo RUN ...] --videos DIR --out DIR
           [--limit 200] [--motions spin roll ...] [--gap 12] [--frame-px 0]

RUN is a finished run folder; its backbone stands beside the same network with random weights (of the run's own seed, so
the one that training started from), beside its placebo where one is named, and beside raw pixels. DIR is a folder made by
``ssvid data synth`` with a split ``test``, which holds the tracks.

A point of the actor at frame t is looked for in frame t + gap: its feature, bilinear from the map of the stage that was
trained, is compared with all cells there, and the five most alike give the place, weighted by a softmax of their cosines.
Raw pixels are the colors of each cell and its neighbors, centered. The error is the distance from the true place in cells;
of a video, the median over its points and pairs of frames; and of all videos, the median. Intervals: bootstrap over videos.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssvid.backbones import Backbone, initialize_backbone
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.data.synth import truth_path
from ssvid.machine import environment
from ssvid.programs.trained import trained_networks
from ssvid.recipe.load import load_recipe
from ssvid.recipe.schema import PretrainRecipe
from ssvid.tasks import PretextTask
from ssvid.transforms import squash
from ssvid.transforms.warp import bilinear_weights, cell_centers, square_side
from ssvid.video import open_video
from ssvid.weights.checkpoints import read_checkpoint

MOTIONS = ("spin", "pulse", "roll", "wag", "approach")  # they turn or scale; the light changes in all
TOP = 5
TEMPERATURE = 0.05
NUM_PAIRS = 4
NUM_DRAWS = 2000

Maps = Callable[[Tensor], Tensor]  # frames float (T, 3, H, W) in [0, 1] -> (T, D, N)


def network_maps(backbone: Backbone, stage: str | None) -> Maps:
    """The stage's map of each frame by itself."""
    backbone.eval()

    def maps(frames_TCHW: Tensor) -> Tensor:
        with torch.inference_mode():
            return backbone(frames_TCHW.unsqueeze(2), stage).squeeze(2).flatten(2)

    return maps


def pixel_maps(stride: int) -> Maps:
    """The colors of each cell and half a cell around it, less their mean."""

    def maps(frames_TCHW: Tensor) -> Tensor:
        blocks_TDN = F.unfold(frames_TCHW, 2 * stride, padding=stride // 2, stride=stride)
        return blocks_TDN - blocks_TDN.mean(dim=1, keepdim=True)

    return maps


def load_truth(path: str | Path) -> dict[str, np.ndarray]:
    """Read one ground truth file.

    Returns:
        motion, speed (factor on the natural tempo), direction, turn, start, size_px, seed; times (T,) in seconds; x, y,
        angle, scale (S, T) and affine (S, T, 2, 3) as in ``Poses``; camera (T, 2); masks (S, T, H, W) bool;
        tracks (T, P, 2), visible (T, P), point_owner (P,) as in ``Rendering``.
    """
    with np.load(path, allow_pickle=False) as file:
        truth = {name: file[name] for name in file.files}
    size = int(truth["size_px"])
    truth["masks"] = np.unpackbits(truth["masks"], axis=-1, count=size).astype(bool)
    return truth


def find_points(map_DN: Tensor, later_DN: Tensor, points_P2: Tensor) -> Tensor:
    """Where the points (x, y in [-1, 1], of ``map``) are in ``later``: (P, 2)."""
    side = square_side(map_DN.shape[1])
    features_DP = map_DN @ bilinear_weights(points_P2[None], side)[0]
    alike_NP = F.normalize(later_DN, dim=0).T @ F.normalize(features_DP, dim=0)
    best_KP, cell_KP = alike_NP.topk(TOP, dim=0)
    weights_KP = (best_KP / TEMPERATURE).softmax(dim=0)
    return (weights_KP[..., None] * cell_centers(side, map_DN)[cell_KP]).sum(dim=0)


def video_errors(row: VideoRow, root: Path, arms: Mapping[str, Maps], gap: int, frame_px: int) -> dict[str, float]:
    """For each arm the median error in cells over the actor's visible points and some pairs of frames; NaN without any."""
    truth = load_truth(root / truth_path(row.path))
    starts = np.linspace(0, row.num_frames - 1 - gap, NUM_PAIRS).round().astype(np.int64)
    indices = np.unique(np.concatenate([starts, starts + gap]))
    info = row.video_info(root)
    with open_video(info.path, info=info, decoders_ok=row.decoders_ok) as reader:
        frames_TCHW = squash(reader.frames_at(indices), frame_px or info.height).float() / 255
    points = [_points(truth, start, gap) for start in starts.tolist()]
    medians = {}
    for arm, maps in arms.items():
        map_of = dict(zip(indices.tolist(), maps(frames_TCHW), strict=True))
        errors = [
            error
            for start, (there, later) in zip(starts.tolist(), points, strict=True)
            for error in _cells_off(map_of[start], map_of[start + gap], there, later)
        ]
        medians[arm] = float(np.median(errors)) if errors else float("nan")
    return medians


def _points(truth: Mapping[str, np.ndarray], start: int, gap: int) -> tuple[Tensor, Tensor]:
    """Where the actor's points are, those that are seen in both frames: x, y in [-1, 1], (P, 2) each."""
    seen = truth["visible"][start] & truth["visible"][start + gap] & (truth["point_owner"] == 0)
    there, later = ((truth["tracks"][t, seen] + 0.5) / int(truth["size_px"]) * 2 - 1 for t in (start, start + gap))
    return torch.from_numpy(there).float(), torch.from_numpy(later).float()


def _cells_off(map_DN: Tensor, later_DN: Tensor, there_P2: Tensor, later_P2: Tensor) -> list[float]:
    if not len(there_P2):
        return []
    off_P = (find_points(map_DN, later_DN, there_P2) - later_P2).norm(dim=1)
    found: list[float] = (off_P * square_side(map_DN.shape[1]) / 2).tolist()
    return found


def arms_of(run: Path, placebo: Path | None) -> dict[str, Maps]:
    """The trained backbone, the one that it started from, that of the placebo, and pixels at the same stride."""
    config, backbone, task = _trained(run)
    blank = initialize_backbone(backbone.info.name, backbone.info.options, seed=config.seed)
    stride = backbone.info.stage(task.stage).stride_space
    arms = {
        "pretrained": network_maps(backbone, task.stage),
        "random": network_maps(blank, task.stage),
        "pixels": pixel_maps(stride),
    }
    if placebo is not None:
        arms["placebo"] = network_maps(_trained(placebo)[1], task.stage)
    return arms


def _trained(run: Path) -> tuple[PretrainRecipe, Backbone, PretextTask]:
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    config: PretrainRecipe = load_recipe(checkpoint.meta["recipe"]).recipe  # type: ignore[assignment]
    return config, *trained_networks(config, checkpoint)


def compare(errors: dict[str, np.ndarray], seed: int = 0) -> dict[str, Any]:
    """Median errors, and how many times smaller the pretrained one is, with standard errors over draws of videos."""
    count = len(errors["pretrained"])
    draws_RV = np.random.default_rng(seed).integers(count, size=(NUM_DRAWS, count))
    medians_R = {arm: np.median(values[draws_RV], axis=1) for arm, values in errors.items()}
    found: dict[str, Any] = {"videos": count}
    for arm, values in errors.items():
        found[arm] = {"median_cells": float(np.median(values)), "standard_error": float(medians_R[arm].std())}
        if arm != "pretrained":
            ratio_R = medians_R[arm] / medians_R["pretrained"]
            ratio = float(np.median(values) / np.median(errors["pretrained"]))
            found[arm] |= {"times_pretrained": ratio, "times_standard_error": float(ratio_R.std())}
    return found


def _columns(rows: Iterable[Mapping[str, float]]) -> dict[str, np.ndarray]:
    listed = list(rows)
    return {arm: np.array([row[arm] for row in listed]) for arm in listed[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, action="append", required=True)
    parser.add_argument(
        "--placebo", type=Path, action="append", default=[], help="a run's placebo, in the order of the runs"
    )
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--motions", nargs="+", default=list(MOTIONS))
    parser.add_argument("--gap", type=int, default=12, help="frames between the two")
    parser.add_argument("--frame-px", type=int, default=0, help="bring frames to this side; 0 leaves them as they are")
    args = parser.parse_args()
    manifest = Manifest.load(args.videos / "manifest.csv").select("test")
    rows = [row for row in manifest.rows if row.label in args.motions][: args.limit]
    report: dict[str, Any] = {
        "gap": args.gap,
        "frame_px": args.frame_px,
        "motions": args.motions,
        "environment": environment(),
        "runs": {},
    }
    for run, placebo in zip_longest(args.run, args.placebo):
        arms = arms_of(run, placebo)
        each = [(r.label, video_errors(r, args.videos, arms, args.gap, args.frame_px)) for r in rows]
        each = [(motion, errors) for motion, errors in each if not math.isnan(errors["random"])]
        found = compare(_columns(errors for _, errors in each))
        found["by_motion"] = {
            motion: {arm: float(np.median(v)) for arm, v in _columns(e for m, e in each if m == motion).items()}
            for motion in dict.fromkeys(motion for motion, _ in each)
        }
        report["runs"][str(run)] = found
        print(run, json.dumps(found), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "tracking.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
