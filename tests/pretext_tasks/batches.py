"""Batches as workers make them, of videos of 64 x 48 px that stand in no file."""

import numpy as np
import torch

from ssvid.tasks import BatchRandom
from ssvid.types import Ticket


def made_by(maker, video, num=3, pixels=None):
    """A batch and its draws. pixels (T, 3, 48, 64) default to the frame's number."""
    if pixels is None:
        pixels = torch.arange(video.num_frames, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 48, 64)
    samples = []
    for i in range(num):
        rng = np.random.default_rng(i)
        p = maker.plan(video, rng, np.random.default_rng(0))
        samples.append(maker.transform((pixels[torch.from_numpy(p.views[0].copy())],), p, rng, rng))
    batch = {k: torch.stack([s[k] for s in samples]) for k in samples[0]}
    return batch, BatchRandom.of(0, [Ticket(0, 0, 0, i) for i in range(num)])
