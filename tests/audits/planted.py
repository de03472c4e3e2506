"""Videos that give the answer away, and videos that do not: small, still or moving, with one cue planted each.

Speediness compares frames 0 1 2 ... with frames 0 2 4 ...; whatever changes from each frame to the next, or only every
second frame, therefore tells the two apart although nothing moves. The arrow of time is told by whatever changes one way.
"""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ssvid.data.manifest import Manifest, VideoRow
from ssvid.video import content_id, write_video

SIDE, NUM_FRAMES = 32, 24
COUNTER_AT = (slice(12, 14), slice(20, 22))  # row 2, column 3 of the raster of 4


def texture(rng):
    """A still picture with detail of every size."""
    coarse = rng.integers(60, 190, (4, 4, 3)).repeat(8, 0).repeat(8, 1)
    return (coarse + rng.normal(0, 14, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)


def still(rng):
    ground = texture(rng)
    return [ground.copy() for _ in range(NUM_FRAMES)]


def grain(frames, rng, level=2.0):
    """The noise of a camera, anew in every frame: nothing is exactly still."""
    return [(f + rng.normal(0, level, f.shape)).clip(0, 255).astype(np.uint8) for f in frames]


def counter(rng):
    """A frame counter: one spot of two by two pixels, brighter by 10 in every frame."""
    frames = still(rng)
    for t, frame in enumerate(frames):
        frame[COUNTER_AT] = 10 * t
    return grain(frames, rng)


def jpeg(frame, quality):
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def quality(rng):
    """Every second frame went through JPEG of poor quality, as B-frames of a careless encoder look."""
    return grain([jpeg(frame, 12 if t % 2 else 95) for t, frame in enumerate(still(rng))], rng)


def border(rng):
    """Every second frame has a white border one pixel wide."""
    frames = still(rng)
    for frame in frames[::2]:
        frame[[0, -1]] = 255
        frame[:, [0, -1]] = 255
    return grain(frames, rng)


def moving(rng):
    """No cue: a square of some color slides over the ground, one or two pixels a frame are its speed."""
    ground, size = texture(rng), 8
    y, x = rng.uniform(0, SIDE - size, 2)
    angle = rng.uniform(0, 2 * np.pi)
    color, frames = rng.choice([20, 235], 3), []
    for t in range(NUM_FRAMES):
        frame = ground.copy()
        top, left = (
            int(v)
            for v in ((y + 1.2 * t * np.sin(angle)) % (SIDE - size), (x + 1.2 * t * np.cos(angle)) % (SIDE - size))
        )
        frame[top : top + size, left : left + size] = color
        frames.append(frame)
    return grain(frames, rng)


def rising_border(rng):
    """A border one pixel wide that grows brighter in time."""
    return grain(_with_border(still(rng)), rng)


def ringing(rng):
    """The finest ripple grows in time, as where a coder rings the more, the farther the last key frame is."""
    ripple = np.indices((SIDE, SIDE)).sum(axis=0)[..., None] % 2 - 0.5
    return grain([(f + ripple * t / 2).clip(0, 255) for t, f in enumerate(still(rng))], rng, 0.5)


def cooling(rng):
    """No cue: a glowing square cools, and grows darker evenly."""
    ground, (top, left) = texture(rng), rng.integers(6, SIDE - 18, 2)
    frames = [ground.copy() for _ in range(NUM_FRAMES)]
    for t, frame in enumerate(frames):
        frame[top : top + 12, left : left + 12] = np.array([250, 190, 120]) - 4 * t
    return grain(frames, rng)


def cooling_in_a_border(rng):
    """The same within a border that grows brighter in time."""
    return _with_border(cooling(rng))


def _with_border(frames):
    for t, frame in enumerate(frames):
        frame[[0, -1]] = 10 * t
        frame[:, [0, -1]] = 10 * t
    return frames


def write_videos(folder: Path, make, count: int = 64, *, gop: int = 1) -> Manifest:
    """``count`` videos and their table; the last third is the split ``val``. Key frames only, so that nothing else tells."""
    rows = []
    for i in range(count):
        path = folder / f"{i:03d}.mp4"
        write_video(path, make(np.random.default_rng([17, i])), 25.0, crf=4, gop=gop)
        row = VideoRow(path.name, NUM_FRAMES, 25.0, SIDE, SIDE, split="train" if 3 * i < 2 * count else "val")
        rows.append(replace(row, content_id=content_id(path)))
    manifest = Manifest(folder, tuple(rows))
    manifest.save(folder / "manifest.csv")
    return manifest


def recipe(root: Path, *, epochs: int = 8) -> dict:
    """Speediness of the plainest kind: exact speeds, no guard, no resizing. It trains in seconds."""
    return {
        "kind": "pretrain",
        "data": {"name": "manifest", "root": str(root)},
        "backbone": {"name": "tiny3d", "options": {"width": 4, "input": "difference"}},
        "task": {
            "name": "speediness",
            "options": {
                "num_frames": 8, "spacing": "off", "random_resolution": False, "crop_scale": 1.0, "flip": False,
                "frame_px": SIDE, "eval_px": SIDE,
            },
        },
        "optim": {"name": "adamw", "base_lr": 0.16, "epochs": epochs, "warmup_epochs": 1},
        "loader": {"global_batch": 8, "workers_per_device": 0},
        "trainer": {"accelerator": "cpu", "threads": 1},
    }  # fmt: skip


def arrow_recipe(root: Path, *, guarded: bool, epochs: int = 8) -> dict:
    """The arrow of time, with its border guard or without any, at the size of ``recipe``."""
    options = {
        "num_frames": 8, "groups": 1, "layers": 0, "flip": False, "crop_scale": 1.0, "stabilize": False,
        "border_share": 0.0625 if guarded else 0.0, "frame_px": 28 if guarded else SIDE,
    }  # fmt: skip
    return recipe(root, epochs=epochs) | {"task": {"name": "arrow_of_time", "options": options}}
