"""What a training step of a recipe costs: time and memory of augmentation, forward, backward and optimizer, without a loader.

Usage: python -m tests.benchmarks.bench_step RECIPE --batch N [--device cpu] [--precision 32] [--steps 3] [key=value ...]
Example: python -m tests.benchmarks.bench_step pretrain/cycle_consistency_resnet50_vlog --batch 1
         python -m tests.benchmarks.bench_step pretrain/cycle_consistency_resnet50_vlog --batch 36 --device cuda --precision bf16

The samples are those that the recipe's clip maker cuts out of a video of noise. Prints one JSON line. Memory is the peak of the
process on a CPU (weights, activations, libraries and all), and what torch allocated at most on a GPU.
"""

import argparse
import json
import resource
import statistics
import time
from typing import Any

import numpy as np
import torch

from ssvid.data.index.signals import still_signals
from ssvid.machine import environment
from ssvid.recipe.building import build_networks
from ssvid.recipe.load import load_recipe
from ssvid.tasks import BatchRandom, PretextTask
from ssvid.train.optim import build_optimizer, scaled_lr
from ssvid.types import Ticket, VideoInfo

HEIGHT, WIDTH, FRAMES, FPS = 256, 340, 200, 25.0


def noise_batch(task: PretextTask, num: int) -> dict[str, Any]:
    """Samples as workers make them, stacked."""
    maker = task.clip_maker(training=True)
    info = VideoInfo("noise", FRAMES, FPS, HEIGHT, WIDTH, signals=still_signals(getattr(maker, "signals", ()), FRAMES))
    samples = []
    for number in range(num):
        rng, shared = np.random.default_rng([0, number]), np.random.default_rng(1)
        plan = maker.plan(info, rng, shared)
        views = tuple(torch.randint(0, 256, (len(v), 3, HEIGHT, WIDTH), dtype=torch.uint8) for v in plan.views)
        samples.append(maker.transform(views, plan, rng, shared))
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


def measure(
    recipe: str, overrides: list[str], *, batch: int, device: str, precision: str, steps: int
) -> dict[str, Any]:
    """Medians over the steps after the first, and the peak of memory."""
    config = load_recipe(recipe, overrides, allow_missing=True).recipe
    backbone, task = build_networks(config)  # type: ignore[arg-type]
    backbone.to(device).train()
    task.to(device).train()
    optimizer = build_optimizer(backbone, task, config.optim, scaled_lr(config.optim, batch))  # type: ignore[union-attr]
    held = {key: value.to(device) for key, value in noise_batch(task, batch).items()}
    wall, cpu = [], []
    for step in range(steps + 1):
        synchronize(device)
        started = time.perf_counter(), time.process_time()
        draws = BatchRandom.of(0, [Ticket(0, 0, step, i) for i in range(batch)])
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            output = task(task.augment(dict(held), draws), backbone)
        optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        optimizer.step()
        synchronize(device)
        wall.append(time.perf_counter() - started[0])
        cpu.append(time.process_time() - started[1])
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 1024 * kib
    return {
        "recipe": recipe,
        "batch": batch,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "seconds_per_step": statistics.median(wall[1:]),
        "cpu_seconds_per_sample": statistics.median(cpu[1:]) / batch,
        "peak_gib": peak / 2**30,
        "environment": environment(),
    }


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="32", choices=("32", "bf16"))
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    found = measure(
        args.recipe, args.overrides, batch=args.batch, device=args.device, precision=args.precision, steps=args.steps
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
