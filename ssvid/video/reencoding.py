"""Frames as they come back from another encoder: what a copy of the video on some other site would show."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ssvid.types import VideoInfo
from ssvid.video.opening import open_video
from ssvid.video.writer import write_video

_FPS = 25.0


def reencode(frames_TCHW: Tensor, *, crf: int, gop: int) -> Tensor:
    """Encode frames as a video of their own and decode it again.

    Args:
        frames_TCHW: (T, 3, H, W) uint8, consecutive frames. Odd sides are padded by a repeated line for the encoder.
        crf: quality, as in ``write_video``. gop: frames from one key frame to the next; the first frame is one.

    Returns:
        (T, 3, H, W) uint8.

    Raises:
        DataError: FFmpeg refuses. DecodeError: what it wrote cannot be read.
    """
    num_frames, _, height, width = frames_TCHW.shape
    even_TCHW = F.pad(frames_TCHW, (0, width % 2, 0, height % 2), mode="replicate")
    with tempfile.TemporaryDirectory(prefix="ssvid-") as folder:
        path = Path(folder) / "clip.mp4"
        pictures = (frame_CHW.permute(1, 2, 0).contiguous().numpy() for frame_CHW in even_TCHW)
        write_video(path, pictures, _FPS, crf=crf, gop=gop)
        info = VideoInfo(str(path), num_frames, _FPS, *even_TCHW.shape[2:])
        with open_video(path, "pyav", info=info) as reader:
            again_TCHW = reader.frames_at(np.arange(num_frames))
    return again_TCHW[..., :height, :width].contiguous()
