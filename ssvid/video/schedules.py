"""Videos whose speed changes on a schedule that is known: the truth beside a curve of speediness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssvid.video.synthetic import draw_scene, render

SPEEDS = (0.35, 0.6, 1.0, 1.7, 2.4)  # times what is natural
SLOWED = (0.25, 0.35, 0.5, 0.7, 1.0)  # of a video with slow motion, and nothing that is faster than natural
STRETCH_SECONDS = (1.6, 3.0)  # how long a speed lasts


@dataclass(frozen=True)
class Scheduled:
    """A rendered video and its truth. frames_THWC: uint8. speeds_T: times the natural speed at each frame, the scene's own in it."""

    frames_THWC: np.ndarray
    speeds_T: np.ndarray
    fps: float

    @property
    def natural_factors(self) -> np.ndarray:
        """The factor that brings each frame to its natural speed; 1 where it is as fast already, or faster."""
        return np.maximum(1.0, 1 / self.speeds_T)


def draw_schedule(
    num_frames: int, fps: float, rng: np.random.Generator, speeds: Sequence[float] = SPEEDS
) -> np.ndarray:
    """A speed for each frame, constant for a stretch, then another one; all speeds come before one comes again. Float64 (T,)."""
    stretches: list[np.ndarray] = []
    order: list[float] = []
    last = 0.0
    while sum(map(len, stretches)) < num_frames:
        if not order:
            order = rng.permutation(speeds).tolist()
            order = order if order[0] != last else order[1:] + order[:1]
        last = order.pop(0)
        stretches.append(np.full(round(float(rng.uniform(*STRETCH_SECONDS)) * fps), last))
    return np.concatenate(stretches)[:num_frames]


def scheduled_times(speeds_T: np.ndarray, fps: float) -> np.ndarray:
    """When each frame is taken, in seconds of a scene that is played at these speeds; the first one at 0."""
    return np.concatenate([[0.0], np.cumsum(speeds_T[:-1])]) / fps


def scheduled_video(
    motion: str,
    seed: int,
    *,
    seconds: float = 12.0,
    fps: float = 25.0,
    size_px: int = 64,
    speeds: Sequence[float] = SPEEDS,
) -> Scheduled:
    """A scene of a motion that no data set of ``ssvid data synth`` holds, on a schedule of its own."""
    scene = draw_scene(motion, (seed, len("schedules"), 0), size_px)
    speeds_T = draw_schedule(round(seconds * fps), fps, np.random.default_rng([seed, 7]), speeds)
    rendering = render(scene, scheduled_times(speeds_T, fps))
    return Scheduled(rendering.frames_THWC, scene.speed * speeds_T, fps)
