"""Videos whose truth is known: colored squares that slide over noise, with masks as PNG and tracks of points."""

from pathlib import Path

import numpy as np

from ssvid.data.manifest import Manifest, VideoRow
from ssvid.evals.contract import LabeledData
from ssvid.evals.label_propagation.saving import write_labels
from ssvid.video import content_id, write_video

HEIGHT, WIDTH, NUM_FRAMES = 48, 64, 6
COLORS = ((230, 40, 30), (40, 60, 230))


def place(number: int, t: int) -> tuple[int, int]:
    """Upper left corner (y, x) of a square of 16 px in frame t: the first one goes right, the second one left."""
    return (4, 4 + 3 * t) if number == 1 else (28, 44 - 3 * t)


def texture(number: int) -> np.ndarray:
    """What a square looks like: blocks of 4 px around its color."""
    blocks = np.random.default_rng([7, number]).integers(-60, 60, (4, 4, 1)).repeat(4, axis=0).repeat(4, axis=1)
    return np.clip(np.array(COLORS[number - 1]) + blocks, 0, 255).astype(np.uint8)


def frames_of(seed: int, num_objects: int, num_frames: int = NUM_FRAMES) -> list[np.ndarray]:
    ground = np.random.default_rng(seed).integers(90, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    frames = []
    for t in range(num_frames):
        frame = ground.copy()
        for number in range(1, num_objects + 1):
            y, x = place(number, t)
            frame[y : y + 16, x : x + 16] = texture(number)
        frames.append(frame)
    return frames


def mask_at(num_objects: int, t: int) -> np.ndarray:
    labels_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number in range(1, num_objects + 1):
        y, x = place(number, t)
        labels_HW[y : y + 16, x : x + 16] = number
    return labels_HW


def tracks_of(num_objects: int, num_frames: int = NUM_FRAMES) -> tuple[np.ndarray, np.ndarray]:
    """The middle of each square, always seen."""
    points = [[np.add(place(n, t), 8)[::-1] for n in range(1, num_objects + 1)] for t in range(num_frames)]
    return np.array(points, dtype=np.float64), np.ones((num_frames, num_objects), dtype=bool)


def make_tracked(root: Path, *, num_objects=(2, 1), num_frames: int = NUM_FRAMES, points: bool = False) -> Manifest:
    """One video for each entry: ``a.mp4`` and so on, its masks in ``truth/a``, or its tracks in ``truth/a.npz``."""
    rows = []
    for i, count in enumerate(num_objects):
        name = "abcdef"[i]
        write_video(root / f"{name}.mp4", frames_of(i, count, num_frames), fps=10)
        truth = root / "truth" / (f"{name}.npz" if points else name)
        (truth.parent if points else truth).mkdir(parents=True, exist_ok=True)
        if points:
            tracks, visible = tracks_of(count, num_frames)
            np.savez(truth, tracks=tracks, visible=visible)
        else:
            for t in range(num_frames):
                write_labels(truth / f"{t:05d}.png", mask_at(count, t))
        rows.append(
            VideoRow(
                f"{name}.mp4",
                num_frames,
                10.0,
                HEIGHT,
                WIDTH,
                decoders_ok=("pyav",),
                content_id=content_id(root / f"{name}.mp4"),
                truth=truth.relative_to(root).as_posix(),
            )
        )
    return Manifest(root, tuple(rows))


def data_of(manifest: Manifest) -> LabeledData:
    return LabeledData.checked(manifest, (), manifest.rows, labels=False)
