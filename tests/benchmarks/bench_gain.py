"""What makes a gain over the placebo appear? One factor at a time, over seeds: length, videos, width, input, rate of the head.

Usage: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_gain RECIPE --out DIR [--seeds 5] [--at-once 2] [--settings NAME ...] [--set KEY=VALUE ...]
Example: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_gain smoke/speediness --out build/gain

Trains a recipe on tiny3d and its placebo on 200 synthetic videos of 64 px, as it is and with one thing changed, with the seeds 0, 1, ...
Asks every network for its own metric on 300 unseen videos and, by a linear probe trained on 200, which motion these show. What is
there is not done again, so that the command can be stopped and given again, for some settings or for all. Writes gain.md and gain.svg, of the
settings that are there: the curve over the length of training, each point beside its placebo and the untrained network.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import ssvid
from ssvid.data.index.signals import measure_signals_of
from ssvid.data.manifest import Manifest
from ssvid.data.synth import SyntheticVideos, synthesize
from ssvid.files import write_atomic
from ssvid.machine import environment
from ssvid.recipe.load import load_recipe
from ssvid.results.curves import Panel
from ssvid.results.rows import ResultRow, read_results
from ssvid.results.summaries import summarize, summarize_difference
from tests.benchmarks.bench_all_tasks import Job, train_all
from tests.benchmarks.bench_correspondence import cell
from tests.benchmarks.bench_smoke import ARMS, measure_run, signals_of
from tests.benchmarks.curves import draw_sheet

METRICS = ("probe_top1", "knn5_top1")
LENGTHS = {"as it is": 1, "4 times as long": 4, "16 times as long": 16}
NUM_VIDEOS, NUM_TEST = 200, 300
MORE = 4  # times as many videos
FEATURES = {
    "num_frames": 16,
    "num_clips": 1,
    "resize_px": 40,
    "crop_px": 40,
    "stages": "all",
    "pool": "avgmax",
    "workers": 1,
}


class Setting(NamedTuple):
    """One row. epochs, warmup_epochs: of its schedule. many: trained on four times as many videos."""

    epochs: int
    warmup_epochs: float
    overrides: tuple[str, ...] = ()
    many: bool = False

    def as_overrides(self) -> tuple[str, ...]:
        """Validated once, at the end: what it draws and measures in each epoch costs more than the training."""
        schedule = (f"optim.epochs={self.epochs}", f"optim.warmup_epochs={self.warmup_epochs:g}")
        return (
            *schedule,
            f"trainer.val_every_epochs={self.epochs}",
            "trainer.pictures=false",
            "loader.workers_per_device=0",
            *self.overrides,
        )


def settings_of(recipe: str, changed: Sequence[str]) -> dict[str, Setting]:
    """Name -> what is changed of a recipe on ``tiny3d``."""
    config: Any = load_recipe(recipe, changed, allow_missing=True).recipe
    epochs, warmup = config.optim.epochs, config.optim.warmup_epochs
    if config.backbone.name != "tiny3d" or epochs % MORE:
        raise SystemExit(f"{recipe}: a recipe on tiny3d whose epochs are a multiple of {MORE} is needed")
    other = "rgb" if config.backbone.options.get("input") == "difference" else "difference"
    longer = {name: Setting(epochs * times, warmup) for name, times in LENGTHS.items()}
    return longer | {
        "4 times as many videos, as many steps": Setting(epochs // MORE, warmup / MORE, many=True),
        "4 times as many videos, 4 times as long": Setting(epochs, warmup / MORE, many=True),
        "twice as wide a network": Setting(epochs, warmup, ("backbone.options.width=32",)),
        f"input {other}": Setting(epochs, warmup, (f"backbone.options.input={other}",)),
        "head learns 10 times as fast": Setting(epochs, warmup, ("optim.head_lr_factor=10",)),
    }


def run_of(name: str, arm: str, seed: int, out: Path) -> Path:
    return out / f"{name.replace(' ', '-').replace(',', '')}-{arm}{seed}"


def make_videos(out: Path, recipe: str) -> tuple[Path, Path]:
    """Those to train on and to ask about, and four times as many to train on."""
    folders = out / "videos", out / "more"
    for folder, wanted in zip(folders, ((NUM_VIDEOS, NUM_TEST), (MORE * NUM_VIDEOS, 0)), strict=True):
        if not folder.exists():
            synthesize(folder, SyntheticVideos(num_train=wanted[0], num_test=wanted[1], size_px=64))
        if signals_of(recipe):
            measure_signals_of(Manifest.load(folder / "manifest.csv"))
    return folders


def own_metrics(name: str, out: Path, seeds: int) -> dict[str, list[dict[str, float]]]:
    """Arm -> for each seed the task's own metrics on the test videos; measured once."""
    test = Manifest.load(out / "videos" / "manifest.csv").select("test")
    found: dict[str, list[dict[str, float]]] = {}
    for arm in ARMS:
        found[arm] = []
        for seed in range(seeds):
            told = run_of(name, arm, seed, out) / "own_metrics.json"
            if not told.exists():
                measured = measure_run(told.parent, test)
                told.write_text(json.dumps({metric: value["value"] for metric, value in measured.items()}))
            found[arm].append(json.loads(told.read_text()))
    return found


