"""The evaluation harness on real videos: every baseline, the smoke backbones, fine-tuning from random and from pretrained.

Usage: SSVID_REAL_DATA=DIR python -m tests.benchmarks.bench_harness --out DIR --runs speediness=RUN,PLACEBO [NAME=RUN,PLACEBO ...]
Example: --runs speediness=build/smoke_speediness/pretrained0,build/smoke_speediness/placebo0

Weizmann (10 actions of 9 subjects), leaving subjects out: three folds, each of whose test subjects occur in no training
video. The UCF101 pack (28 classes with at least two groups), test groups disjoint from training groups. RUN and PLACEBO are
run folders of one network. What is there is not done again. Writes harness.md with the tables, and every results.json below --out.
"""

import argparse
import csv
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ssvid
from ssvid.machine import environment
from ssvid.programs.outcome import summary_rows
from ssvid.results.rows import ResultRow, read_results, render_table
from ssvid.results.summaries import summarize, summarize_difference

TRIPLES = (("daria", "denis", "eli"), ("ido", "ira", "lena"), ("lyova", "moshe", "shahar"))
FEATURES = {"num_frames": 16, "num_clips": 4, "resize_px": 64, "crop_px": 56, "stages": "all", "pool": "avgmax"}
TUNING = (
    "finetune.resize_px=64",
    "finetune.crop_px=56",
    "loader.workers_per_device=1",
    "trainer.threads=1",
)  # else as shipped


def write_list(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split", "group"), *rows])
    return path


def weizmann_lists(real: Path, out: Path) -> list[Path]:
    """A list for each fold; a fold tests all videos of three subjects."""
    with open(real / "splits/pack/weizmann_subject_split.csv") as file:
        videos = [(row["file"], row["class"], row["subject"]) for row in csv.DictReader(file)]
    if {subject for _, _, subject in videos} != {s for triple in TRIPLES for s in triple}:
        raise ValueError(f"the subjects are {sorted({s for _, _, s in videos})}")
    return [
        write_list(out / f"weizmann{fold}.csv", [(f, c, "test" if s in triple else "train", s) for f, c, s in videos])
        for fold, triple in enumerate(TRIPLES, 1)
    ]


def ucf101_list(real: Path, out: Path) -> Path:
    """The pack's own group-disjoint split."""
    with open(real / "splits/pack/ucf101_pack_index.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["pack_group_split"]]
    return write_list(
        out / "ucf101.csv",
        [(r["file"], r["class"], r["pack_group_split"], f"{r['class']}/g{r['group']}") for r in rows],
    )


def data(root: Path, videos: Path) -> dict[str, Any]:
    return {"name": "list", "root": str(root), "list": str(videos)}


def probed(name: str, run: str, placebo: str, root: Path, lists: Sequence[Path], out: Path) -> Iterator[ResultRow]:
    for fold, videos in enumerate(lists, 1):
        recipe = {"kind": "probe", "data": data(root, videos), "features": FEATURES, "probe": {"knn_ks": [5]}}
        folder = out / f"{name}-{videos.stem}"
        if not (folder / "results.json").is_file():
            ssvid.probe(recipe, backbone=run, placebo=placebo, out=folder, device="cpu")
        yield from rows_of(folder, fold)


def tuned(name: str, run: str, placebo: str, root: Path, lists: Sequence[Path], out: Path) -> Iterator[ResultRow]:
    for fold, videos in enumerate(lists, 1):
        folder = out / f"tuned-{name}-{videos.stem}"
        if not (folder / "results.json").is_file():
            where = [f"data.{key}={value}" for key, value in data(root, videos).items()]
            words = ("trainer.accelerator=cpu", "trainer.devices=1", *TUNING)
            ssvid.finetune("finetune/folder", *where, *words, backbone=run, placebo=placebo, run_dir=folder)
        yield from rows_of(folder, fold)


def rows_of(folder: Path, fold: int) -> list[ResultRow]:
    return [replace(row, context={**row.context, "fold": fold}) for row in read_results(folder / "results.json")]


def table(rows: list[ResultRow]) -> str:
    shown = [row for row in rows if not row.name.startswith("random, ")]
    return render_table(summary_rows(shown, summarize(shown)) or shown, notes=False)


def differences(rows: list[ResultRow], metrics: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[str]:
    names = {row.name for row in rows}
    lines = []
    for metric in metrics:
        for a, b in pairs:
            if {a, b} <= names:
                d = summarize_difference(rows, a, b, metric)
                low, high = (100 * v for v in d.interval)
                lines.append(f"* {metric}, {a} - {b}: {100 * d.value:+.1f} points [{low:+.1f}, {high:+.1f}]")
    return lines


PAIRS = (
    ("pretrained", "placebo"),
    ("pretrained", "random"),
    ("pretrained", "single frame"),
    ("pretrained", "shuffled frames"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", required=True)
    parser.add_argument("--tune", nargs="*", default=["speediness"], help="of these runs, fine-tune too")
    args = parser.parse_args()
    real, out = Path(os.environ["SSVID_REAL_DATA"]), args.out
    sets = {
        "Weizmann, three folds, each leaving three subjects out": (real / "weizmann", weizmann_lists(real, out)),
        "UCF101 pack. Plumbing check: 36 test videos are no evidence": (real / "ucf101", [ucf101_list(real, out)]),
    }
    parts = []
    for title, (root, lists) in sets.items():
        parts.append(f"## {title}\n")
        for given in args.runs:
            name, _, paths = given.partition("=")
            run, placebo = paths.split(",")
            started = time.perf_counter()
            rows = list(probed(name, run, placebo, root, lists, out))
            metrics = ("probe_top1", "knn5_top1", "recall_at_1")
            told = "\n".join(differences(rows, metrics, PAIRS))
            parts.append(
                f"### {name}, frozen ({time.perf_counter() - started:.0f} s)\n\n```\n{table(rows)}\n```\n\n{told}\n"
            )
            if name in args.tune:
                started = time.perf_counter()
                rows = list(tuned(name, run, placebo, root, lists, out))
                told = "\n".join(differences(rows, ("finetune_top1",), PAIRS))
                parts.append(
                    f"### {name}, fine-tuned ({time.perf_counter() - started:.0f} s)\n\n```\n{table(rows)}\n```\n\n{told}\n"
                )
            (out / "harness.md").write_text("\n".join([*parts, f"`{environment()}`\n"]))
            print(parts[-1], flush=True)


if __name__ == "__main__":
    main()
