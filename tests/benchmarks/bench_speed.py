"""Curves, speed-ups and films of ``ssvid speed`` against videos whose speed is known; docs/results/speed.md.

    .venv/bin/python -m tests.benchmarks.bench_speed RUN [RUN ...] [--slowed] [--trained-alone]

Each RUN is a run of the task speediness; beside each stands the same network before training. Frame differences alone stand beside
all of them: the mean |frame t - frame t-1| of a window, with the threshold that tells natural from twice as fast best on 20 other
scenes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit
from scipy.stats import spearmanr

from ssvid.apps.asking import Asker
from ssvid.apps.speedup import SpeedUpConfig
from ssvid.programs.speed_curves import ArrayVideo, Asked, CurveConfig, load_asker
from ssvid.recipe.building import build_networks
from ssvid.recipe.load import load_recipe
from ssvid.tasks import ClipAnswer
from ssvid.video.schedules import SLOWED, SPEEDS, Scheduled, scheduled_video
from ssvid.video.synthetic_motions import MOTIONS
from ssvid.weights.checkpoints import read_checkpoint

FIRST_SEED, SIZE_PX, FACTOR = 9000, 64, 2.0
CALIBRATION_SEED = 9500


class Differences(torch.nn.Module):
    """No network: a clip is sped up where its frames differ more than ``threshold`` from one to the next."""

    def __init__(self, question, threshold: float, scale: float) -> None:
        super().__init__()
        self.question, self.threshold, self.scale = question, threshold, scale

    def clip_question(self):
        return self.question

    def answer(self, clips_BCTHW, backbone) -> ClipAnswer:
        differences_B = clips_BCTHW.diff(dim=2).abs().mean(dim=(1, 2, 3, 4))
        none = torch.zeros(len(differences_B), 1, 1, 1)
        return ClipAnswer((differences_B - self.threshold) / self.scale, 0.0, none, none, none)


def videos(count: int, first_seed: int, speeds: Sequence[float] = SPEEDS) -> list[Scheduled]:
    kinds = [MOTIONS[i % len(MOTIONS)] for i in range(count)]
    return [scheduled_video(kind, first_seed + i, size_px=SIZE_PX, speeds=speeds) for i, kind in enumerate(kinds)]


def differences(asker: Asker, count: int) -> Asker:
    """Calibrated on other scenes: natural clips below, those at twice the speed above."""
    plain = replace(asker, task=Differences(asker.question, 0.0, 1.0))
    slow, fast = [], []
    for made in videos(count, CALIBRATION_SEED):
        watched = Asked.of(ArrayVideo(made.frames_THWC, made.fps), plain, CurveConfig()).watch(lambda done, total: None)
        middles = watched.heard.answers[0].starts + asker.window // 2
        values, speeds = watched.heard.answers[0].logits, made.speeds_T[middles]
        slow += values[(speeds > 0.8) & (speeds < 1.25)].tolist()
        fast += values[speeds > 1.7].tolist()
    tried = np.sort([*slow, *fast])
    right = [(np.array(slow) < t).mean() + (np.array(fast) >= t).mean() for t in tried]
    return replace(asker, task=Differences(asker.question, float(tried[int(np.argmax(right))]), float(np.std(tried))))


def untrained(asker: Asker, run: Path) -> Asker:
    """The same network as its seed made it."""
    trained = read_checkpoint(run / "checkpoints" / "last.ckpt")
    config = load_recipe(trained.meta["recipe"], (), kind="pretrain").recipe
    backbone, task = build_networks(replace(config, init_from=""))
    return replace(asker, task=task, backbone=backbone)


def score(asker: Asker, made: Scheduled) -> dict[str, float]:
    """Of one video: rank correlation of curve and speed, |log2 V| against the truth, and probabilities after a speed-up."""
    speed, settings = SpeedUpConfig(), CurveConfig()
    asked = Asked.of(ArrayVideo(made.frames_THWC, made.fps), asker, settings)
    watched = asked.watch(lambda done, total: None, speed.factors)
    sped = watched.sped_up(round(len(made.speeds_T) / FACTOR), speed)
    told = {
        "rank": float(spearmanr(sped.curve.probs_T, made.speeds_T).statistic),
        "log2_error": float(np.abs(np.log2(sped.natural_N) - np.log2(made.natural_factors)).mean()),
    }
    for name, shown in (("adaptive", sped.film_frames), ("uniform", sped.uniform_frames)):
        film = Asked.of(ArrayVideo(made.frames_THWC[shown], made.fps), asker, settings)
        told[name] = float(expit(film.watch(lambda done, total: None).heard.answers[0].logits).mean())
    return told


def mean(values: Sequence[float]) -> str:
    array = np.array(values)
    return f"{np.nanmean(array):+.3f} se {np.nanstd(array, ddof=1) / np.sqrt(len(array)):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--slowed", action="store_true", help="videos with slow motion and nothing faster than natural")
    parser.add_argument("--trained-alone", action="store_true", help="nothing beside")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    made = videos(args.videos, FIRST_SEED, SLOWED if args.slowed else SPEEDS)
    found: dict[str, list[dict[str, float]]] = {}
    for run in args.runs:
        asker = load_asker(run, CurveConfig(), "cpu")
        subjects = {f"{run.name} trained": asker}
        if not args.trained_alone:
            subjects[f"{run.name} untrained"] = untrained(asker, run)
            if "differences" not in found:
                subjects["differences"] = differences(asker, args.videos)
        for name, subject in subjects.items():
            found[name] = [score(subject, one) for one in made]
            print(name, {key: mean([line[key] for line in found[name]]) for key in found[name][0]}, flush=True)
        ours = found[f"{run.name} trained"]
        print(run.name, "adaptive - uniform", mean([line["adaptive"] - line["uniform"] for line in ours]), flush=True)
    print(f"log2 error of V = 1: {np.mean([np.log2(one.natural_factors).mean() for one in made]):.3f}")
    for run in [] if args.trained_alone else args.runs:
        ours = found[f"{run.name} trained"]
        for other in (f"{run.name} untrained", "differences"):
            for key in ("rank", "log2_error"):
                gaps = [a[key] - b[key] for a, b in zip(ours, found[other], strict=True)]
                print(run.name, "-", other, key, mean(gaps))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
