"""The table of all tasks: what each is worth under one program and one protocol, beside its random and placebo rows.

Usage: OMP_NUM_THREADS=1 SSVID_REAL_DATA=DIR python -m tests.benchmarks.bench_all_tasks --out DIR [--seeds 3] [--at-once 2] [--rows NAME ...]

Trains the smoke recipe of every task, three pairs of tasks jointly, and the placebo of each, on the same synthetic videos, over
seeds. Probes all on those motions and on Weizmann (three folds that each leave three subjects out), lets all follow masks and
points through synthetic videos and align synthetic actions, and audits the first seed. What is there is not done again, so that
the command can be stopped and given again, for some rows or for all. Writes all_tasks.md, of the rows that are there.
"""

import argparse
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

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
from ssvid.tasks import list_tasks
from tests.benchmarks.bench_correspondence import cell, follow_all, synthetic_videos
from tests.benchmarks.bench_harness import weizmann_lists
from tests.benchmarks.bench_smoke import ARMS

PAIRS = ("speediness + order_verification", "speediness + clip_contrast", "cycle_consistency + colorization")
LONGER = {"cubic_puzzle": ("optim.epochs=12",)}  # tasks that a minute is too short for: docs/tasks
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
NUM_TRACKED = 10  # videos in which masks and points are followed; bench_correspondence takes 100
NUM_ALIGNED = 30  # videos of each split whose moments are aligned
NUM_AUDITED = 150  # clips; ssvid audit takes 1000
CUES = "static,noise,shuffled,reencoded"  # those of the audit that say most for their minutes


class Question(NamedTuple):
    """A part of the table. rows: line -> results. others: rows that need no trained network."""

    title: str
    metrics: tuple[str, ...]
    others: tuple[str, ...]
    rows: dict[str, list[ResultRow]]


class Job(NamedTuple):
    """A run to train. recipe: a name or a file."""

    recipe: str
    overrides: tuple[str, ...]
    run: Path


def lines_of_table() -> list[str]:
    """Every task, and the pairs."""
    return [*list_tasks(), *PAIRS]


def recipe_of(line: str, out: Path) -> str:
    """The smoke recipe; of a pair that of the first task, with the tasks of both, their losses added in each step."""
    names = line.split(" + ")
    if len(names) == 1:
        return f"smoke/{line}"
    parts = [parse_yaml(find_recipe(f"smoke/{name}").read_text(), name) for name in names]
    recipe = {k: v for k, v in parts[0].items() if k != "task"}
    recipe["tasks"] = [{"name": part["task"]["name"], "options": part["task"]["options"]} for part in parts]
    path = out / f"{slug(line)}.yaml"
    path.write_text(json.dumps(recipe))  # JSON is YAML
    return str(path)


def slug(line: str) -> str:
    return line.replace(" + ", "-")


def run_of(line: str, arm: str, seed: int, out: Path) -> Path:
    return out / f"{slug(line)}-{arm}{seed}"


def runs_of(line: str, out: Path, seeds: int) -> dict[str, list[Path]]:
    """The two arms, as arguments of an evaluation."""
    return {
        word: [run_of(line, arm, seed, out) for seed in range(seeds)]
        for word, arm in zip(("backbone", "placebo"), ARMS, strict=True)
    }


def jobs_of(lines: Sequence[str], videos: Path, out: Path, seeds: int) -> list[Job]:
    """Seed by seed, so that a stopped command has whole tables of fewer seeds."""
    return [
        Job(
            recipe_of(line, out),
            (f"data.root={videos}", f"seed={seed}", *LONGER.get(line, ()), *overrides),
            run_of(line, arm, seed, out),
        )
        for seed in range(seeds)
        for line in lines
        for arm, overrides in ARMS.items()
    ]


def train_all(jobs: Sequence[Job], at_once: int) -> None:
    """The runs that are not there yet, so many at once, each begun or gone on with; its CPU seconds go into cpu_seconds."""
    waiting = [job for job in jobs if not (job.run / "results.json").is_file()]
    with ProcessPoolExecutor(at_once, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(train_one, job) for job in waiting]):
            print(f"{time.strftime('%H:%M:%S')} {done.result()}", flush=True)


