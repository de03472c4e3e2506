"""The table of the lecture's families of networks: what each makes of time, trained alike and tested in several ways.

Usage: OMP_NUM_THREADS=1 [SSVID_REAL_DATA=DIR] python -m tests.benchmarks.bench_families --out DIR [--seeds 3] [--only NAME ...]

Trains the small recipe of every family on synthetic directions, whose single frames say nothing of the class, with several seeds.
Each trained network is tested with the frames as they are, with one frame repeated, with shuffled frames, with everything
moving more slowly, and with clips that begin later. With SSVID_REAL_DATA, Weizmann too: three folds that each leave three
subjects out, each trained from a seed of its own. What is there is not done again, so that the command can be stopped and given again.
Writes families.md.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ssvid.backbones.contract import pool_map
from ssvid.classifiers.scoring import likeliest
from ssvid.data.index.flow import as_flow
from ssvid.data.manifest import Manifest, VideoRow, row_id
from ssvid.data.synth import SyntheticVideos, synthesize
from ssvid.features.reading import read_prepared
from ssvid.files import write_atomic
from ssvid.intervals import grouped_mean_interval
from ssvid.machine import environment
from ssvid.programs.tuned import Tuned, load_tuned
from ssvid.video.flow import FlowSettings
from ssvid.video.sampling import clip_indices
from tests.benchmarks.bench_harness import weizmann_lists


class Family(NamedTuple):
    """A line of the table. recipe: below recipes/supervised. name: what the lecture calls it."""

    recipe: str
    name: str


TWO_STREAM = "two_stream"
TRAJECTORIES = "trajectories"  # a row of ssvid probe
ALONE = (
    "features.num_clips=1",
    *(f"baselines.{name}=false" for name in ("histograms", "single_frame", "shuffled_frames")),
)
FAMILIES = (
    Family("single_frame", "single frame"),
    Family("context_fovea", "context and fovea, single frames"),
    Family("late_pool", "late fusion, pooled"),
    Family("late_fusion", "late fusion, concatenated"),
    Family("early_fusion", "early fusion"),
    Family("slow_fusion", "slow fusion"),
    Family("c3d", "3D convolutions: C3D"),
    Family("resnet3d", "3D convolutions: small 3D network"),
    Family("i3d", "inflated 2D network: I3D"),
    Family("non_local", "I3D with a non-local block"),
    Family(TWO_STREAM, "two streams"),
    Family(TRAJECTORIES, "dense trajectories"),
    Family("lstm", "CNN and LSTM"),
    Family("attention", "CNN and attention over frames"),
    Family("timesformer", "TimeSformer"),
    Family("vit", "video transformer"),
)
SYNTHETIC = SyntheticVideos(num_train=1200, num_test=400, seconds=2.0, size_px=40, motions="directions")
TEMPOS = (0.5, 0.25, 0.125)  # of the test videos, beside 1
DELAYS = (2, 4, 6)  # frames of a clip that show its first moment before anything moves
SHIFTS = (1, 2, 4, 8)  # frames of a clip by which it begins later
WEIZMANN = ("finetune.batch_size=16", "optim.epochs=40")  # 60 training videos
CLIP_BATCH = 32
FLOW_PX = 40  # short side, of the recipe two_stream


@dataclass(frozen=True)
class Tested:
    """What the trained network of one seed (and fold) said.

    videos: their names. right: name of the way of testing -> for each test video whether it was right. same, moved: frames of shift -> share of
    predictions that stayed, and how far the pooled features moved, as a share of the distance to another video's.
    """

    right: dict[str, list[bool]]
    same: dict[str, float]
    moved: dict[str, float]
    parameters: int
    mega_operations: float
    videos: list[str] = field(default_factory=list)


# ---- training


def train(family: Family, run: Path, overrides: Sequence[str]) -> None:
    """One run in a process of its own, at most once; its CPU seconds go into cpu_seconds in its folder."""
    if (run / "results.json").is_file():
        return
    begun = run.is_dir()
    if family.recipe == TRAJECTORIES:
        own = [word for word in overrides if not word.startswith(("finetune.", "optim."))]
        command = ["probe", "probe/trajectories", *own, *ALONE, "--backbone-name", "tiny3d", "--out", str(run)]
    else:
        again = ["--resume"] if begun else []
        command = ["finetune", f"supervised/{family.recipe}", *overrides, "--run-dir", str(run), *again, "--no-random"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(f"{run}.log", "ab") as log:
        whole = [sys.executable, "-m", "ssvid", *command, "--backbone", "random"]
        done = subprocess.run(whole, stdout=log, stderr=log, check=False)
    if done.returncode:
        raise SystemExit(f"{run} ended with code {done.returncode}; see {run}.log")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if not begun:  # what an interrupted process had spent is not known
        (run / "cpu_seconds").write_text(f"{spent:.1f}")
    print(f"{time.strftime('%H:%M:%S')} {run.name}: {spent:.0f} CPU s", flush=True)


# ---- testing what was trained


def tested(run: Path, slower: Sequence[tuple[str, Manifest]]) -> Tested:
    """All tests of one trained network, or of two streams together; read where they were made before."""
    file = run / "tested.json"
    if file.is_file():
        return Tested(**json.loads(file.read_text()))
    found = of_trajectories(run) if run.name.startswith(TRAJECTORIES) else of_networks(networks_of(run), slower)
    write_atomic(file, lambda out: out.write(json.dumps(asdict(found)).encode()))
    return found


def networks_of(run: Path) -> list[Tuned]:
    """The network of a run, or those of its streams."""
    streams = sorted(path.parent for path in run.glob("*/recipe.resolved.yaml"))
    return [load_tuned(folder) for folder in streams or [run]]


def of_networks(networks: Sequence[Tuned], slower: Sequence[tuple[str, Manifest]]) -> Tested:
    """What one network says, or several together: the mean of their probabilities; of features, all side by side."""
    labels = np.array([networks[0].task.classes.index(row.label) for row in networks[0].test])
    right = {frames: right_videos(networks, frames=frames) for frames in ("video", "single_frame", "shuffled")}
    right |= {name: right_videos(networks, manifest=manifest) for name, manifest in slower}
    ways = [(0, 0), *((0, delay) for delay in DELAYS), *((shift, 0) for shift in SHIFTS)]
    heard = [spoken(tuned, ways) for tuned in networks]
    said = [np.mean([own[way][0] for own in heard], axis=0).argmax(axis=1) for way in range(len(ways))]
    seen = [np.concatenate([own[way][1] for own in heard], axis=1) for way in range(len(ways))]
    other_video = distance(np.roll(seen[0], 1, axis=0), seen[0])
    same, moved = {}, {}
    for way, (shift, delay) in enumerate(ways):
        if delay:
            right[f"delayed {delay}"] = said[way] == labels
        if shift:
            same[str(shift)] = float((said[way] == said[0]).mean())
            moved[str(shift)] = distance(seen[way], seen[0]) / other_video
    return Tested(
        {name: [bool(value) for value in values] for name, values in right.items()},
        same,
        moved,
        sum(q.numel() for tuned in networks for module in (tuned.backbone, tuned.task) for q in module.parameters()),
        sum(mega_operations(tuned) for tuned in networks),
        [row_id(row) for row in networks[0].test],
    )


def right_videos(networks: Sequence[Tuned], frames: str = "video", manifest: Manifest | None = None) -> np.ndarray:
    """Whether each video was right by the mean of the networks' scores: bool."""
    scores_NK = []
    for tuned in networks:
        shown, flow = manifest, tuned.manifest.rows[0].flow
        if manifest is not None and flow:
            shown = as_flow(manifest, FlowSettings.parse(flow))
        scores = tuned.score(frames, manifest=shown)
        scores_NK.append(scores.of_videos(tuned.task.protocol.averaging))
    said = likeliest(np.mean(scores_NK, axis=0), scores.classes)
    return np.array([answer == label for answer, label in zip(said, scores.labels, strict=True)])


