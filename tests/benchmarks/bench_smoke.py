"""Does a smoke recipe learn its task within a minute? Its metrics on unseen appearances, over seeds, beside its placebo and
the untrained network in the better of its two forms: as initialized, and with batch statistics of training clips.

Usage: python -m tests.benchmarks.bench_smoke RECIPE --out DIR [--seeds 0 1 2] [--test 500] [--clips 1] [--motions everyday --size 128 --seconds 3] [--set optim.epochs=16 ...]
Example: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_smoke smoke/speediness --out build/smoke_speediness

Makes the videos of the recipe's header once (400 to train on), and others of the split ``test``, which shares no scene
with them. Trains the recipe and its placebo for each seed, one after the other, as ``ssvid pretrain RECIPE`` does, and
then asks each network about the test videos: what a validation asks, once for each video (or --clips times). Writes smoke.json and smoke.md;
called again, it goes on with what is missing there.
"""

import argparse
import json
import math
import resource
import shutil
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ssvid.backbones import Backbone
from ssvid.backbones.batch_statistics import estimating
from ssvid.data.collection import split_rows
from ssvid.data.config import LoaderConfig
from ssvid.data.feed.dataset import ClipDataset, tickets_of
from ssvid.data.feed.loader import ClipLoader
from ssvid.data.feed.sampler import BatchLayout, EvalBatches, TrainBatches
from ssvid.data.index.signals import measure_signals_of
from ssvid.data.manifest import Manifest
from ssvid.data.synth import SyntheticVideos, synthesize
from ssvid.machine import environment
from ssvid.programs.pretrain import _prepare
from ssvid.programs.trained import trained_networks
from ssvid.recipe.building import build_networks
from ssvid.recipe.load import load_recipe
from ssvid.tasks import BatchRandom, PretextTask
from ssvid.train.monitors import smaller_metrics
from ssvid.train.untrained import AS_INITIALIZED, ESTIMATED, NUM_BATCHES, better_of
from ssvid.types import Stream
from ssvid.weights.checkpoints import read_checkpoint

ARMS = {"pretrained": (), "placebo": ("task.placebo=true",)}


def train(recipe: str, videos: Path, run: Path, *overrides: str) -> dict[str, float]:
    """One run of the command line in a process of its own: seconds on the wall and of all its processes' CPU time."""
    command = [sys.executable, "-m", "ssvid", "pretrain", recipe, f"data.root={videos}", *overrides]
    started, before = time.perf_counter(), _cpu_seconds()
    with open(f"{run}.log", "w") as log:
        subprocess.run([*command, "--run-dir", str(run)], check=True, stdout=log, stderr=log)
    return {"wall": time.perf_counter() - started, "cpu": _cpu_seconds() - before}


def train_once(recipe: str, videos: Path, run: Path, *overrides: str) -> dict[str, float]:
    """``train``, or what it took where that run is finished; an unfinished one is begun anew."""
    told = Path(f"{run}.seconds.json")
    if not told.exists():
        shutil.rmtree(run, ignore_errors=True)
        told.write_text(json.dumps(train(recipe, videos, run, *overrides)))
    seconds: dict[str, float] = json.loads(told.read_text())
    return seconds


