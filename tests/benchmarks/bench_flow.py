"""What flow costs to measure and to keep: CPU seconds per minute of video, and containers by size and reading time.

Usage: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_flow VIDEO [VIDEO ...] [--sides 112 224] > table.md

The first 60 frames of each video, on one thread. Every container keeps the same 8-bit levels, one gray picture 2H x W a frame;
PNG, zlib and FFV1 are checked to give them back unchanged, of JPEG the largest error is told. Reading is of all frames in order.
"""

from __future__ import annotations

import argparse
import io
import itertools
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from ssvid.machine import environment
from ssvid.types import VideoInfo
from ssvid.video.flow import FlowSettings, to_levels, to_pixels
from ssvid.video.flow_file import FlowReader, write_flow
from ssvid.video.motion import every_frame
from ssvid.video.optical_flow import estimator, resized

FRAMES = 60
Codec = tuple[Callable[[Sequence[np.ndarray]], Any], Callable[[Any], Sequence[np.ndarray]], Callable[[Any], int]]


def pictures(kind: str, **options: Any) -> Codec:
    """Every frame as a picture of its own."""

    def encode(levels: Sequence[np.ndarray]) -> list[bytes]:
        files = []
        for frame in levels:
            file = io.BytesIO()
            Image.fromarray(frame).save(file, kind, **options)
            files.append(file.getvalue())
        return files

    return (
        encode,
        lambda files: [np.asarray(Image.open(io.BytesIO(file))) for file in files],
        lambda f: sum(map(len, f)),
    )


def differences() -> Codec:
    """Every frame as differences of neighbors, compressed by zlib."""

    def encode(levels: Sequence[np.ndarray]) -> list[tuple[bytes, tuple[int, ...]]]:
        steps = (np.diff(frame.astype(np.int16), axis=1, prepend=0).astype(np.uint8) for frame in levels)
        return [(zlib.compress(step.tobytes(), 6), step.shape) for step in steps]

    def decode(files: Sequence[tuple[bytes, tuple[int, ...]]]) -> list[np.ndarray]:
        steps = (np.frombuffer(zlib.decompress(data), np.uint8).reshape(shape) for data, shape in files)
        return [np.cumsum(step, axis=1, dtype=np.uint8) for step in steps]

    return encode, decode, lambda files: sum(len(data) for data, _ in files)


def ours(folder: Path, settings: FlowSettings) -> Codec:
    """The file that ``ssvid data flow`` writes: FFV1."""
    path = folder / "x.flow.mkv"

    def encode(levels: Sequence[np.ndarray]) -> tuple[int, int, int]:
        height, width = levels[0].shape[0] // 2, levels[0].shape[1]
        motion = (frame.reshape(2, height, width).transpose(1, 2, 0) for frame in levels)
        write_flow(path, (to_pixels(m, settings.most_px) for m in motion), settings, len(levels))
        return len(levels), height, width

    def decode(size: tuple[int, int, int]) -> list[np.ndarray]:
        with FlowReader(path, VideoInfo("v", size[0], 25.0, *size[1:], channels=2), settings) as reader:
            frames = reader.frames_at(np.arange(size[0])).numpy()
        return list(frames.reshape(size[0], -1, size[2]))

    return encode, decode, lambda size: path.stat().st_size


def timed(work: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """What it returns, and its CPU seconds."""
    started = time.process_time()
    return work(*args), time.process_time() - started


def measured(path: str, settings: FlowSettings) -> tuple[list[np.ndarray], float]:
    """The flow of the first frames of a video as levels, and its CPU seconds, decoding included."""

    def work() -> list[np.ndarray]:
        estimate, levels, before = estimator(settings.method), [], None
        for frame in itertools.islice(every_frame(path, ()), FRAMES + 1):
            small = resized(frame, *settings.size_of(*frame.shape[:2]))
            if before is not None:
                levels.append(to_levels(estimate(before, small), settings.most_px))
            before = small
        return [level.transpose(2, 0, 1).reshape(-1, level.shape[1]) for level in levels]

    return timed(work)


def table(videos: Sequence[str], side: int, folder: Path) -> list[str]:
    """The lines of one size."""
    settings = FlowSettings(short_side_px=side)
    measured(videos[0], settings)  # what is loaded once is not counted
    flows = [measured(video, settings) for video in videos]
    count = sum(len(levels) for levels, _ in flows)
    per_minute = 1500 * sum(seconds for _, seconds in flows) / count
    lines = [
        f"\n## Short side {side} px\n",
        f"{per_minute:.1f} CPU seconds per minute of video at 25 frames per second.\n",
    ]
    lines += ["| container | kB a frame | write, ms | read, ms | largest error, levels |", "|---|---|---|---|---|"]
    codecs = {
        "PNG": pictures("PNG", compress_level=6),
        "zlib of differences": differences(),
        "JPEG, quality 95": pictures("JPEG", quality=95),
        "FFV1 in Matroska": ours(folder, settings),
    }
    for name, (encode, decode, size) in codecs.items():
        num_bytes, written, read, worst = 0, 0.0, 0.0, 0
        for levels, _ in flows:
            kept, seconds = timed(encode, levels)
            written, num_bytes = written + seconds, num_bytes + size(kept)
            found, seconds = timed(decode, kept)
            read += seconds
            errors = (np.abs(a.astype(int) - b).max() for a, b in zip(found, levels, strict=True))
            worst = max(worst, *(int(error) for error in errors))
        cells = (
            f"{num_bytes / count / 1000:.2f}",
            f"{1000 * written / count:.2f}",
            f"{1000 * read / count:.2f}",
            str(worst),
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--sides", type=int, nargs="+", default=[112, 224])
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        for side in args.sides:
            print("\n".join(table(args.videos, side, Path(folder))), flush=True)
    print(f"\n{environment()}")


if __name__ == "__main__":
    main()