def of_trajectories(run: Path) -> Tested:
    """What a linear SVM says of the trajectories of the test videos as they are; there is no clip to show in another way."""
    results = json.loads((run / "results.json").read_text())
    (row,) = [r for r in results["rows"] if r["name"] == "trajectories" and r["metric"] == "probe_top1"]
    return Tested(
        {"video": [mark == "1" for mark in row["correct"]]}, {}, {}, 0, 0.0, results["video_lists"][row["video_list"]]
    )


def distance(a_ND: np.ndarray, b_ND: np.ndarray) -> float:
    """Mean Euclidean distance of rows."""
    return float(np.linalg.norm(a_ND - b_ND, axis=1).mean())


@torch.no_grad()
def spoken(tuned: Tuned, ways: Sequence[tuple[int, int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each way probabilities NK and pooled features ND of one clip of each test video, its first that leaves room for all shifts.

    ways: pairs of a shift, the frames of a clip by which it begins later, and a delay, the frames that show the clip's first
    moment before it goes on.
    """
    heard: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in ways]
    for start in range(0, len(tuned.test), CLIP_BATCH):
        for told, clips_BCTHW in zip(heard, clips(tuned, tuned.test[start : start + CLIP_BATCH], ways), strict=True):
            map_BCTHW = tuned.backbone(clips_BCTHW, tuned.task.stage)
            said_BK = softmax(tuned.task.head(map_BCTHW).float().numpy(), axis=1)
            told.append((said_BK, pool_map(map_BCTHW).numpy()))
    return [tuple(np.concatenate(parts) for parts in zip(*told, strict=True)) for told in heard]  # type: ignore[misc]


def clips(tuned: Tuned, rows: Sequence[VideoRow], ways: Sequence[tuple[int, int]]) -> Tensor:
    """Clips of some videos, VBCTHW in [0, 1], V ways; each video is read once."""
    p, found = tuned.reading, []
    for row in rows:
        numbers = []
        for shift, delay in ways:
            moments = np.maximum(np.arange(p.num_frames) - delay, 0)
            taken = clip_indices(shift * p.stride_frames, p.num_frames, p.stride_frames)[moments]
            numbers.append(np.minimum(taken, row.window_frames - 1) + row.start_frame)
        with row.open(tuned.manifest.root, p.decoder) as reader:
            found.append(read_prepared(reader, numbers, p.resize_px, p.crop_px))
    return torch.stack(found, dim=1).transpose(2, 3)


def mega_operations(tuned: Tuned) -> float:
    """Of one clip forward, network and head, in 10^6; a multiplication and an addition are two."""
    p = tuned.reading
    clip = torch.rand(1, tuned.backbone.info.in_channels, p.num_frames, p.crop_px, p.crop_px)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        tuned.task.logits(clip, tuned.backbone)
    return counter.get_total_flops() / 1e6


# ---- the table


def cell(found: Sequence[Tested], way: str) -> str:
    """Mean over seeds and videos in percent, its 95 % interval over videos, and the spread over seeds; a dash where not tested."""
    if way not in found[0].right:
        return "–"
    right_SN = np.array([one.right[way] for one in found], dtype=float)
    low, high = grouped_mean_interval(right_SN.mean(axis=0), low=0.0)
    spread = f" ± {100 * right_SN.mean(axis=1).std(ddof=1):.1f}" if len(found) > 1 else ""
    return f"{100 * right_SN.mean():.1f}{spread} [{100 * low:.1f}, {100 * high:.1f}]"


def average(values: Sequence[float]) -> float:
    return float(np.mean(values))


def tables(measured: dict[Family, list[Tested]], seconds: dict[Family, float]) -> Iterator[str]:
    ways = {"video": "as they are", "single_frame": "one frame repeated", "shuffled": "shuffled"}
    yield "\n**Top-1**, %, by what the trained network is shown, and what it costs\n"
    head = ["family", "seeds", *ways.values(), "parameters", "MFLOP", "CPU s"]
    yield "| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|"
    for family, found in measured.items():
        cells = [cell(found, way) for way in ways]
        size = [f"{found[0].parameters:,}", f"{found[0].mega_operations:.0f}"] if found[0].parameters else ["–", "–"]
        yield "| " + " | ".join([family.name, str(len(found)), *cells, *size, f"{seconds[family]:.0f}"]) + " |"
    measured = {family: found for family, found in measured.items() if found[0].same}  # networks
    slower = [name for name in next(iter(measured.values()))[0].right if name.startswith("tempo")]
    if slower:
        yield "\n**Top-1 when everything moves more slowly**, %\n"
        yield "| family | tempo 1 | " + " | ".join(slower) + " |\n|---" + "|---" * (1 + len(slower)) + "|"
        for family, found in measured.items():
            yield "| " + " | ".join([family.name, *(cell(found, way) for way in ("video", *slower))]) + " |"
    yield "\n**Top-1 of one clip whose motion begins later**, %\n"
    names = [f"delayed {delay}" for delay in DELAYS]
    yield "| family | " + " | ".join(f"by {d} frames" for d in DELAYS) + " |\n|---" + "|---" * len(DELAYS) + "|"
    for family, found in measured.items():
        yield "| " + " | ".join([family.name, *(cell(found, name) for name in names)]) + " |"
    yield "\n**A clip that begins later by so many of its frames**: share of unchanged predictions, %, and in brackets how far the pooled features moved (1: as far as to another video)\n"
    yield "| family | " + " | ".join(f"by {s}" for s in SHIFTS) + " |\n|---" + "|---" * len(SHIFTS) + "|"
    for family, found in measured.items():
        told = [(average([f.same[str(s)] for f in found]), average([f.moved[str(s)] for f in found])) for s in SHIFTS]
        yield f"| {family.name} | " + " | ".join(f"{100 * same:.1f} ({moved:.2f})" for same, moved in told) + " |"


def weizmann_table(measured: dict[Family, list[Tested]], seconds: dict[Family, float]) -> Iterator[str]:
    """measured: for each family its folds. Intervals are over the nine subjects."""
    yield "| family | as they are | one frame repeated | shuffled | CPU s |\n|---|---|---|---|---|"
    for family, folds in measured.items():
        subjects = [Path(name).stem.split("_")[0] for fold in folds for name in fold.videos]
        cells = []
        for way in ("video", "single_frame", "shuffled"):
            right_N = np.array([mark for fold in folds for mark in fold.right.get(way, ())], dtype=float)
            if not len(right_N):
                cells.append("–")
                continue
            low, high = grouped_mean_interval(right_N, groups_N=np.array(subjects), low=0.0)
            cells.append(f"{100 * right_N.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]")
        yield f"| {family.name} | " + " | ".join(cells) + f" | {seconds[family]:.0f} |"


def cpu_seconds(runs: Sequence[Path]) -> float:
    """The mean over runs; NaN where one was interrupted and went on."""
    files = [run / "cpu_seconds" for run in runs]
    return average([float(file.read_text()) if file.is_file() else float("nan") for file in files])


def measure_flow(folder: Path) -> None:
    """The flow that the temporal stream reads; what was measured before is not again."""
    words = ["data", "flow", str(folder), "--short-side", str(FLOW_PX), "--workers", "1"]
    subprocess.run([sys.executable, "-m", "ssvid", *words], check=True)


def synthetic_videos(out: Path) -> list[tuple[str, Manifest]]:
    """Made where they are not; the tests at other tempos."""
    if not (out / "videos").exists():
        synthesize(out / "videos", SYNTHETIC)
    slower = []
    for tempo in TEMPOS:
        folder = out / f"tempo{tempo:g}"
        if not folder.exists():
            synthesize(folder, SyntheticVideos(**{**asdict(SYNTHETIC), "num_train": 0, "tempo": tempo}))
        slower.append((f"tempo {tempo:g}", Manifest.load(folder / "manifest.csv")))
    return slower


def on_synthetic(families: Sequence[Family], out: Path, seeds: int, more: Sequence[str]) -> Iterator[str]:
    """Train and test on synthetic directions. more: overrides of every recipe."""
    slower = synthetic_videos(out)
    if any(family.recipe == TWO_STREAM for family in families):
        measure_flow(out / "videos")
        for _, manifest in slower:
            measure_flow(Path(manifest.root))
    measured, seconds = {}, {}
    for family in families:
        data = ("data.name=manifest", f"data.root={out / 'videos'}", *more)
        runs = [out / f"{family.recipe}-synthetic-{seed}" for seed in range(seeds)]
        for seed, run in enumerate(runs):
            train(family, run, (*data, f"seed={seed}"))
        measured[family], seconds[family] = [tested(run, slower) for run in runs], cpu_seconds(runs)
    sizes = f"{SYNTHETIC.num_train} training and {SYNTHETIC.num_test} test videos"
    yield f"## Synthetic directions: {sizes}, {seeds} seeds, chance 12.5 %"
    yield from tables(measured, seconds)


def on_weizmann(families: Sequence[Family], out: Path, real: Path, more: Sequence[str]) -> Iterator[str]:
    """Train and test three folds, each from a seed of its own."""
    if any(family.recipe == TWO_STREAM for family in families):
        measure_flow(real / "weizmann")
    measured, seconds = {}, {}
    for family in families:
        runs = []
        for fold, listed in enumerate(weizmann_lists(real, out)):
            runs.append(out / f"{family.recipe}-weizmann-{fold}")
            data = ("data.name=list", f"data.root={real / 'weizmann'}", f"data.list={listed}", *WEIZMANN)
            train(family, runs[-1], (*data, *more, f"seed={fold}"))
        measured[family], seconds[family] = [tested(run, ()) for run in runs], cpu_seconds(runs)
    yield "\n## Weizmann: three folds, each leaving three subjects out and from a seed of its own\n"
    yield from weizmann_table(measured, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="recipes of these families alone")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every recipe, for a try"
    )
    args = parser.parse_args()
    out, real = args.out.resolve(), os.environ.get("SSVID_REAL_DATA")
    out.mkdir(parents=True, exist_ok=True)
    # A cache of its own: a training whose results lie in another one would leave no weights to test.
    os.environ["SSVID_CACHE"] = str(out / "cache")
    families = [f for f in FAMILIES if not args.only or f.recipe in args.only]
    parts = [*on_synthetic(families, out, args.seeds, args.set)]
    if real:
        parts += on_weizmann(families, out, Path(real), args.set)
    parts += [f"\n`{environment()}`\n"]
    write_atomic(out / "families.md", lambda file: file.write("\n".join(parts).encode()))
    print("\n".join(parts))


if __name__ == "__main__":
    main()
