"""What temporal cycle-consistency adds to alignment within seconds of CPU: trained, placebo, untrained and the position alone.

Usage: python -m tests.benchmarks.bench_alignment VIDEOS [--seeds 0 1 2] [--steps 70]
Example: ssvid data synth videos --motions actions --train 200 --test 100 --size 64
         OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_alignment videos

Trains ``tiny3d`` on the first 120 training videos, decoded once and shrunk to 48 px, with the loss of the task and its own sampler, in a
bare loop: 70 steps of 4 pairs take 17 seconds of a core, where the start of a whole run takes ten. Scores the first 40 test videos by the
measures of ``ssvid.evals.alignment``, each action by itself; 15 training videos of each teach the classifier and the regressions.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pretext_tasks.temporal_cycle import TemporalCycle, TemporalCycleConfig, draw_moments, with_context
from ssvid.backbones import initialize_backbone
from ssvid.data.manifest import Manifest
from ssvid.data.truth import read_truth
from ssvid.evals.alignment import measures
from ssvid.evals.alignment.measures import Moments

NUM_TRAIN, NUM_TEST, NUM_TAUGHT, SIDE_PX, PAIRS, STEP_FRAMES = 120, 40, 15, 48, 4, 3
CONFIG = TemporalCycleConfig(
    num_steps=12, context_frames=3, context_stride=2, frame_px=SIDE_PX, flip=False, brightness=0, contrast=0, head="none",
    pool="max1x2x2", stage="stage3", loss="classification",
)  # fmt: skip
LEARNING_RATE, CALIBRATED_ON = 2e-3, 16


class Side(NamedTuple):
    """Videos of one split: frames uint8 (N, T, 3, px, px), the phase of each frame, the action."""

    frames: Tensor
    phases: list[np.ndarray]
    labels: np.ndarray

    @classmethod
    def read(cls, manifest: Manifest, split: str, num: int) -> "Side":
        """The first videos of a split."""
        rows, frames = [row for row in manifest.rows if row.split == split][:num], []
        for row in rows:
            with row.open(manifest.root) as reader:
                whole = reader.frames_at(np.arange(row.num_frames)).float()
            frames.append(F.interpolate(whole, size=(SIDE_PX, SIDE_PX), mode="area").byte())
        known = [read_truth(manifest.root, row).phases for row in rows]
        phases = [one.number_T for one in known if one is not None]
        return cls(torch.stack(frames), phases, np.array([row.label for row in rows]))

    def clips(self, video: int, moments_N: np.ndarray) -> Tensor:
        """The clips of moments, float (N, C, T, px, px)."""
        frames = with_context(moments_N, CONFIG.context_frames, CONFIG.context_stride)
        return self.frames[video][torch.from_numpy(frames)].transpose(1, 2).float() / 255

    def of(self, label: str) -> np.ndarray:
        """The videos of an action."""
        return np.flatnonzero(self.labels == label)


def pair_batch(train: Side, rng: np.random.Generator, *, placebo: bool) -> dict[str, Tensor]:
    """A batch of pairs, each of one action."""
    batch: dict[str, list[Any]] = {f"{name}_{side}": [] for name in ("frames", "times") for side in "ab"}
    length, actions = train.frames.shape[1], sorted(set(train.labels))
    for _ in range(PAIRS):
        mine = train.of(actions[rng.integers(len(actions))])
        videos = rng.choice(mine, 2, replace=False)
        moments = [draw_moments(length, CONFIG.num_steps, CONFIG.reach_frames, rng) for _ in "ab"]
        for side, video, moments_N in zip("ab", videos, moments, strict=True):
            batch[f"frames_{side}"].append(train.clips(int(video), moments_N))
            batch[f"times_{side}"].append(torch.from_numpy((moments_N / length).astype(np.float32)))
    answers = np.tile(np.arange(CONFIG.num_steps), (PAIRS, 1))
    drawn = {f"answers_{s}": torch.from_numpy(rng.permuted(answers, axis=1) if placebo else answers) for s in "ab"}
    return {name: torch.stack(values) for name, values in batch.items()} | drawn


def network_of(train: Side, seed: int, steps: int, *, placebo: bool) -> Any:
    """The trained network; without steps as initialized, with the batch statistics of training clips."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = initialize_backbone("tiny3d", {"input": "difference"}, seed=seed)
    network.freeze_after(CONFIG.stage)
    task = TemporalCycle(CONFIG, network.info).train()
    network.train()
    if not steps:
        with torch.no_grad():
            for video in range(CALIBRATED_ON):
                network(train.clips(video, np.arange(CONFIG.reach_frames, train.frames.shape[1], 6)))
        return network.eval()
    optimizer = torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad], lr=LEARNING_RATE, weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.2)
    for _ in range(steps):
        optimizer.zero_grad()
        task(pair_batch(train, rng, placebo=placebo), network).loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def moments_of(side: Side, network: Any, label: str) -> list[Moments]:
    """The moments of the videos of an action; of the position alone where there is no network."""
    length = side.frames.shape[1]
    moments_N = np.arange(CONFIG.reach_frames, length, STEP_FRAMES)
    found = []
    for video in side.of(label):
        vectors = (moments_N / length)[:, None]
        if network is not None:
            with torch.inference_mode():
                vectors = network.embed(side.clips(int(video), moments_N), CONFIG.stage, CONFIG.pool).double().numpy()
        found.append(Moments(vectors, side.phases[video][moments_N], moments_N / length))
    return found


def scores(train: Side, test: Side, network: Any) -> dict[str, float]:
    """Means over the actions."""
    found: dict[str, list[float]] = {"tau": [], "phase": [], "ap@5": [], "progress": []}
    for label in sorted(set(test.labels)):
        asked, taught = moments_of(test, network, label), moments_of(train, network, label)[:NUM_TAUGHT]
        found["tau"].append(float(measures.taus([one.vectors_ND for one in asked]).mean()))
        found["phase"].append(float(measures.phase_accuracies(taught, asked).mean()))
        found["ap@5"].append(float(measures.precisions(asked, 5).mean()))
        found["progress"].append(measures.r_squared(measures.progression(taught, asked)))
    return {name: round(float(np.mean(values)), 4) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=70)
    parser.add_argument("--arms", nargs="+", default=["position", "untrained", "trained", "placebo"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    manifest = Manifest.load(args.videos / "manifest.csv")
    train, test = Side.read(manifest, "train", NUM_TRAIN), Side.read(manifest, "test", NUM_TEST)
    for seed in args.seeds:
        for arm in args.arms:
            started, steps = time.process_time(), args.steps if arm in ("trained", "placebo") else 0
            network = None if arm == "position" else network_of(train, seed, steps, placebo=arm == "placebo")
            told = {
                "seed": seed,
                "arm": arm,
                **scores(train, test, network),
                "cpu_s": round(time.process_time() - started, 1),
            }
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
