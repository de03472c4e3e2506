"""Trains r3d_18 on the speediness task in fp32 and bf16: bare steps, whole runs from video files, agreement of both.

Usage: python -m tests.benchmarks.bench_gpu --out DIR [--device cpu --quick]. Writes gpu.json and gpu.md to DIR. It stops
starting new parts after ``--minutes``, so that it ends within 9.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssvid.backbones import convert_to_channels_last_3d, initialize_backbone
from ssvid.data.index.building import build_manifest
from ssvid.data.readers import list_videos
from ssvid.data.synth import SyntheticVideos, synthesize
from ssvid.machine import environment
from ssvid.programs.pretrain import pretrain
from ssvid.recipe.options import make_task_config
from ssvid.tasks import BatchRandom, tasks
from ssvid.train.loggers import read_metrics
from ssvid.types import Ticket

PACKED = Path(".gpu-pack/videos")


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def bare_steps(device: str, precision: str, channels_last: bool, *, quick: bool) -> dict[str, Any]:
    """Forward, backward and step on resident random uint8 clips, augmentation included; no loader."""
    frames, px, pairs, warm, steps = (4, 32, 2, 1, 2) if quick else (16, 112, 32, 10, 40)
    options = {"num_frames": frames, "frame_px": px, "random_resolution": False, "eval_px": px}
    backbone = initialize_backbone("r3d_18", seed=0)
    task = tasks.get("speediness")(make_task_config("speediness", options), backbone.info)
    if channels_last:
        convert_to_channels_last_3d(backbone)
    backbone.to(device).train()
    task.to(device).train()
    optimizer = torch.optim.SGD([*backbone.parameters(), *task.parameters()], lr=0.01, momentum=0.9)
    clips = torch.randint(0, 256, (pairs, 2, frames, 3, px, px), dtype=torch.uint8, device=device)
    batch = {"clips": clips, "is_sped": torch.tensor([[0, 1]] * pairs, device=device)}
    torch.backends.cudnn.benchmark = True
    times = []
    for step in range(warm + steps):
        synchronize(device)
        started = time.perf_counter()
        draws = BatchRandom.of(0, [Ticket(0, 0, step, i) for i in range(pairs)])
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            output = task(task.augment(batch, draws), backbone)
        optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        optimizer.step()
        synchronize(device)
        times.append(time.perf_counter() - started)
    median = statistics.median(times[warm:])
    memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")
    return {
        "precision": precision,
        "channels_last": channels_last,
        "clips": f"{2 * pairs} x {frames} x {px} px",
        "ms_per_step": 1000 * median,
        "clips_per_s": 2 * pairs / median,
        "peak_gib": memory,
        "loss": output.loss.item(),
    }


def whole_run(device: str, precision: str, videos: Path, out: Path, *, quick: bool) -> dict[str, Any]:
    """``ssvid pretrain`` from video files, with its own measures of speed and waiting."""
    frames, px = (8, 32) if quick else (16, 112)
    recipe = {
        "kind": "pretrain",
        "data": {"name": "folder", "root": str(videos), "val_fraction": 0.0 if quick else 0.1},
        "backbone": {"name": "r3d_18"},
        "task": {
            "name": "speediness",
            "options": {"num_frames": frames, "frame_px": px, "min_px": px // 2, "max_px": px, "eval_px": px},
        },
        "optim": {"name": "sgd", "base_lr": 0.05, "epochs": 1 if quick else 4, "warmup_epochs": 1},
        "loader": {"global_batch": 4 if quick else 16, "workers_per_device": 2 if quick else 12, "clips_per_video": 2},
        "trainer": {
            "accelerator": "gpu" if device == "cuda" else "cpu",
            "devices": "1",
            "precision": precision,
            "log_every_steps": 1 if quick else 2,
            "max_steps": 1 if quick else -1,  # bf16 on a CPU takes seconds a step
        },
    }
    started = time.perf_counter()
    result = pretrain(recipe, run_dir=out)
    seconds = time.perf_counter() - started
    lines = read_metrics(out / "metrics.jsonl")
    speeds = [line["perf/clips_per_s"] for line in lines if "perf/clips_per_s" in line][1:]
    waits = [line["perf/data_wait_frac"] for line in lines if "perf/data_wait_frac" in line][1:]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    return {
        "precision": precision,
        "steps": result.num_steps,
        "seconds": seconds,
        "samples_per_s": statistics.median(speeds) if speeds else float("nan"),
        "data_wait_frac": statistics.median(waits) if waits else float("nan"),
        "first_loss": losses[0] if losses else float("nan"),
        "last_loss": losses[-1] if losses else float("nan"),
        "val": result.metrics,
    }


def agreement(device: str, *, quick: bool) -> dict[str, float]:
    """Largest relative difference of the last feature map between fp32 and bf16, on the shapes that are trained."""
    backbone = initialize_backbone("r3d_18", seed=0).to(device).eval()
    shape = (2, 3, 4, 32, 32) if quick else (2, 3, 16, 112, 112)
    clip = torch.from_numpy(np.random.default_rng(0).random(shape, dtype=np.float32)).to(device)
    with torch.inference_mode():
        exact = backbone(clip)
        with torch.autocast(device, torch.bfloat16):
            rough = backbone(clip).float()
    return {"bf16_max_rel_error": float((exact - rough).abs().max() / exact.abs().max())}


def videos_of(scratch: Path, *, quick: bool) -> tuple[Path, str]:
    if PACKED.is_dir() and any(PACKED.iterdir()):
        return PACKED, f"{len(list(PACKED.iterdir()))} real videos"
    synthesize(
        scratch / "videos", SyntheticVideos(num_train=16 if quick else 200, num_test=1, size_px=64 if quick else 160)
    )
    return scratch / "videos" / "train", "synthetic videos"


def markdown(report: dict[str, Any]) -> str:
    lines = [f"# GPU benchmark\n\n{json.dumps(report['environment'])}\n", f"Videos: {report['videos']}.\n"]
    for title in ("bare_steps", "whole_runs"):
        rows = report[title]
        if rows:
            lines.append(f"## {title.replace('_', ' ')}\n")
            lines.append("| " + " | ".join(rows[0]) + " |")
            lines.append("|" + "---|" * len(rows[0]))
            lines += ["| " + " | ".join(_cell(v) for v in row.values()) + " |" for row in rows]
            lines.append("")
    lines.append(f"bf16 against fp32, last feature map: {report['agreement']}")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to see that it runs")
    parser.add_argument("--minutes", type=float, default=7.0)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "torch sees no CUDA device; add --device cpu --quick to see that the benchmark runs.\n")
    started = time.perf_counter()
    args.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"environment": environment(), "bare_steps": [], "whole_runs": [], "skipped": []}

    def in_time(part: str) -> bool:
        if time.perf_counter() - started < 60 * args.minutes:
            return True
        report["skipped"].append(part)
        return False

    with tempfile.TemporaryDirectory() as scratch:
        videos, report["videos"] = videos_of(Path(scratch), quick=args.quick)
        report["agreement"] = agreement(args.device, quick=args.quick)
        for precision in ("32", "bf16"):
            for channels_last in (False, True):
                if in_time(f"bare {precision} channels_last={channels_last}"):
                    report["bare_steps"].append(bare_steps(args.device, precision, channels_last, quick=args.quick))
        index_started = time.perf_counter()
        manifest = build_manifest(videos, list_videos("folder", videos), workers=0)
        report["index"] = {"videos": len(manifest), "seconds": time.perf_counter() - index_started}
        for precision in ("32", "bf16"):
            if in_time(f"run {precision}"):
                run_dir = Path(scratch) / f"run_{precision}"
                report["whole_runs"].append(whole_run(args.device, precision, videos, run_dir, quick=args.quick))
    report["seconds"] = time.perf_counter() - started
    (args.out / "gpu.json").write_text(json.dumps(report, indent=2) + "\n")
    (args.out / "gpu.md").write_text(markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    main()
