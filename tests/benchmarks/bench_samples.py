"""What a training sample costs, from the file to the cut frames: CPU milliseconds, one thread, files in the page cache.

    python -m tests.benchmarks.bench_samples --make FOLDER                 # footage as cameras write it: 360p to 720p
    python -m tests.benchmarks.bench_samples FOLDER [--against CHECKOUT] [--rounds 5] [--clips 1 2 4] [RECIPE ...]

With ``--against``, the code of another checkout is measured too, in processes that take turns; the table then has a ratio.
Each round reads the same samples; the median of the rounds counts. ``peak`` is the memory of the process.
Recipes default to ``pretrain/speediness_tiny``. ``step`` is what the recipe's network takes for a sample in training.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

SIZES = ((360, 640), (480, 854), (720, 1280))
FPS, SECONDS, GOP = 25, 14, 250


def footage(height: int, width: int, seed: int) -> Iterator[np.ndarray]:
    """A textured scene with sensor noise, through which some things move: what a fixed camera sees."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(40, 200, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    ground = ground.repeat(8, 0).repeat(8, 1)[:height, :width]
    noisy = [(ground + rng.normal(0, 3, (height, width, 1))).astype(np.uint8) for _ in range(8)]
    places, moves = rng.uniform(0, 1, (5, 2)), rng.uniform(-0.004, 0.004, (5, 2))
    for number in range(FPS * SECONDS):
        frame = noisy[int(rng.integers(8))].copy()
        for (y, x), color in zip((places + number * moves) % 1 * (height * 0.8, width * 0.9), range(5), strict=True):
            frame[int(y) : int(y) + height // 5, int(x) : int(x) + width // 12] = 30 + 45 * color
        yield frame


def make(folder: Path) -> None:
    """A file of each size, H.264 with a key frame every ten seconds."""
    from ssvid.video import write_video

    for seed, (height, width) in enumerate(SIZES):
        write_video(folder / f"{height}p.mp4", footage(height, width, seed), FPS, crf=26, gop=GOP)


def measure_once(folder: str, recipe: str, clips: Sequence[int]) -> dict[str, float]:
    """One round in this process: CPU milliseconds a sample for each number of clips, and the peak of memory in MB."""
    import torch

    from ssvid.data.feed.dataset import ClipDataset, collate
    from ssvid.data.manifest import Manifest, VideoRow
    from ssvid.recipe.building import build_networks
    from ssvid.recipe.load import load_recipe
    from ssvid.types import Ticket

    torch.set_num_threads(1)
    rows = [
        VideoRow(*row[:5], decoders_ok=tuple(row[5])) for row in json.loads((Path(folder) / "rows.json").read_text())
    ]
    _, task = build_networks(load_recipe(recipe, ["data.root=."]).recipe)
    dataset = ClipDataset(Manifest(folder, tuple(rows)), rows, task.clip_maker(True), seed=0, segment_seconds=1e9)
    collate([dataset[(Ticket(0, 0, 0, 0),)]])
    found = {}
    for number in clips:
        start, count = time.process_time(), 0
        for epoch in range(max(1, 8 // number)):
            for index in range(len(dataset)):
                group = tuple(Ticket(0, epoch, 0, index, clip) for clip in range(number))
                count += len(collate([dataset[group]])["weight"])
        found[str(number)] = 1000 * (time.process_time() - start) / count
    return found | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def step_ms(recipe: str) -> float:
    """CPU milliseconds of a training step of the recipe, for a sample."""
    from ssvid.recipe.load import load_recipe
    from tests.benchmarks.bench_step import measure

    batch = load_recipe(recipe, allow_missing=True).recipe.loader.global_batch
    found = measure(recipe, [], batch=batch, device="cpu", precision="32", steps=3)
    return 1000 * float(found["cpu_seconds_per_sample"])


def write_rows(folder: Path) -> None:
    """Scan the files once, so that no process that is measured does."""
    from ssvid.video import scan_video

    rows = []
    for path in sorted(folder.rglob("*.*")):
        if path.suffix in (".mp4", ".avi", ".mkv", ".mts"):
            scan = scan_video(path)
            info = scan.info
            name = path.relative_to(folder).as_posix()
            rows.append([name, info.num_frames, info.fps, info.height, info.width, list(scan.decoders_ok)])
    (folder / "rows.json").write_text(json.dumps(rows))


def rounds_of(
    folder: Path, recipe: str, clips: Sequence[int], checkouts: Sequence[Path], rounds: int
) -> list[list[dict[str, float]]]:
    """For each checkout its rounds; the checkouts take turns."""
    found: list[list[dict[str, float]]] = [[] for _ in checkouts]
    for _ in range(rounds):
        for number, checkout in enumerate(checkouts):
            command = [sys.executable, __file__, str(folder), recipe, "--once", "--clips", *map(str, clips)]
            environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found[number].append(json.loads(done.stdout.splitlines()[-1]))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("recipes", nargs="*", default=["pretrain/speediness_tiny"])
    parser.add_argument("--make", action="store_true", help="write footage into the folder, and stop")
    parser.add_argument("--against", type=Path, help="root of another checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, nargs="+", default=[1, 2, 4], help="clips of each opened file")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.make:
        make(options.folder)
    elif options.once:
        print(json.dumps(measure_once(str(options.folder), options.recipes[0], options.clips)))
    else:
        here = Path(__file__).resolve().parents[2]
        checkouts = [*([options.against.resolve()] if options.against else []), here]
        if not (options.folder / "rows.json").exists():
            write_rows(options.folder)
        for recipe in options.recipes:
            print(f"{recipe}: step {step_ms(recipe):.1f} ms a sample", flush=True)
            table = rounds_of(options.folder.resolve(), recipe, options.clips, checkouts, options.rounds)
            for clips in options.clips:
                ms = [statistics.median(found[str(clips)] for found in rounds) for rounds in table]
                ratio = f", {ms[0] / ms[1]:.2f}x" if len(ms) == 2 else ""
                print(f"  {clips} clips a file: {' -> '.join(f'{value:.1f}' for value in ms)} ms{ratio}", flush=True)
            mb = [max(found["peak_mb"] for found in rounds) for rounds in table]
            print(f"  peak {' -> '.join(f'{value:.0f}' for value in mb)} MB", flush=True)


if __name__ == "__main__":
    main()
