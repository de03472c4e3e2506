"""A few synthetic actions, whose phases are known."""

from pathlib import Path

from ssvid.data.manifest import Manifest
from ssvid.data.synth import SyntheticVideos, synthesize

NUM_TRAIN, NUM_TEST = 8, 8


def make_actions(root: Path) -> Manifest:
    """Two training and two test videos of each of four actions, 15 frames of 32 pixels each."""
    made = SyntheticVideos(num_train=NUM_TRAIN, num_test=NUM_TEST, seconds=3.0, fps=5.0, size_px=32, motions="actions")
    return synthesize(root, made, workers=1)
