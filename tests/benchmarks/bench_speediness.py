"""Does a trained speediness network read speed, and nothing else? Accuracy on unseen and on static clips.

Usage: python -m tests.benchmarks.bench_speediness --checkpoint RUN --out DIR [--clips 1000] [--train-static [--epochs N]]

Every clip is a video of its own, made with the encoder of the training videos. Each is shown once, at a random one of
the two speeds, evenly spaced: N videos are N independent decisions. ``--train-static`` trains the same recipe on static
videos first and tests that network too: what it has learned can only be a cue that is not motion. ``--epochs`` makes
its schedule shorter: warm-up, cosine and all are done within so many passes over the static videos.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssvid.data.config import LoaderConfig
from ssvid.data.feed.dataset import ClipDataset, tickets_of
from ssvid.data.feed.loader import ClipLoader
from ssvid.data.feed.sampler import EvalBatches
from ssvid.data.index.building import build_manifest
from ssvid.data.manifest import Manifest
from ssvid.data.readers import list_videos
from ssvid.data.synth import CRF, GOP, PRESET, SyntheticVideos, synthesize
from ssvid.machine import environment
from ssvid.programs.pretrain import pretrain
from ssvid.programs.trained import trained_networks
from ssvid.recipe.load import load_recipe
from ssvid.tasks import BatchRandom
from ssvid.types import Stream
from ssvid.video import open_video, write_video
from ssvid.weights.checkpoints import read_checkpoint


def freeze(videos: Path, out: Path, *, limit: int) -> Path:
    """Each video's middle frame, repeated to the same length and encoded by the same encoder."""
    if out.exists():
        return out
    manifest = Manifest.load(videos / "manifest.csv")
    for number, row in enumerate(manifest.rows[:limit]):
        info = row.video_info(manifest.root)
        with open_video(info.path, info=info, decoders_ok=row.decoders_ok) as reader:
            frame = reader.frames_at(np.array([info.num_frames // 2]))[0].permute(1, 2, 0).numpy()
        path = out / f"{number:05d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, [frame] * info.num_frames, info.fps, crf=CRF, preset=PRESET, gop=GOP)
    return out


def accuracy(run: Path, manifest: Manifest, *, limit: int) -> dict[str, Any]:
    """Share of right decisions, one per video, with its 95 % interval (normal approximation)."""
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    config = load_recipe(checkpoint.meta["recipe"]).recipe
    backbone, task = trained_networks(config, checkpoint)  # type: ignore[arg-type]
    backbone.eval()
    task.eval()
    rows = list(manifest.rows[:limit])
    dataset = ClipDataset(manifest, rows, task.clip_maker(training=False), seed=1, segment_seconds=math.inf)
    loader = ClipLoader(dataset, EvalBatches(len(dataset), 16, stream=Stream.EVAL), LoaderConfig(workers_per_device=1))
    coin = np.random.default_rng(2)
    correct: list[bool] = []
    with torch.inference_mode():
        for batch in loader:
            output = task(task.augment(batch, BatchRandom.of(1, tickets_of(batch))), backbone)
            says_sped = output.extras["sped_prob"] > 0.5
            for b in range(len(says_sped)):
                version = int(coin.integers(2))
                correct.append(bool(says_sped[b, version]) == bool(batch["is_sped"][b, version]))
    share = float(np.mean(correct))
    half = 1.96 * math.sqrt(share * (1 - share) / len(correct))
    return {"clips": len(correct), "accuracy": share, "interval95": [share - half, share + half], "width": 2 * half}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="a run folder of the speediness task")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--train-static", action="store_true")
    parser.add_argument("--epochs", type=int, default=0, help="of the training on static videos; 0 is the recipe's")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    videos = args.out / "videos"
    if not videos.exists():
        synthesize(videos, SyntheticVideos(num_train=args.clips, num_test=1, size_px=args.size, seed=1))
    moving = Manifest.load(videos / "manifest.csv")
    static_folder = freeze(videos, args.out / "static", limit=args.clips)
    static = build_manifest(static_folder, list_videos("folder", static_folder))
    report: dict[str, Any] = {"environment": environment(), "rows": []}

    def measure(network: str, run: Path) -> None:
        for clips, manifest in (("moving, unseen", moving), ("static", static)):
            row = {"network": network, "clips shown": clips, **accuracy(run, manifest, limit=args.clips)}
            report["rows"].append(row)
            print(row, flush=True)

    measure("trained on moving videos", args.checkpoint)
    if args.train_static:
        meta = read_checkpoint(args.checkpoint / "checkpoints" / "last.ckpt").meta
        run = args.out / "run_static"
        if not (run / "results.json").exists():
            data = {"name": "folder", "root": str(static_folder), "val_fraction": 0.1}
            recipe = {**meta["recipe"], "data": {**meta["recipe"]["data"], **data}}
            if args.epochs:
                recipe["optim"] = {**recipe["optim"], "epochs": args.epochs, "warmup_epochs": args.epochs / 7}
            pretrain(recipe, run_dir=run)
        measure("trained on static videos", run)
    (args.out / "speediness.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