def train_one(job: Job) -> str:
    """Train, and say what it took, the processes included that read the videos; imports, done once for many runs, are not counted."""
    # Readers that import everything again would take as long as an epoch.
    multiprocessing.set_start_method("fork", force=True)
    began = cpu_seconds()
    ssvid.pretrain(job.recipe, *job.overrides, run_dir=job.run, resume=True, show_progress=False)
    (job.run / "cpu_seconds").write_text(f"{cpu_seconds() - began:.1f}")
    return f"{job.run.name}: {cpu_seconds() - began:.0f} CPU s"


def cpu_seconds() -> float:
    """Of this process and of those that it has started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def probe_recipe(data: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "probe", "data": data, "features": FEATURES, "probe": {"knn_ks": [5]}, "baselines": ANCHORS}


def read_all(lines: Sequence[str], out: Path, seeds: int, data: dict[str, Any]) -> None:
    """The features of all networks from one reading of the videos; the probes find them in the cache."""
    config: Any = load_recipe(probe_recipe(data), kind="probe").recipe
    manifest = load_manifest(config.data)
    runs = [run for line in lines for part in runs_of(line, out, seeds).values() for run in part]
    subjects = [Subject(run.name, load_backbone(run), config.features) for run in runs]
    videos = LabeledData.checked(manifest, *scored_rows(manifest))
    see(subjects, videos, Tools(cache_dir=cache_folder() / "features", say=lambda text: print(text, flush=True)))


def probed(line: str, out: Path, seeds: int, data: dict[str, Any], name: str) -> list[ResultRow]:
    """Every seed beside its placebo and its random row; read where it is there."""
    folder = out / f"probe-{slug(line)}-{name}"
    if (folder / "results.json").is_file():
        return read_results(folder / "results.json")
    runs: dict[str, Any] = runs_of(line, out, seeds)
    return ssvid.probe(probe_recipe(data), **runs, out=folder, device="cpu", show_progress=False).rows


def weizmann_rows(line: str, out: Path, seeds: int, folds: Sequence[dict[str, Any]]) -> list[ResultRow]:
    rows = []
    for fold, data in enumerate(folds, 1):
        found = probed(line, out, seeds, data, f"weizmann{fold}")
        rows += [replace(r, context={**r.context, "fold": fold}) for r in found]
    return rows


def tracked(line: str, out: Path, seeds: int) -> list[ResultRow]:
    """Every seed beside its placebo, its random row, and what needs no network; read where it is there."""
    runs = runs_of(line, out, seeds)
    videos = synthetic_videos(out / "tracked", NUM_TRACKED)
    return follow_all(out / f"followed-{slug(line)}", videos, runs["backbone"], runs["placebo"])


def aligned(line: str, out: Path, seeds: int) -> list[ResultRow]:
    """As ``tracked``, of moments of actions whose phases are known."""
    folder, videos = out / f"aligned-{slug(line)}", out / "actions"
    if (folder / "results.json").is_file():
        return read_results(folder / "results.json")
    if not videos.exists():
        wanted = SyntheticVideos(num_train=NUM_ALIGNED, num_test=NUM_ALIGNED, motions="actions", size_px=64)
        synthesize(videos, wanted)
    runs: dict[str, Any] = runs_of(line, out, seeds)
    recipe = ("alignment/synthetic", f"data.root={videos}")
    return ssvid.probe(*recipe, **runs, out=folder, device="cpu", show_progress=False).rows


def audited(line: str, arm: str, out: Path) -> str:
    """The first seed on unchanged clips, and what the audit concludes of it."""
    run = run_of(line, arm, 0, out)
    folder = out / f"audit-{run.name}"
    if not (folder / "audit.json").is_file():
        words: dict[str, Any] = {"only": CUES, "num_clips": NUM_AUDITED, "workers": 1, "device": "cpu"}
        ssvid.audit(checkpoint=run, split="test", **words, out=folder, show_progress=False)
    found = json.loads((folder / "audit.json").read_text())
    low, high = found["clean_interval"]
    score = f"{found['metric']} {100 * found['clean']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    return "; ".join([f"{score}, chance {100 * found['chance']:.0f}", *found["conclusions"]])


def tables(question: Question) -> Iterator[str]:
    """One table for each metric: a line for each task, its rows and the paired differences."""
    for metric in question.metrics:
        yield f"\n**{title_of(metric)}**, %\n"
        head = ["task", "pretrained", "placebo", "random", *question.others, "- placebo", "- random"]
        yield "| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|"
        for line, rows in question.rows.items():
            mine = [r for r in rows if r.metric == metric and not r.name.startswith("random, ")]
            cells = {s.name: cell(s) for s in summarize(mine)}
            minus = [summarize_difference(mine, "pretrained", other, metric) for other in ("placebo", "random")]
            told = [cells.get(name, "-") for name in ("pretrained", "placebo", "random", *question.others)]
            yield f"| {line} | " + " | ".join([*told, *(cell(m) for m in minus)]) + " |"


def cost(line: str, out: Path, seeds: int) -> str:
    """CPU minutes of one run, the median over seeds and arms, and what it trains."""
    runs = [run_of(line, arm, seed, out) for arm in ARMS for seed in range(seeds)]
    spent = [float((run / "cpu_seconds").read_text()) / 60 for run in runs if (run / "cpu_seconds").is_file()]
    backbone: Any = load_recipe(recipe_of(line, out), allow_missing=True).recipe.backbone  # type: ignore[union-attr]
    network = ", ".join([backbone.name, *(f"{k} {v}" for k, v in (backbone.options or {}).items())])
    return f"{np.median(spent):.1f}; {network}" if spent else f"not known; {network}"


def whole_table(lines: Sequence[str], out: Path, seeds: int, folds: Sequence[dict[str, Any]]) -> str:
    """All parts, of results that are there."""
    synthetic = {"name": "manifest", "root": str(out / "videos")}
    probes = ("probe_top1", "knn5_top1", "recall_at_1")
    questions = [
        Question(
            "Which motion: synthetic motions, 400 training and 600 test videos",
            probes,
            ("histograms",),
            {line: probed(line, out, seeds, synthetic, "synthetic") for line in lines},
        ),
        Question(
            "Which action: Weizmann, three folds that each leave three subjects out",
            probes,
            ("histograms",),
            {line: weizmann_rows(line, out, seeds, folds) for line in lines},
        ),
        Question(
            f"Where did it go: masks and points followed through {NUM_TRACKED} synthetic videos",
            ("davis_jf", "tapvid_delta"),
            ("identity", "raw pixels", "optical flow"),
            {line: tracked(line, out, seeds) for line in lines},
        ),
        Question(
            f"Which moment: {NUM_ALIGNED} synthetic actions aligned with one another",
            ("alignment_tau", "alignment_phase", "alignment_ap@5"),
            ("position only",),
            {line: aligned(line, out, seeds) for line in lines},
        ),
    ]
    parts = [f"\n## {question.title}\n" + "\n".join(tables(question)) for question in questions]
    parts.append("\n## Audit of the first seed\n")
    parts += [f"* {line}, {arm}: {audited(line, arm, out)}" for arm in ARMS for line in lines]
    parts.append("\n## Cost of one run in CPU minutes, and its network\n")
    parts += [f"* {line}: {cost(line, out, seeds)}" for line in lines]
    return "\n".join([*parts, f"\n`{environment()}`\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--rows", nargs="*", default=[], choices=lines_of_table(), help="these alone (default: all)")
    parser.add_argument("--train-only", action="store_true")
    args = parser.parse_args()
    out, real = args.out, Path(os.environ["SSVID_REAL_DATA"])
    lines = args.rows or lines_of_table()
    out.mkdir(parents=True, exist_ok=True)
    videos = out / "videos"
    if not videos.exists():
        synthesize(videos, SyntheticVideos(num_train=400, num_test=600))
    measure_signals_of(Manifest.load(videos / "manifest.csv"))
    train_all(jobs_of(lines, videos, out, args.seeds), args.at_once)
    if args.train_only:
        return
    folds = [
        {"name": "list", "root": str(real / "weizmann"), "list": str(listed)} for listed in weizmann_lists(real, out)
    ]
    for data in ({"name": "manifest", "root": str(videos)}, *folds):
        read_all(lines, out, args.seeds, data)
    table = whole_table(lines, out, args.seeds, folds)
    write_atomic(out / "all_tasks.md", lambda file: file.write(table.encode()))
    print(table)


if __name__ == "__main__":
    main()