def probed(name: str, out: Path, seeds: int) -> list[ResultRow]:
    """All seeds beside their placebos and random networks; read where it is there."""
    folder = out / f"probe-{run_of(name, '', seeds, out).name}-seeds"
    if (folder / "results.json").is_file():
        return read_results(folder / "results.json")
    recipe = {
        "kind": "probe",
        "data": {"name": "manifest", "root": str(out / "videos")},
        "features": FEATURES,
        "probe": {"knn_ks": [5]},
        "baselines": {"histograms": False, "single_frame": False, "shuffled_frames": False},
    }
    networks: dict[str, Any] = {
        word: [run_of(name, arm, seed, out) for seed in range(seeds)]
        for word, arm in zip(("backbone", "placebo"), ARMS, strict=True)
    }
    return ssvid.probe(recipe, **networks, out=folder, device="cpu", show_progress=False).rows


def jobs_of(recipe: str, names: Sequence[str], folders: tuple[Path, Path], out: Path, args: Any) -> Iterator[Job]:
    settings = settings_of(recipe, args.set)
    for seed in range(args.seeds):
        for name in names:
            setting = settings[name]
            for arm, overrides in ARMS.items():
                words = (f"data.root={folders[setting.many]}", f"seed={seed}", *args.set, *setting.as_overrides())
                yield Job(recipe, (*words, *overrides), run_of(name, arm, seed, out))


def mean_and_error(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / len(values) ** 0.5:.3f}"


def report(recipe: str, names: Sequence[str], out: Path, seeds: int) -> str:
    """A table for each metric: rows, and the paired differences."""
    found = {name: (own_metrics(name, out, seeds), probed(name, out, seeds)) for name in names}
    known = found[names[0]][0]["pretrained"][0]
    metric = "accuracy" if "accuracy" in known else next(iter(known))
    lines = [f"\n**{metric}**, on {NUM_TEST} unseen videos; ± is the standard error over {seeds} seeds\n"]
    lines += ["| what is changed | pretrained | placebo | - placebo |", "|---|---|---|---|"]
    for name, (own, _) in found.items():
        trained, placebo = ([values[metric] for values in own[arm]] for arm in ARMS)
        gain = [a - b for a, b in zip(trained, placebo, strict=True)]
        lines.append(f"| {name} | " + " | ".join(map(mean_and_error, (trained, placebo, gain))) + " |")
    for probe in METRICS:
        lines += [f"\n**{probe}**, %; ± is the standard deviation over seeds, [..] the 95 % interval over videos\n"]
        lines += [
            "| what is changed | pretrained | placebo | random | - placebo | - random |",
            "|---|---|---|---|---|---|",
        ]
        for name, (_, rows) in found.items():
            mine = [row for row in rows if row.metric == probe and not row.name.startswith("random, ")]
            cells = {s.name: cell(s) for s in summarize(mine)}
            minus = [cell(summarize_difference(mine, "pretrained", other, probe)) for other in ("placebo", "random")]
            told = [*(cells[arm] for arm in ("pretrained", "placebo", "random")), *minus]
            lines.append(f"| {name} | " + " | ".join(told) + " |")
    lines.append("\n**CPU minutes** of one run\n")
    for name in names:
        spent = [
            float((run_of(name, arm, s, out) / "cpu_seconds").read_text()) / 60 for arm in ARMS for s in range(seeds)
        ]
        lines.append(f"* {name}: {min(spent):.1f} to {max(spent):.1f}")
    draw(recipe, {name: found[name] for name in LENGTHS if name in found}, metric, out)
    return "\n".join([*lines, f"\n`{environment()}`\n"])


def draw(recipe: str, found: dict[str, Any], metric: str, out: Path) -> None:
    """The curves over length: how many doublings of the training, and the mean over seeds."""
    lines: dict[str, dict[str, list[tuple[float, float]]]] = {metric: {}, "probe top-1": {}}
    for name, (own, rows) in found.items():
        doublings = float(np.log2(LENGTHS[name]))
        for arm in ARMS:
            lines[metric].setdefault(arm, []).append((doublings, float(np.mean([v[metric] for v in own[arm]]))))
        for summary in summarize([row for row in rows if row.metric == "probe_top1"]):
            if summary.name in (*ARMS, "random"):
                lines["probe top-1"].setdefault(summary.name, []).append((doublings, summary.value))
    panels = [Panel(f"{recipe}: {title}", drawn, along="doublings of the training") for title, drawn in lines.items()]
    write_atomic(out / "gain.svg", lambda file: file.write(draw_sheet(panels).encode()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--settings", nargs="*", default=[], help="names of rows, these alone (default: all)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes of the recipe, in all rows")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    names = args.settings or list(settings_of(args.recipe, args.set))
    folders = make_videos(args.out, args.recipe)
    train_all(list(jobs_of(args.recipe, names, folders, args.out, args)), args.at_once)
    text = report(args.recipe, names, args.out, args.seeds)
    write_atomic(args.out / "gain.md", lambda file: file.write(text.encode()))
    print(text)


if __name__ == "__main__":
    main()
