"""Frame exactness on real files: every healthy clip of UCF101, HMDB51 and Weizmann, and a museum of awkward ones.

Run with SSVID_REAL_DATA set. The oracle is a plain PyAV loop, written here.
"""

import csv
from collections import Counter
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest

from ssvid.errors import DecodeError
from ssvid.video import VideoScan, available_decoders, open_video, read_clips, scan_video
from ssvid.video.decoders.choice import create_reader
from ssvid.video.streams import OPEN_LENIENTLY

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

INSTALLED = [name for name, status in available_decoders().items() if status.works]
OTHERS = [name for name in INSTALLED if name != "pyav"]

# What two decoders of different age may differ by in the same frame, in mean of 8-bit RGB: a few rounded pixels.
SAME_FRAME = 0.002


def oracle(path: Path, wanted: set[int]) -> tuple[dict[int, np.ndarray], int]:
    """The wanted frames of a plain sequential decode, CHW, and how many frames there are in all."""
    frames, count = {}, 0
    with av.open(str(path), **OPEN_LENIENTLY) as container:
        for count, frame in enumerate(container.decode(video=0), start=1):
            if count - 1 in wanted:
                frames[count - 1] = frame.to_ndarray(format="rgb24", threads=1).transpose(2, 0, 1)
    return frames, count


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of two uint8 pictures."""
    return float((np.maximum(a, b) - np.minimum(a, b)).mean())


def shift_of(path: Path, frame_CHW: np.ndarray, index: int) -> int:
    """By how many frames a wrong frame is off: the nearest of the right one's neighbors."""
    frames, _ = oracle(path, {index + d for d in range(-4, 5)})
    return min(frames, key=lambda i: apart(frames[i], frame_CHW)) - index


def check_other(name: str, path: Path, scan: VideoScan, wanted: np.ndarray, frames: dict[int, np.ndarray]) -> list[int]:
    """The shifts of another decoder's frames; the scan must not have approved one that has any."""
    try:
        with create_reader(name, str(path), scan.info) as reader:
            decoded = reader.frames_at(wanted).numpy()
    except DecodeError:
        assert name not in scan.decoders_ok, path
        return []
    wrong = [
        (int(i), frame) for i, frame in zip(wanted, decoded, strict=True) if apart(frame, frames[int(i)]) > SAME_FRAME
    ]
    assert not wrong or name not in scan.decoders_ok, (path, name, [i for i, _ in wrong])
    # The nearest neighbor costs a decode of the file: one wrong frame of a request tells enough.
    return [0] * (len(wanted) - len(wrong)) + [shift_of(path, frame, i) for i, frame in wrong[:1]] * len(wrong)


def check_file(path: Path, seed: int, shifts: Counter[tuple[str, int]]) -> VideoScan:
    """Ask every decoder for a clip and for scattered frames; PyAV and the approved ones must return the oracle's."""
    scan = scan_video(path)
    rng = np.random.default_rng(seed)
    num_frames = scan.info.num_frames
    clip = int(rng.integers(max(num_frames - 8, 1))) + np.arange(min(8, num_frames))
    scattered = np.append(rng.integers(0, num_frames, 3), num_frames - 1)
    frames, count = oracle(path, {*clip.tolist(), *scattered.tolist()})
    assert num_frames == count, path
    with open_video(path, "pyav", info=scan.info, decoders_ok=scan.decoders_ok) as reader:
        for wanted, decoded in zip((clip, scattered), read_clips(reader, [clip, scattered]), strict=True):
            assert np.array_equal(decoded.numpy(), np.stack([frames[int(i)] for i in wanted])), path
    for name, wanted in product(OTHERS, (clip, scattered)):
        shifts.update((name, shift) for shift in check_other(name, path, scan, wanted, frames))
    return scan


def check_folder(folder: Path) -> tuple[dict[str, VideoScan], Counter[tuple[str, int]], Counter[tuple[str, int]]]:
    """Every file of a data set; the shifts are counted apart for plain files and for those with B-frames.

    Files with a packet that shows no frame ("header" in the notes) go with the latter: they put the others off as well.
    """
    scans, plain, with_b = {}, Counter(), Counter()
    for seed, path in enumerate(sorted(folder.rglob("*.avi"))):
        shifts: Counter[tuple[str, int]] = Counter()
        scan = scans[path.name] = check_file(path, seed, shifts)
        (with_b if scan.has_b_frames or "header" in scan.notes else plain).update(shifts)
    return scans, plain, with_b


