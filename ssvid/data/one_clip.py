"""A clip anywhere in the video: what is planned by clip makers that read one clip of one length."""

from __future__ import annotations

import numpy as np

from ssvid.transforms import CutFirst
from ssvid.types import ClipPlan, VideoInfo
from ssvid.video.sampling import clip_span, random_clip


class OneClip(CutFirst):
    """Base of clip makers that read one clip; its ``cuts`` say what is cut out of it.

    Args:
        num_frames: of the clip. stride_frames: from one of its frames to the next.
    """

    def __init__(self, num_frames: int, stride_frames: int) -> None:
        self.num_frames, self.stride_frames = num_frames, stride_frames

    @property
    def min_frames(self) -> int:
        """Of the clip, from its first to its last frame."""
        return clip_span(self.num_frames, self.stride_frames)

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """A clip anywhere in the video."""
        return ClipPlan((random_clip(rng, video.num_frames, self.num_frames, self.stride_frames),))
