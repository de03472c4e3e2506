"""What a training clip costs with each decoder: CPU milliseconds, one thread, files in the page cache.

    python -m tests.benchmarks.bench_decoders --data DIR [--files 6] [--repeats 3] [--json]

DIR holds folders of videos (``ucf101``, ``hmdb51``), which are measured apart, and apart with and without B-frames. A
clip is 16 frames at stride 1 from a random place; a reader is opened for 1 or for 4 clips. The rounds of the decoders
are interleaved and the best of the repeats counts, because a neighbor on the machine can slow any one of them down.
``pyav from the start`` decodes all frames up to the last wanted one: what random access saves is measured against it.
A star marks a decoder that returns wrong frames for some of the files.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssvid.errors import DecodeError
from ssvid.video import VideoScan, available_decoders, clip_indices, random_clip, read_clips, scan_video
from ssvid.video.decoders.choice import create_reader

NUM_FRAMES = 16
CLIPS_PER_OPEN = (1, 4)
SUFFIXES = (".avi", ".mp4", ".mkv", ".webm", ".mts", ".ts", ".mpg", ".vob", ".flv", ".wmv", ".ogv", ".mxf")
FROM_START = "pyav from the start"


@dataclass(frozen=True)
class Row:
    """One cell of the table: a group of files, a decoder, clips for each opened file, CPU milliseconds for one clip."""

    group: str
    decoder: str
    clips_per_open: int
    cpu_ms_per_clip: float
    num_files: int
    right: bool


def scan_groups(data: Path, num_files: int) -> dict[str, list[VideoScan]]:
    """Evenly chosen files of each folder, by whether they have B-frames; ``num_files`` of each kind."""
    groups: dict[str, list[VideoScan]] = defaultdict(list)
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        paths = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
        for path in paths[:: max(1, len(paths) // (num_files * 8))]:
            scan = _scan_or_none(path)
            if scan is None:
                continue
            group = groups[f"{folder.name}, {'with' if scan.has_b_frames else 'no'} B-frames"]
            if len(group) < num_files:
                group.append(scan)
    return groups


def _scan_or_none(path: Path) -> VideoScan | None:
    try:
        scan = scan_video(path)
    except DecodeError:
        return None  # the data may hold broken files; they are not what is measured
    return scan if scan.info.num_frames >= NUM_FRAMES else None


def clips_of(scan: VideoScan, num_clips: int, round_: int) -> list[np.ndarray]:
    """The same clips for every decoder."""
    rng = np.random.default_rng([scan.info.num_frames, num_clips, round_])
    return [random_clip(rng, scan.info.num_frames, NUM_FRAMES) for _ in range(num_clips)]


def cost(decoder: str, scans: Sequence[VideoScan], num_clips: int, round_: int) -> float:
    """CPU seconds to open each file and read its clips; infinite where the decoder raises."""
    name = "pyav" if decoder == FROM_START else decoder
    start = time.process_time()
    try:
        for scan in scans:
            with create_reader(name, scan.info.path, scan.info, seek=decoder != FROM_START) as reader:
                read_clips(reader, clips_of(scan, num_clips, round_))
    except DecodeError:
        return float("inf")
    return time.process_time() - start


def measure(group: str, scans: Sequence[VideoScan], decoders: Sequence[str], repeats: int, rounds: int) -> list[Row]:
    """Interleaved: every decoder is measured in every round before the next repeat begins."""
    best: dict[tuple[str, int, int], float] = {}
    for _ in range(repeats):
        for round_ in range(rounds):
            for num_clips in CLIPS_PER_OPEN:
                for decoder in decoders:
                    key = (decoder, num_clips, round_)
                    best[key] = min(best.get(key, float("inf")), cost(decoder, scans, num_clips, round_))
    rows = []
    for num_clips in CLIPS_PER_OPEN:
        for decoder in decoders:
            seconds = sum(best[decoder, num_clips, round_] for round_ in range(rounds))
            right = decoder == FROM_START or all(decoder in scan.decoders_ok for scan in scans)
            milliseconds = 1000 * seconds / (rounds * len(scans) * num_clips)
            rows.append(Row(group, decoder, num_clips, round(milliseconds, 2), len(scans), right))
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown, one line for each group and number of clips."""
    decoders = list(dict.fromkeys(row.decoder for row in rows))
    lines = [f"| files | clips per open | {' | '.join(decoders)} |", f"|---|--:|{'--:|' * len(decoders)}"]
    cells = {(row.group, row.clips_per_open, row.decoder): row for row in rows}
    for group, num_clips in dict.fromkeys((row.group, row.clips_per_open) for row in rows):
        shown = [cells[group, num_clips, decoder] for decoder in decoders]
        values = " | ".join(f"{row.cpu_ms_per_clip:.1f}{'' if row.right else ' *'}" for row in shown)
        lines.append(f"| {group} ({shown[0].num_files}) | {num_clips} | {values} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of folders of videos")
    parser.add_argument("--files", type=int, default=6, help="files of each kind")
    parser.add_argument("--rounds", type=int, default=4, help="different clips of each file")
    parser.add_argument("--repeats", type=int, default=3, help="the best of these counts")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    installed = [name for name, status in available_decoders().items() if status.works]
    rows = []
    for group, scans in scan_groups(options.data, options.files).items():
        decoders = [*installed, FROM_START]
        cost_once = clip_indices(0, NUM_FRAMES)
        for decoder in installed:  # the first use of a decoder loads libraries
            _warm_up(decoder, scans[0], cost_once)
        rows += measure(group, scans, decoders, options.repeats, options.rounds)
    print(json.dumps([vars(row) for row in rows], indent=1) if options.json else table(rows))


def _warm_up(decoder: str, scan: VideoScan, clip: np.ndarray) -> None:
    try:
        with create_reader(decoder, scan.info.path, scan.info) as reader:
            reader.frames_at(clip)
    except DecodeError:
        return  # measured as unable


if __name__ == "__main__":
    main()