def only_zero(shifts: Counter[tuple[str, int]]) -> bool:
    return all(shift == 0 for _, shift in shifts)


def test_ucf101(real_data: Path) -> None:
    scans, plain, with_b = check_folder(real_data / "ucf101")
    b_files = [name for name, scan in scans.items() if scan.has_b_frames]
    empty_packet = ["v_Kayaking_g12_c03.avi"]
    print(f"\nucf101: shifts without B-frames {dict(plain)}, with {dict(with_b)}")
    assert (len(scans), len(b_files)) == (125, 19)
    assert [name for name, scan in scans.items() if "header" in scan.notes] == empty_packet
    assert only_zero(plain)
    for name, scan in scans.items():
        assert scan.decoders_ok == (("pyav",) if name in b_files + empty_packet else tuple(INSTALLED)), name
        assert not scan.info.variable_fps
        assert (scan.info.height, scan.info.width) == (240, 320)
        assert scan.info.fps == pytest.approx(25) or scan.info.fps == pytest.approx(30000 / 1001), name
    if "torchcodec" in OTHERS:
        assert not only_zero(with_b)  # or the rule that excludes it there would have no reason


def test_hmdb51(real_data: Path) -> None:
    scans, plain, with_b = check_folder(real_data / "hmdb51")
    print(f"\nhmdb51: shifts {dict(with_b)}")
    assert len(scans) == 11
    assert not plain
    assert sum(scan.has_b_frames for scan in scans.values()) == 10
    assert all(scan.decoders_ok == ("pyav",) for scan in scans.values())
    assert all(scan.info.fps == pytest.approx(30) for scan in scans.values())


def test_weizmann(real_data: Path) -> None:
    scans, plain, with_b = check_folder(real_data / "weizmann")
    assert len(scans) == 90
    assert not with_b
    assert only_zero(plain)
    assert all(scan.decoders_ok == tuple(INSTALLED) for scan in scans.values())


def scan_awkward(path: Path, width: str) -> VideoScan:
    """Scan; the comparison of decoders is left out where pictures are so large that it would take long."""
    return scan_video(path, ["pyav"] if width and int(width) > 640 else None)


def check_random_access(path: Path, scan: VideoScan, seed: int) -> None:
    """PyAV's random access against its decode from the start of the file."""
    wanted = np.random.default_rng(seed).integers(0, scan.info.num_frames, 6)
    with create_reader("pyav", str(path), scan.info, seek=False) as reader:
        right = reader.frames_at(wanted)
    with open_video(path, "pyav", info=scan.info, decoders_ok=("pyav",)) as reader:
        assert np.array_equal(reader.frames_at(wanted).numpy(), right.numpy()), path


def test_the_museum_of_awkward_files(real_data: Path) -> None:
    """Each gives a scan or a DecodeError; counts and sizes are those that ffmpeg itself found when they were gathered."""
    with open(real_data / "provenance.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["path"].startswith("awkward/")]
    refused, checked = {}, 0
    for seed, row in enumerate(rows):
        path = row["path"]
        try:
            scan = scan_awkward(real_data / path, row["width"])
        except DecodeError:
            refused[path] = int(row["frames_decoded"])
            continue
        assert "pyav" in scan.decoders_ok or "damage" in scan.notes, path
        if scan.info.height * scan.info.width <= 320 * 240 * 2:
            check_random_access(real_data / path, scan, seed)
            checked += 1
        if path == "awkward/torchcodec/nasa_13013.mp4":
            continue  # two video streams: the record is of the first, we read the main one
        assert scan.info.num_frames == int(row["frames_decoded"]), path
        size = int(row["height"]), int(row["width"])
        turned = row["rotation"] in ("90", "-90", "270")
        assert (scan.info.height, scan.info.width) == (size[::-1] if turned else size), path
    assert (len(rows), len(refused), checked) == (132, 29, 89)
    # What is refused: ffmpeg finds no frame in it either, or it is a still image, or damaged beyond the limit.
    assert sorted(path for path, num_frames in refused.items() if num_frames) == [
        "awkward/derived/broken_jpeg_named.avi",
        "awkward/derived/broken_truncated_60pct_moov_first.mp4",
        "awkward/mp4parse-rust/no_timescale.mp4",
    ]
