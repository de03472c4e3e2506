"""Actions of synthetic scenes: each is done once, in four parts, and every video takes its own time for each part.

Where in the action a frame lies is known: ``progress`` runs from 0 to 1, a quarter for each part, and ``phase_numbers`` counts
the parts. How long the parts last is drawn for each scene by itself, so that the place in the video alone says little of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

NUM_PHASES = 4
ACTION_SECONDS = 3.0  # of the whole action, at tempo 1
PART_RANGE = (
    0.3,
    1.7,
)  # shares of the parts before they are brought to a sum of 1: the longest may last six times the shortest

# Where the actor is between two parts: x, y from the middle (frame heights, y down), angle (radians), scale.
_POSES: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    # lifted, carried to the right, put down, pushed away
    "carry": ((-0.25, 0.2, 0, 1), (-0.25, -0.15, 0, 1), (0.25, -0.15, 0, 1), (0.25, 0.2, 0, 1), (0.1, 0.2, 0, 0.6)),
    # lifted to the middle, tilted, moved to the left while tilted, put down
    "pour": ((-0.2, 0.2, 0, 1), (0.1, -0.15, 0, 1), (0.1, -0.15, 1.9, 1), (-0.25, -0.15, 1.9, 1), (-0.25, 0.2, 1.9, 1)),
    # drawn back, swung, flies off, falls
    "throw": ((0, 0.2, 0, 1), (-0.25, 0.1, -0.8, 1), (0.1, -0.1, 0.8, 1.1), (0.3, -0.3, 2.5, 0.7), (0.3, 0.25, 4, 0.6)),
    # comes near, steps to the right, turns, leaves to the left
    "visit": ((0, -0.2, 0, 0.6), (0, 0, 0, 1.3), (0.25, 0, 0, 1.3), (0.25, 0.15, 1.6, 1.3), (-0.25, 0.2, 1.6, 1.3)),
}
ACTIONS = tuple(_POSES)
PARTS = tuple(f"part{number}" for number in range(NUM_PHASES))  # natural constants of a scene: shares of its four parts


def progress(t: np.ndarray, natural: Mapping[str, float]) -> np.ndarray:
    """How far the action is at ``t`` seconds of scene time: 0 before it begins, a quarter more after each part, 1 at its end."""
    shares = np.array([natural[part] for part in PARTS])
    ends = ACTION_SECONDS * np.concatenate([[0.0], np.cumsum(shares) / shares.sum()])
    return np.interp(t, ends, np.linspace(0, 1, NUM_PHASES + 1))


def phase_numbers(progress_T: np.ndarray) -> np.ndarray:
    """The part of the action that each frame is of: int64 (T,), 0 to 3. A border is of the part that begins there."""
    return np.minimum(np.floor(progress_T * NUM_PHASES), NUM_PHASES - 1).astype(np.int64)


def act(
    action: str, t: np.ndarray, natural: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """dx, dy (frame heights), angle and scale of the actor, each (T,): at a steady pace from pose to pose."""
    poses_N4 = np.array(_POSES[action], dtype=np.float64)
    done_T, borders = progress(t, natural), np.linspace(0, 1, len(poses_N4))
    dx, dy, angle, scale = (np.interp(done_T, borders, column) for column in poses_N4.T)
    return dx, dy, angle, scale
