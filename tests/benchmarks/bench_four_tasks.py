"""The table of the four tasks: what each is worth under one program and one protocol, beside its random and placebo rows.

Usage: OMP_NUM_THREADS=1 SSVID_REAL_DATA=DIR python -m tests.benchmarks.bench_four_tasks --out DIR [--seeds 5] [--at-once 2]

Trains the smoke recipe of every task, two of them jointly, and the placebo of each, over seeds; probes all on the synthetic
motions and on Weizmann (three folds that each leave three subjects out); lets all follow masks and points through synthetic
videos; audits the first seed. What is there is not done again, so that the command can be stopped and given again. Writes
four_tasks.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import ssvid
from ssvid.data.collection import load_manifest
from ssvid.data.index.scan_cache import cache_folder
from ssvid.data.index.signals import measure_signals_of
from ssvid.data.manifest import Manifest
from ssvid.data.synth import SyntheticVideos, synthesize
from ssvid.evals.contract import LabeledData, Subject, Tools
from ssvid.evals.measuring import see
from ssvid.exports import load_backbone
from ssvid.files import write_atomic
from ssvid.machine import environment
from ssvid.programs.scored_videos import scored_rows
from ssvid.protocols.metrics import title_of
from ssvid.recipe.find import find_recipe
from ssvid.recipe.load import load_recipe
from ssvid.recipe.yaml_text import parse_yaml
from ssvid.results.rows import ResultRow, read_results
from ssvid.results.summaries import summarize, summarize_difference
from tests.benchmarks.bench_correspondence import cell, follow_all, synthetic_videos
from tests.benchmarks.bench_harness import weizmann_lists
from tests.benchmarks.bench_smoke import ARMS

TASKS = ("speediness", "order_verification", "colorization", "cycle_consistency")
JOINT = "speediness + order_verification"
METRICS = ("probe_top1", "knn5_top1", "recall_at_1")
FEATURES = {
    "num_frames": 16,
    "num_clips": 2,
    "resize_px": 64,
    "crop_px": 56,
    "stages": "all",
    "pool": "avgmax",
    "workers": 1,
}
ANCHORS = {"histograms": True, "single_frame": False, "shuffled_frames": False}
NUM_TRACKED = 25  # videos in which masks and points are followed; bench_correspondence takes 100
TRACKED_METRICS = ("davis_jf", "tapvid_delta")
CUES = "static,noise,shuffled,foreign,shifted,reencoded,border"  # those of the audit that say most for their minutes


class Job(NamedTuple):
    """A run to train. recipe: a name or a file."""

    recipe: str
    overrides: tuple[str, ...]
    run: Path


def joint_recipe(out: Path) -> str:
    """Speediness and order verification on one network: their smoke recipes, both losses in each step."""
    parts = [parse_yaml(find_recipe(f"smoke/{name}").read_text(), name) for name in JOINT.split(" + ")]
    recipe = {k: v for k, v in parts[0].items() if k != "task"}
    recipe["tasks"] = [{"name": part["task"]["name"], "options": part["task"]["options"]} for part in parts]
    path = out / "joint.yaml"
    path.write_text(json.dumps(recipe))  # JSON is YAML
    return str(path)


def name_of(row: str, arm: str, seed: int) -> str:
    return f"{row.replace(' + ', '-')}-{arm}{seed}"


def train_all(jobs: Sequence[Job], at_once: int) -> None:
    """Each run in a process of its own, so many at once; CPU seconds of all its processes go into cpu_seconds beside it."""
    waiting = [job for job in jobs if not (job.run / "results.json").is_file()]
    running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            job = waiting.pop(0)
            resume = (
                [str(job.run), "--resume"]
                if job.run.is_dir()
                else [job.recipe, *job.overrides, "--run-dir", str(job.run)]
            )
            with open(f"{job.run}.log", "ab") as log:
                started = subprocess.Popen([sys.executable, "-m", "ssvid", "pretrain", *resume], stdout=log, stderr=log)
            running[started.pid] = (job, started)
        pid, status, used = os.wait3(0)
        if pid not in running:  # a process that had scanned videos, and has ended
            continue
        job, process = running.pop(pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{job.run} ended with code {process.returncode}; see {job.run}.log")
        (job.run / "cpu_seconds").write_text(f"{used.ru_utime + used.ru_stime:.1f}")
        print(f"{time.strftime('%H:%M:%S')} {job.run.name}: {used.ru_utime + used.ru_stime:.0f} CPU s", flush=True)


def probe_recipe(data: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "probe", "data": data, "features": FEATURES, "probe": {"knn_ks": [5]}, "baselines": ANCHORS}


def read_all(rows: Sequence[str], out: Path, seeds: int, data: dict[str, Any]) -> None:
    """The features of all networks from one reading of the videos; the probes find them in the cache."""
    config: Any = load_recipe(probe_recipe(data), kind="probe").recipe
    manifest = load_manifest(config.data)
    names = [name_of(row, arm, seed) for row in rows for arm in ARMS for seed in range(seeds)]
    subjects = [Subject(name, load_backbone(out / name), config.features) for name in names]
    videos = LabeledData.checked(manifest, *scored_rows(manifest))
    see(subjects, videos, Tools(cache_dir=cache_folder() / "features", say=lambda text: print(text, flush=True)))


def evaluate(row: str, out: Path, seeds: int, data: dict[str, Any], name: str) -> list[ResultRow]:
    """Every seed beside its placebo and its random row; read where it is there."""
    folder = out / f"probe-{row.replace(' + ', '-')}-{name}"
    if (folder / "results.json").is_file():
        return read_results(folder / "results.json")
    runs, placebos = ([out / name_of(row, arm, seed) for seed in range(seeds)] for arm in ARMS)
    return ssvid.probe(
        probe_recipe(data), backbone=runs, placebo=placebos, out=folder, device="cpu", show_progress=False
    ).rows


def tracked(row: str, out: Path, seeds: int) -> list[ResultRow]:
    """Every seed beside its placebo, its random row, and what needs no network; read where it is there."""
    runs, placebos = ([out / name_of(row, arm, seed) for seed in range(seeds)] for arm in ARMS)
    folder = out / f"followed-{row.replace(' + ', '-')}"
    return follow_all(folder, synthetic_videos(out / "tracked", NUM_TRACKED), runs, placebos)


def audited(row: str, arm: str, out: Path) -> str:
    """The first seed on unchanged clips, and what the audit concludes of it."""
    run = out / name_of(row, arm, 0)
    folder = out / f"audit-{run.name}"
    if not (folder / "audit.json").is_file():
        words = ["audit", "--checkpoint", str(run), "--split", "test", "--only", CUES]
        subprocess.run([sys.executable, "-m", "ssvid", *words, "--out", str(folder)], check=True)
    found = json.loads((folder / "audit.json").read_text())
    low, high = found["clean_interval"]
    score = f"{found['metric']} {100 * found['clean']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    return "; ".join([f"{score}, chance {100 * found['chance']:.0f}", *found["conclusions"]])


def tables(
    found: dict[str, list[ResultRow]], metrics: Sequence[str] = METRICS, others: Sequence[str] = ("histograms",)
) -> Iterator[str]:
    """One table for each metric: a line for each task, its rows and the paired differences."""
    for metric in metrics:
        yield f"\n**{title_of(metric)}**, %\n"
        head = ["task", "pretrained", "placebo", "random", *others, "- placebo", "- random"]
        yield "| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|"
        for row, rows in found.items():
            mine = [r for r in rows if r.metric == metric and not r.name.startswith("random, ")]
            cells = {s.name: cell(s) for s in summarize(mine)}
            minus = [summarize_difference(mine, "pretrained", other, metric) for other in ("placebo", "random")]
            told = [cells.get(name, "-") for name in ("pretrained", "placebo", "random", *others)]
            yield f"| {row} | " + " | ".join([*told, *(cell(m) for m in minus)]) + " |"


def weizmann_rows(row: str, out: Path, seeds: int, folds: Sequence[dict[str, Any]]) -> list[ResultRow]:
    rows = []
    for fold, data in enumerate(folds, 1):
        found = evaluate(row, out, seeds, data, f"weizmann{fold}")
        rows += [replace(r, context={**r.context, "fold": fold}) for r in found]
    return rows


def cpu_minutes(row: str, out: Path, seeds: int) -> str:
    files = [out / name_of(row, arm, seed) / "cpu_seconds" for arm in ARMS for seed in range(seeds)]
    spent = [float(file.read_text()) / 60 for file in files if file.is_file()]
    return f"{min(spent):.1f} to {max(spent):.1f}" if spent else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--only", nargs="*", default=[], help="evaluate and audit these tasks alone, without a table")
    args = parser.parse_args()
    out, real = args.out, Path(os.environ["SSVID_REAL_DATA"])
    out.mkdir(parents=True, exist_ok=True)
    videos = out / "videos"
    if not videos.exists():
        synthesize(videos, SyntheticVideos(num_train=400, num_test=600))
    manifest = Manifest.load(videos / "manifest.csv")
    measure_signals_of(manifest)
    rows = {**{name: f"smoke/{name}" for name in TASKS}, JOINT: joint_recipe(out)}
    train_all(
        [
            Job(recipe, (f"data.root={videos}", f"seed={seed}", *overrides), out / name_of(row, arm, seed))
            for seed in range(args.seeds)
            for row, recipe in rows.items()
            for arm, overrides in ARMS.items()
        ],
        args.at_once,
    )
    if args.train_only:
        return
    synthetic = {"name": "manifest", "root": str(videos)}
    folds = [
        {"name": "list", "root": str(real / "weizmann"), "list": str(listed)} for listed in weizmann_lists(real, out)
    ]
    for data in (synthetic, *folds):
        read_all(list(rows), out, args.seeds, data)
    for row in args.only:
        evaluate(row, out, args.seeds, synthetic, "synthetic")
        tracked(row, out, args.seeds)
        weizmann_rows(row, out, args.seeds, folds)
        for arm in ARMS:
            audited(row, arm, out)
    if args.only:
        return
    sets = {
        "Synthetic motions: 400 training and 600 test videos": {
            row: evaluate(row, out, args.seeds, synthetic, "synthetic") for row in rows
        },
        "Weizmann: three folds, each leaving three subjects out": {
            row: weizmann_rows(row, out, args.seeds, folds) for row in rows
        },
    }
    parts = [f"\n## {title}\n" + "\n".join(tables(found)) for title, found in sets.items()]
    followed = {row: tracked(row, out, args.seeds) for row in rows}
    parts.append(f"\n## Masks and points followed through {NUM_TRACKED} synthetic videos\n")
    parts += tables(followed, TRACKED_METRICS, ("identity", "raw pixels", "optical flow"))
    parts.append("\n## Audit of the first seed\n")
    parts += [f"* {row}, {arm}: {audited(row, arm, out)}" for row in rows for arm in ARMS]
    parts.append("\n## Cost of one run, CPU minutes\n")
    parts += [f"* {row}: {cpu_minutes(row, out, args.seeds)}" for row in rows]
    parts.append(f"\n`{environment()}`\n")
    write_atomic(out / "four_tasks.md", lambda file: file.write("\n".join(parts).encode()))
    print("\n".join(parts))


if __name__ == "__main__":
    main()
