"""Does a smoke recipe learn its task within a minute? Its metrics on unseen appearances, beside its placebo, over seeds.

Usage: python -m tests.benchmarks.bench_smoke RECIPE --out DIR [--seeds 0 1 2] [--test 500]
Example: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_smoke smoke/speediness --out build/smoke_speediness

Makes the videos of the recipe's header once (400 to train on), and others of the split ``test``, which shares no scene
with them. Trains the recipe and its placebo for each seed, one after the other, as ``ssvid pretrain RECIPE`` does, and
then asks each network about the test videos: what a validation asks, once for each video. Writes smoke.json and smoke.md.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssvid.checkpoints import read_checkpoint
from ssvid.data.config import LoaderConfig
from ssvid.data.dataset import ClipDataset, tickets_of
from ssvid.data.loader import ClipLoader
from ssvid.data.manifest import Manifest
from ssvid.data.sampler import EvalBatches
from ssvid.data.signals import measure_signals_of
from ssvid.data.synth import synthesize
from ssvid.machine import environment
from ssvid.recipe.auditing import trained_networks
from ssvid.recipe.load import load_recipe
from ssvid.recipe.pretraining import build_networks
from ssvid.tasks import BatchRandom
from ssvid.types import Stream

ARMS = {"pretrained": (), "placebo": ("task.placebo=true",)}


def train(recipe: str, videos: Path, run: Path, *overrides: str) -> dict[str, float]:
    """One run of the command line in a process of its own: seconds on the wall and of all its processes' CPU time."""
    command = [sys.executable, "-m", "ssvid", "pretrain", recipe, f"data.root={videos}", *overrides]
    started, before = time.perf_counter(), _cpu_seconds()
    with open(f"{run}.log", "w") as log:
        subprocess.run([*command, "--run-dir", str(run)], check=True, stdout=log, stderr=log)
    return {"wall": time.perf_counter() - started, "cpu": _cpu_seconds() - before}


def _cpu_seconds() -> float:
    """Of all processes that this one has started and that have ended, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(run: Path, manifest: Manifest) -> dict[str, dict[str, float]]:
    """Metric -> value, its standard error over videos where it is a mean over them, and the number of videos."""
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    config = load_recipe(checkpoint.meta["recipe"]).recipe
    backbone, task = trained_networks(config, checkpoint)  # type: ignore[arg-type]
    backbone.eval()
    task.eval()
    dataset = ClipDataset(manifest, manifest.rows, task.clip_maker(training=False), seed=1, segment_seconds=math.inf)
    loader = ClipLoader(dataset, EvalBatches(len(dataset), 16, stream=Stream.EVAL), LoaderConfig(workers_per_device=1))
    whole, values = dict(task.epoch_metrics()), dict[str, list[float]]()
    with torch.inference_mode():
        for batch in loader:
            output = task(task.augment(batch, BatchRandom.of(1, tickets_of(batch))), backbone)
            for name, per_sample in output.metrics.items():
                values.setdefault(name, []).extend(per_sample.double().tolist())
            for name, metric in whole.items():
                metric.update(*output.scores[name])
    found = {
        name: {
            "value": float(np.mean(v)),
            "standard_error": float(np.std(v, ddof=1) / math.sqrt(len(v))),
            "videos": len(v),
        }
        for name, v in values.items()
    }
    return found | {name: {"value": float(metric.compute()), "videos": len(dataset)} for name, metric in whole.items()}


def signals_of(recipe: str) -> tuple[str, ...]:
    """The per-frame signals that the recipe's task plans from."""
    _, task = build_networks(load_recipe(recipe, allow_missing=True).recipe)  # type: ignore[arg-type]
    return tuple(getattr(task.clip_maker(training=True), "signals", ()))


def markdown(report: dict[str, Any]) -> str:
    """One table for each metric: a row per seed."""
    lines = []
    for metric in report["seeds"][0]["pretrained"]["metrics"]:
        chance = report["chance"].get(metric)
        lines += [f"\n## {metric}" + (f" (chance {chance:g})" if chance is not None else ""), ""]
        lines += [
            "| seed | pretrained | placebo | difference | training s (CPU) | placebo s (CPU) |",
            "|---|---|---|---|---|---|",
        ]
        for row in report["seeds"]:
            a, b = (row[arm]["metrics"][metric] for arm in ARMS)
            seconds = ["{wall:.0f} ({cpu:.0f})".format(**row[arm]["seconds"]) for arm in ARMS]
            told = [_told(a), _told(b), f"{a['value'] - b['value']:+.3f}", *seconds]
            lines.append(f"| {row['seed']} | " + " | ".join(told) + " |")
    return "\n".join(lines) + "\n"


def _told(found: dict[str, float]) -> str:
    error = found.get("standard_error")
    return f"{found['value']:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train", type=int, default=400)
    parser.add_argument("--test", type=int, default=500)
    args = parser.parse_args()
    videos = args.out / "videos"
    if not videos.exists():
        synthesize(videos, num_train=args.train, num_test=args.test)
    manifest = Manifest.load(videos / "manifest.csv")
    if signals_of(args.recipe):
        measure_signals_of(manifest)
    test = manifest.select("test")
    report: dict[str, Any] = {"recipe": args.recipe, "environment": environment(), "seeds": []}
    for seed in args.seeds:
        row: dict[str, Any] = {"seed": seed}
        for arm, overrides in ARMS.items():
            run = args.out / f"{arm}{seed}"
            seconds = train(args.recipe, videos, run, f"seed={seed}", *overrides)
            row[arm] = {"seconds": seconds, "metrics": measure(run, test)}
            print(seed, arm, row[arm], flush=True)
        report["seeds"].append(row)
        report["chance"] = read_checkpoint(run / "checkpoints" / "last.ckpt").meta["chance"]
        (args.out / "smoke.json").write_text(json.dumps(report, indent=2) + "\n")
        (args.out / "smoke.md").write_text(markdown(report))


if __name__ == "__main__":
    main()
