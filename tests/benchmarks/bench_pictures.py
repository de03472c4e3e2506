"""What a clip costs out of a folder of pictures and out of the file that ``join-frames`` makes of it; what listing costs.

    python -m tests.benchmarks.bench_pictures CLIPS [--repeats 5] [--many 100000]

CLIPS holds folders of pictures (``DAVIS/JPEGImages/480p``). A clip is 16 frames at stride 1 from a random place, read by
one thread, files in the page cache; folder and file take turns, and the best of the repeats counts. ``--many`` makes a
folder of so many small pictures and times how it is found, stamped for the cache, opened afresh and opened again.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ssvid.data.index.scan_cache import file_state
from ssvid.data.readers import find_videos
from ssvid.data.readers.frames import join_frames
from ssvid.types import VideoInfo
from ssvid.video import VideoScan, read_clips, scan_video
from ssvid.video.decoders.choice import create_reader
from ssvid.video.frame_folders import list_frames
from tests.benchmarks.bench_decoders import CLIPS_PER_OPEN, clips_of

ROUNDS = 3


def cost(scan: VideoScan, num_clips: int, round_: int) -> tuple[float, float]:
    """CPU and wall seconds to open a video and read its clips."""
    name = scan.decoders_ok[0]
    cpu, wall = time.process_time(), time.perf_counter()
    with create_reader(name, scan.info.path, scan.info) as reader:
        read_clips(reader, clips_of(scan, num_clips, round_))
    return time.process_time() - cpu, time.perf_counter() - wall


def compare(folders: Path, repeats: int) -> None:
    """Print CPU milliseconds a clip of each video as a folder and as a file, and how far their pixels are apart."""
    with tempfile.TemporaryDirectory() as joined:
        join_frames(folders, joined, fps=24)
        pairs = [(scan_video(folders / path), scan_video(Path(joined, f"{path}.mov"))) for path in find_videos(folders)]
        for num_clips in CLIPS_PER_OPEN:
            best: dict[tuple[int, int, int], float] = {}
            for _ in range(repeats):
                for round_ in range(ROUNDS):
                    for number, pair in enumerate(pairs):
                        for side, scan in enumerate(pair):
                            seconds, _ = cost(scan, num_clips, round_)
                            key = (number, round_, side)
                            best[key] = min(best.get(key, float("inf")), seconds)
            for side, name in enumerate(("folder", f"joined ({'+'.join(pairs[0][1].decoders_ok)})")):
                seconds = sum(value for key, value in best.items() if key[2] == side)
                milliseconds = 1000 * seconds / (ROUNDS * len(pairs) * num_clips)
                print(f"{num_clips} clips per open, {name}: {milliseconds:.1f} ms CPU a clip")
        print(f"pixels apart: {_apart(pairs)}")


def _apart(pairs: Sequence[tuple[VideoScan, VideoScan]]) -> str:
    differences = []
    for pair in pairs:
        clips = []
        for scan in pair:
            with create_reader(scan.decoders_ok[0], scan.info.path, scan.info) as reader:
                clips.append(reader.frames_at(np.arange(0, scan.info.num_frames, 10)).int())
        differences.append((clips[0] - clips[1]).abs())
    mean = np.mean([float(d.float().mean()) for d in differences])
    return f"{mean:.3f} on average, {max(int(d.max()) for d in differences)} at most, of 255"


def timed(what: str, call: Callable[[], object]) -> None:
    """Print the wall seconds of a call."""
    started = time.perf_counter()
    call()
    print(f"{what}: {time.perf_counter() - started:.3f} s")


def many(num_pictures: int) -> None:
    """Print what it costs to list a folder of so many pictures."""
    pixel = b"P5 1 1 255\n\x00"
    with tempfile.TemporaryDirectory() as root:
        clip = Path(root, "clip")
        clip.mkdir()
        for number in range(num_pictures):
            (clip / f"{number:06d}.pgm").write_bytes(pixel)
        before = time.time() - 60
        os.utime(clip, (before, before))
        info = VideoInfo(str(clip), num_pictures, 25.0, 1, 1)
        print(f"{num_pictures} pictures in one folder")
        timed("find_videos", lambda: find_videos(Path(root)))
        timed("listed and put in order", lambda: list_frames(clip))
        timed("state for the cache", lambda: file_state(clip))
        timed("opened again", lambda: create_reader("pictures", str(clip), info))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--many", type=int, default=0)
    args = parser.parse_args()
    if args.many:
        many(args.many)
    compare(args.clips, args.repeats)


if __name__ == "__main__":
    main()
