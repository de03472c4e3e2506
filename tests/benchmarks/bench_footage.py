"""A still recording and a paused one at true size, indexed and read on a machine that is made many times slower.

    python -m tests.benchmarks.bench_footage [--minutes 10] [--slower 10]

``--minutes`` of one 1080p picture at 25 frames per second, and two stretches of a tenth of that with as long a pause as the
still one is long between them. Every decoded frame waits for nine times the CPU time that a scan takes for one. What is found is checked:
frames, times, windows, pixels, and that nothing counts as hung: with the limit of every index (60 s), or less for fewer minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np

from ssvid.data.index import processes as scanning
from ssvid.data.index.building import PATIENCE_SECONDS, build_manifest
from ssvid.data.manifest import Manifest
from ssvid.data.readers import Entry
from ssvid.video import open_video, scan_video
from ssvid.video.streams import FrameConverter
from tests.video.clocked import clock_frame, read_clock

FPS, HEIGHT, WIDTH = 25, 1080, 1920
NUM_READS = 6
SLOW = """
import time
from ssvid.video import available_decoders, scan_video
from ssvid.video.streams import FrameConverter

at_full_speed = FrameConverter.__call__

def slowly(self, frame, *rest):
    time.sleep({seconds})
    return at_full_speed(self, frame, *rest)

FrameConverter.__call__ = slowly
"""


def encode_footage(path: Path, numbers: list[int], times: list[int]) -> None:
    """Pictures of the clock by their numbers (a still one repeats its number), in time steps of 1 / 25 s."""
    made: dict[int, av.VideoFrame] = {}
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "g": "250", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for number, when in zip(numbers, times, strict=True):
            if number not in made:
                rgb = av.VideoFrame.from_ndarray(clock_frame(number, HEIGHT, WIDTH), format="rgb24")
                made = {number: rgb.reformat(format="yuv420p")}
            made[number].pts = when
            output.mux(stream.encode(made[number]))
        output.mux(stream.encode(None))


def frame_seconds(path: Path) -> float:
    """CPU seconds that a scan takes for a frame."""
    started = time.process_time()
    num_frames = scan_video(path, ["pyav"]).info.num_frames
    return (time.process_time() - started) / num_frames


@contextmanager
def slow_scanner(folder: Path, seconds: float) -> Any:
    """Processes that scan meanwhile wait so long before they convert a frame."""
    name, before, path = f"slow_video_{folder.name}", scanning.SCANNER, list(sys.path)
    (folder / f"{name}.py").write_text(SLOW.format(seconds=seconds))
    convert = FrameConverter.__call__
    sys.path.insert(0, str(folder))
    scanning.SCANNER = name
    try:
        yield
    finally:
        scanning.SCANNER, sys.path[:] = before, path
        FrameConverter.__call__ = convert  # type: ignore[method-assign]  # this process imports the module too
        sys.modules.pop(name, None)


def index_footage(root: Path, minutes: float, slower: float, say: Any = print) -> Manifest:
    """Encode, index, and check what the table says; the rows are still.mp4, a window of it, paused.mp4, its second half.

    Raises:
        AssertionError: something is not as it was encoded. UserWarning: a file counts as hung.
    """
    num_still, num_half = round(minutes * 60 * FPS), round(minutes * 6 * FPS)
    started = time.monotonic()
    encode_footage(root / "still.mp4", [77] * num_still, list(range(num_still)))
    resumed = num_half + num_still
    encode_footage(
        root / "paused.mp4",
        [number % 256 for number in range(2 * num_half)],
        [*range(num_half), *range(resumed, resumed + num_half)],
    )
    say(f"encoded {num_still} and {2 * num_half} frames in {time.monotonic() - started:.0f} s")
    own = frame_seconds(root / "paused.mp4")
    delay = own * (slower - 1)
    say(f"a frame takes {1000 * own:.1f} ms of CPU time, and waits {1000 * delay:.0f} ms more")
    middle, patience = minutes * 30, PATIENCE_SECONDS * minutes / 10
    entries = [
        Entry("still.mp4"),
        Entry("still.mp4", start_seconds=middle, end_seconds=middle + 1),
        Entry("paused.mp4"),
        Entry("paused.mp4", start_seconds=resumed / FPS - 1),
    ]
    started = time.monotonic()
    with slow_scanner(root, delay), warnings.catch_warnings():
        warnings.simplefilter("error")
        manifest = build_manifest(root, entries, workers=2, cache=False, timeout_seconds=patience)
    say(f"indexed in {time.monotonic() - started:.0f} s; hung is what gives no sign of life for {patience:g} s")
    still, window, paused, after = manifest.rows
    for row in manifest.rows:
        assert (row.status, row.height, row.width) == ("ok", HEIGHT, WIDTH), row
        assert "pyav" in row.decoders_ok, row
    assert (still.num_frames, still.variable_fps, round(still.fps, 3)) == (num_still, False, FPS)
    assert (window.start_frame, window.end_frame) == (round(middle * FPS), round(middle * FPS) + FPS)
    assert (paused.num_frames, paused.variable_fps) == (2 * num_half, True)
    assert (after.start_frame, after.end_frame) == (num_half, -1)
    say(f"paused.mp4: {paused.notes}")
    return manifest


def read_at_random(manifest: Manifest, say: Any = print) -> None:
    """Single frames of both files, at full speed, by the decoder of each; a wrong picture is an AssertionError."""
    draws = np.random.default_rng(0)
    for row, number_of in ((manifest.rows[0], lambda i: 77), (manifest.rows[2], lambda i: i % 256)):
        info, took = row.video_info(manifest.root), []
        for index in draws.integers(row.num_frames, size=NUM_READS).tolist():
            started = time.monotonic()
            for decoder in ("pyav", "auto"):
                with open_video(info.path, decoder, info=info, decoders_ok=row.decoders_ok) as reader:
                    assert read_clock(reader.frames_at(np.array([index]))[0].numpy()) == number_of(index)
            took.append(time.monotonic() - started)
        say(f"{row.path}: {NUM_READS} frames at random, each by PyAV and by auto, in {max(took):.1f} s at most, right")


def main() -> None:
    """Print each stage with its seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the still recording, and of the pause")
    parser.add_argument("--slower", type=float, default=10.0, help="how many times as long a frame is to take")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        read_at_random(index_footage(Path(folder), arguments.minutes, arguments.slower))


if __name__ == "__main__":
    main()
