"""What comes back from an encoder: the same pictures, worse where it is told to save."""

import numpy as np
import pytest
import torch

from ssvid.video.reencoding import reencode
from tests.conftest import moving_square


def clip(num_frames=6, height=48, width=64):
    frames = np.stack(moving_square(num_frames, height, width))
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()


def error(a, b):
    return float((a.float() - b.float()).abs().mean())


def test_frames_keep_their_order_and_quality_falls_with_crf():
    frames = clip()
    errors = [error(frames, reencode(frames, crf=crf, gop=6)) for crf in (4, 24, 44)]
    assert errors[0] < errors[1] < errors[2]
    assert errors[0] < 3
    fine = reencode(frames, crf=4, gop=1)
    for t in range(6):
        nearest = min(range(6), key=lambda i: error(fine[t], frames[i]))
        assert nearest == t


def test_a_long_gop_leans_on_the_frame_before():
    """Of a still scene nothing is coded anew between key frames; a key frame is a new picture of the same quality."""
    still = clip(1).repeat(8, 1, 1, 1)
    long, short = reencode(still, crf=40, gop=8), reencode(still, crf=40, gop=4)
    changes = short.float().diff(dim=0).abs().mean(dim=(1, 2, 3)) > long.float().diff(dim=0).abs().mean(dim=(1, 2, 3))
    assert changes[3], "the second key frame, frame 4"


@pytest.mark.parametrize("size", [(47, 63), (9, 7)])
def test_odd_and_small_sizes_come_back_as_they_were(size):
    frames = clip(3)[..., : size[0], : size[1]].contiguous()
    again = reencode(frames, crf=10, gop=2)
    assert (again.shape, again.dtype) == (frames.shape, torch.uint8)
    assert error(frames, again) < 12
