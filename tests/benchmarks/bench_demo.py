"""The demo over several seeds: is the gain of pretraining over random and over the placebo beyond chance?

Usage: python -m tests.benchmarks.bench_demo --out DIR [--seeds 5]. The videos are made once; every seed trains the
network and its placebo anew; called again, it goes on with those not done. Writes demo.json and demo.md; the table of means at its top stands in README.md, too.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssvid.data.synth import SyntheticVideos, synthesize
from ssvid.machine import environment
from ssvid.programs import demo as demonstration
from ssvid.programs.demo import ARMS, evaluate_arms, read_result, read_untrained, train_side_by_side
from ssvid.results.rows import over_seeds

NETWORKS = ("pretrained", "random", "placebo")
HEADLINES = {"probe_top1": "linear probe", "knn20_top1": "k-NN (k=20)", "recall_at_1": "R@1"}

Values = Mapping[str, Mapping[str, Sequence[float]]]  # metric -> network -> one value for each seed


def one_seed(folder: Path, videos: Path, seed: int) -> dict[str, Any]:
    started = time.perf_counter()
    train_side_by_side(folder, videos, seed, print)
    trained = time.perf_counter()
    rows = evaluate_arms(folder, videos, print)
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        values.setdefault(row.name, {})[row.metric] = row.value
    return {
        "seed": seed,
        "values": values,
        "pretext": {name: read_result(folder / name)["accuracy"] for name in ARMS}
        | {"untrained": read_untrained(folder)["accuracy"]},
        "seconds": {"training": trained - started, "evaluation": time.perf_counter() - trained},
    }


def summary(values: Values) -> str:
    """Means over seeds and their standard deviations in percent, and how far the pretrained networks are above the others."""
    num_seeds = len(values["probe_top1"]["pretrained"])
    lines = [f"{f'% over {num_seeds} seeds':<24}" + "".join(f"{title:<16}" for title in HEADLINES.values()).rstrip()]
    for name in ("pretrained", "placebo", "random"):
        cells = (
            f"{100 * np.mean(values[m][name]):.1f} ± {100 * np.std(values[m][name], ddof=1):.1f}" for m in HEADLINES
        )
        lines.append(f"{name:<24}" + "".join(f"{cell:<16}" for cell in cells).rstrip())
    for other in ("placebo", "random"):
        gains = [over_seeds(np.subtract(values[m]["pretrained"], values[m][other]).tolist()) for m in HEADLINES]
        cells = (f"{100 * gain.mean:+.1f} ± {100 * gain.standard_error:.1f}" for gain in gains)
        lines.append(f"{f'pretrained - {other}':<24}" + "".join(f"{cell:<16}" for cell in cells).rstrip())
    return "\n".join(lines)


def markdown(report: dict[str, Any]) -> str:
    metrics = list(report["seeds"][0]["values"]["pretrained"])
    values = {m: {name: [seed["values"][name][m] for seed in report["seeds"]] for name in NETWORKS} for m in metrics}
    lines = ["```text", summary(values), "```"] if len(report["seeds"]) > 1 else []
    for metric in metrics:
        lines.append(f"\n### {metric}\n")
        lines.append("| seed | " + " | ".join(NETWORKS) + " | pretrained - random | pretrained - placebo |")
        lines.append("|---" * (len(NETWORKS) + 3) + "|")
        gaps: dict[str, list[float]] = {"random": [], "placebo": []}
        for seed in report["seeds"]:
            v = {name: seed["values"][name][metric] for name in NETWORKS}
            for other, found in gaps.items():
                found.append(v["pretrained"] - v[other])
            cells = [f"{v[name]:.3f}" for name in NETWORKS] + [f"{found[-1]:+.3f}" for found in gaps.values()]
            lines.append(f"| {seed['seed']} | " + " | ".join(cells) + " |")
        for other, found in gaps.items():
            if len(found) > 1:
                s = over_seeds(found)
                lines.append(
                    f"\npretrained - {other}: mean {s.mean:+.4f}, standard error {s.standard_error:.4f}, "
                    f"ratio {s.ratio:.1f} over {s.num_seeds} seeds."
                )
    lines.append("\n### speediness on held-out training videos (chance 0.5)\n")
    lines.append("| seed | pretrained | placebo | untrained | training s | evaluation s |")
    lines.append("|---|---|---|---|---|---|")
    for seed in report["seeds"]:
        p, s = seed["pretext"], seed["seconds"]
        lines.append(
            f"| {seed['seed']} | {p['pretrained']:.3f} | {p['placebo']:.3f} | {p['untrained']:.3f} | "
            f"{s['training']:.0f} | {s['evaluation']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    d = demonstration
    videos = args.out / "videos"
    started = time.perf_counter()
    if not videos.exists():
        synthesize(
            videos, SyntheticVideos(num_train=d.NUM_TRAIN, num_test=d.NUM_TEST, seconds=d.SECONDS, size_px=d.SIZE_PX)
        )
    report: dict[str, Any] = {
        "environment": environment(),
        "videos_seconds": time.perf_counter() - started,
        "seeds": [],
    }
    if (args.out / "demo.json").exists():
        report = json.loads((args.out / "demo.json").read_text())
    done = [row["seed"] for row in report["seeds"]]
    for seed in (s for s in range(args.first, args.first + args.seeds) if s not in done):
        report["seeds"].append(one_seed(args.out / f"seed{seed}", videos, seed))
        (args.out / "demo.json").write_text(json.dumps(report, indent=2) + "\n")
        (args.out / "demo.md").write_text(markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    main()