def _cpu_seconds() -> float:
    """Of all processes that this one has started and that have ended, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def untrained(
    run: Path, manifest: Manifest, test: Manifest, num_clips: int = 1
) -> dict[str, dict[str, dict[str, float]]]:
    """Form -> what ``measure`` finds of the network before its first step; ``better`` takes the better value of each metric.

    run: of which the recipe is taken. manifest: holds the videos that it was trained on.
    """
    config: Any = load_recipe(read_checkpoint(run / "checkpoints" / "last.ckpt").meta["recipe"]).recipe
    backbone, task = build_networks(config)
    rows = split_rows(manifest, config.data, config.seed)[0].rows
    training = ClipDataset(manifest, rows, task.clip_maker(training=True), seed=config.seed)
    _prepare(task, SimpleNamespace(train_set=training))  # type: ignore[arg-type]
    forms = {AS_INITIALIZED: measure(backbone, task, test, num_clips)}
    layout = BatchLayout(config.loader.global_batch, clips_per_video=config.loader.clips_per_video)
    batches = TrainBatches(len(training), layout, seed=config.seed, position=lambda: (0, 0))
    networks = torch.nn.ModuleList([backbone, task]).train()
    with torch.no_grad(), estimating(networks):
        for batch in ClipLoader(training, list(islice(batches, NUM_BATCHES)), LoaderConfig(workers_per_device=1)):
            task(task.augment(batch, BatchRandom.of(config.seed, tickets_of(batch))), backbone)
    forms[ESTIMATED] = measure(backbone, task, test, num_clips)
    values = {form: {name: found["value"] for name, found in metrics.items()} for form, metrics in forms.items()}
    better = better_of(values, smaller_metrics(task))
    which = {name: next(form for form in forms if values[form][name] == value) for name, value in better.items()}
    return forms | {"better": {name: forms[form][name] for name, form in which.items()}}


def measure_run(run: Path, test: Manifest, num_clips: int = 1) -> dict[str, dict[str, float]]:
    """What ``measure`` finds of a trained network."""
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    config = load_recipe(checkpoint.meta["recipe"]).recipe
    return measure(*trained_networks(config, checkpoint), test, num_clips)  # type: ignore[arg-type]


def measure(
    backbone: Backbone, task: PretextTask, manifest: Manifest, num_clips: int = 1
) -> dict[str, dict[str, float]]:
    """Metric -> value, its standard error over videos where it is a mean over them, and the number of videos."""
    backbone.eval()
    task.eval()
    dataset = ClipDataset(manifest, manifest.rows, task.clip_maker(training=False), seed=1, segment_seconds=math.inf)
    batches = EvalBatches(len(dataset), 16, stream=Stream.EVAL, num_clips=num_clips)
    loader = ClipLoader(dataset, batches, LoaderConfig(workers_per_device=1))
    whole, values = dict(task.epoch_metrics()), dict[str, list[float]]()
    with torch.inference_mode():
        for batch in loader:
            output = task(task.augment(batch, BatchRandom.of(1, tickets_of(batch))), backbone)
            for name, per_sample in output.metrics.items():
                values.setdefault(name, []).extend(per_sample.double().tolist())
            for name, metric in whole.items():
                metric.update(*output.scores[name])
    means = {name: np.reshape(v, (num_clips, len(dataset))).mean(axis=0) for name, v in values.items()}
    found = {
        name: {
            "value": float(np.mean(v)),
            "standard_error": float(np.std(v, ddof=1) / math.sqrt(len(v))),
            "videos": len(v),
        }
        for name, v in means.items()
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
            "| seed | pretrained | placebo | untrained | the other form | CPU s of training |",
            "|---|---|---|---|---|---|",
        ]
        rows = [_columns(row, metric) for row in report["seeds"]]
        for row, found in zip(report["seeds"], rows, strict=True):
            told = [*map(_told, found), f"{row['pretrained']['seconds']['cpu']:.0f}"]
            lines.append(f"| {row['seed']} | " + " | ".join(told) + " |")
        columns = [[found["value"] for found in column] for column in zip(*rows, strict=True)]
        spread = [f"{np.mean(values):.3f}, sd {np.std(values, ddof=1):.3f}" for values in columns if len(values) > 1]
        lines += ["| mean | " + " | ".join(spread) + " | |"] if spread else []
    return "\n".join(lines) + "\n"


def _columns(row: dict[str, Any], metric: str) -> list[dict[str, float]]:
    """Pretrained, placebo, and the untrained network in its better and in its other form."""
    forms = row["untrained"]
    better = forms["better"][metric]
    other = next((forms[form][metric] for form in (ESTIMATED, AS_INITIALIZED) if forms[form][metric] != better), better)
    return [row["pretrained"]["metrics"][metric], row["placebo"]["metrics"][metric], better, other]


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
    parser.add_argument("--clips", type=int, default=1, help="of each test video; their mean counts once")
    parser.add_argument("--motions", default="everyday", help="as of ssvid data synth; so are --size and --seconds")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides, as for a longer training")
    args = parser.parse_args()
    videos = args.out / "videos"
    if not videos.exists():
        made = {"motions": args.motions, "size_px": args.size, "seconds": args.seconds}
        synthesize(videos, SyntheticVideos(num_train=args.train, num_test=args.test, **made))
    manifest = Manifest.load(videos / "manifest.csv")
    if signals_of(args.recipe):
        measure_signals_of(manifest)
    test = manifest.select("test")
    report: dict[str, Any] = {"recipe": args.recipe, "overrides": args.set, "environment": environment(), "seeds": []}
    if (args.out / "smoke.json").exists():
        report = json.loads((args.out / "smoke.json").read_text())
    done = [row["seed"] for row in report["seeds"]]
    for seed in (seed for seed in args.seeds if seed not in done):
        row: dict[str, Any] = {"seed": seed}
        for arm, overrides in ARMS.items():
            run = args.out / f"{arm}{seed}"
            seconds = train_once(args.recipe, videos, run, f"seed={seed}", *overrides, *args.set)
            row[arm] = {"seconds": seconds, "metrics": measure_run(run, test, args.clips)}
            print(seed, arm, row[arm], flush=True)
        row["untrained"] = untrained(args.out / f"pretrained{seed}", manifest, test, args.clips)
        print(seed, "untrained", row["untrained"]["better"], flush=True)
        report["seeds"].append(row)
        report["chance"] = read_checkpoint(run / "checkpoints" / "last.ckpt").meta["chance"]
        (args.out / "smoke.json").write_text(json.dumps(report, indent=2) + "\n")
        (args.out / "smoke.md").write_text(markdown(report))


if __name__ == "__main__":
    main()
