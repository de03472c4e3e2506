"""Clips that are resized and cropped while they are read: the bits of whole clips that are resized afterwards."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as pixels

from ssvid.data.manifest import Manifest, VideoRow
from ssvid.features import reading
from ssvid.features.protocol import FeatureProtocol
from ssvid.features.reading import even_starts, frame_order, read_videos
from ssvid.features.views import crop_views
from ssvid.transforms.color import jitter_clip, random_jitter
from ssvid.video import clip_indices, open_video, read_clips, scan_video, write_video
from tests.frozen import make_row


def wide_row(root):
    """A video twice as wide as high, whose sides are no multiples of 8."""
    noise = np.random.default_rng(0).integers(0, 256, (14, 46, 92, 3), dtype=np.uint8)
    write_video(root / "wide.mp4", noise, fps=25, crf=10)
    return VideoRow("wide.mp4", 14, 25.0, 46, 92, decoders_ok=("pyav",))


def whole_clips(manifest, row, protocol):
    """uint8 VTCHW: all frames of all clips as the decoder gives them."""
    clips = [
        clip_indices(int(start), protocol.num_frames, protocol.stride_frames)[frame_order(protocol, row, int(start))]
        for start in even_starts(row, protocol)
    ]
    shifted = [np.minimum(clip, row.window_frames - 1) + row.start_frame for clip in clips]
    whole = replace(row, start_frame=0, end_frame=-1).video_info(manifest.root)
    with open_video(whole.path, protocol.decoder, info=whole, decoders_ok=row.decoders_ok) as reader:
        return torch.stack(read_clips(reader, shifted))


def resized_afterwards(clips_VTCHW, resize_px):
    """All clips of a video at once."""
    flat = clips_VTCHW.flatten(0, 1).float().div_(255)
    return pixels.resize(flat, [resize_px], antialias=True).unflatten(0, clips_VTCHW.shape[:2])


@pytest.mark.parametrize("portion_bytes", [1, 20_000, 8 << 20])
@pytest.mark.parametrize("changes", [{}, {"frames": "single_frame"}, {"frames": "shuffled"}, {"workers": 1}])
def test_clips_have_the_bits_of_whole_ones(manifest, quick, monkeypatch, portion_bytes, changes):
    monkeypatch.setattr(reading, "_PORTION_BYTES", portion_bytes)
    protocol = replace(quick, num_clips=3, **changes)
    short = make_row(manifest.root, "short.mp4", "red", "train", seed=77, num_frames=5)
    rows = (manifest.rows[0], replace(manifest.rows[1], start_frame=3), short, wide_row(manifest.root))
    for crop in (True, False):
        for row, item in zip(rows, read_videos(manifest, rows, protocol, crop=crop), strict=True):
            expected = resized_afterwards(whole_clips(manifest, row, protocol), protocol.resize_px)
            if crop:
                expected = pixels.center_crop(expected, [protocol.crop_px])
            assert torch.equal(item.clips_VTCHW, expected)


def test_jittered_clips_have_the_bits_of_whole_ones(manifest, quick):
    protocol = replace(quick, num_clips=6, num_frames=4, defects=("color_jitter",))
    rows = manifest.rows[:6]
    for row, item in zip(rows, read_videos(manifest, rows, protocol), strict=True):
        changed = []
        for clip, start in zip(whole_clips(manifest, row, protocol), even_starts(row, protocol), strict=True):
            draw = random_jitter((0.2, 0.2, 0.2, 0.1), 0.3, reading._addressed(row, int(start)))
            jittered = jitter_clip(clip.transpose(0, 1).float() / 255, draw).transpose(0, 1)
            changed.append((jittered * 255).round().clamp(0, 255).to(torch.uint8))
        expected = pixels.center_crop(resized_afterwards(torch.stack(changed), 28), [24])
        assert torch.equal(item.clips_VTCHW, expected)


@pytest.mark.parametrize("num_crops", [1, 3, 10])
def test_views_have_the_bits_of_whole_frames(manifest, quick, num_crops):
    row = wide_row(manifest.root)
    (item,) = read_videos(manifest, [row], quick, crop=num_crops == 1)
    expected = crop_views(resized_afterwards(whole_clips(manifest, row, quick), 28), 24, num_crops)
    assert torch.equal(crop_views(item.clips_VTCHW, 24, num_crops), expected)


@pytest.mark.real
@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51", "kth", "weizmann"])
def test_real_files_have_the_bits_of_whole_clips(real_data, dataset):
    root = real_data / dataset
    file = min((p for p in root.rglob("*.avi")), key=lambda path: path.stat().st_size)
    scan = scan_video(file)
    path, info = file.relative_to(root).as_posix(), scan.info
    row = VideoRow(path, info.num_frames, info.fps, info.height, info.width, decoders_ok=scan.decoders_ok)
    manifest, protocol = Manifest(root, (row,)), FeatureProtocol(num_clips=3, crop_px=112, resize_px=128, workers=0)
    (item,) = read_videos(manifest, [row], protocol)
    expected = resized_afterwards(whole_clips(manifest, row, protocol), 128)
    assert torch.equal(item.clips_VTCHW, pixels.center_crop(expected, [112]))


_PEAK = """
import resource, sys
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.features.protocol import FeatureProtocol
from ssvid.features.reading import read_videos
def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, row = peak_mb(), VideoRow("large.mp4", 40, 25.0, 2160, 3840)
protocol = FeatureProtocol(num_clips=4, crop_px=112, resize_px=128, workers=0)
for crop in (True, False):
    (item,) = read_videos(Manifest(sys.argv[1], (row,)), [row], protocol, crop=crop)
    assert item.clips_VTCHW is not None, item.reason
print(round(peak_mb() - before))
"""


@pytest.mark.slow
def test_clips_of_4k_are_never_held_whole(tmp_path):
    """Four clips of 16 whole frames are 1.6 GB, and as many floats four times as much."""
    frame = np.random.default_rng(0).integers(0, 256, (216, 384, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    write_video(tmp_path / "large.mp4", (np.roll(frame, 10 * t, 1) for t in range(40)), fps=25, preset="ultrafast")
    done = subprocess.run([sys.executable, "-c", _PEAK, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 900, "MB above what Python and the libraries take"
