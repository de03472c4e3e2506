"""Which frames a clip consists of: pure index arithmetic, no pixel, no file."""

from __future__ import annotations

import numpy as np

from ssvid.errors import DataError
from ssvid.types import VideoInfo


def clip_span(num_frames: int, stride_frames: int) -> int:
    """Frames from the first to the last of a clip, both counted."""
    if num_frames < 1 or stride_frames < 1:
        raise DataError(
            f"num_frames ({num_frames}) and stride_frames ({stride_frames}) must both be at least 1."
            " Change the length or the stride of the clip."
        )
    return (num_frames - 1) * stride_frames + 1


def clip_indices(start: int, num_frames: int, stride_frames: int = 1) -> np.ndarray:
    """The frames of one clip: int64 (num_frames,), ``start, start + stride, ...``.

    Raises:
        DataError: start is negative, or num_frames or stride_frames is below 1.
    """
    clip_span(num_frames, stride_frames)
    if start < 0:
        raise DataError(f"start ({start}) must not be negative: frames are counted from 0.")
    return start + stride_frames * np.arange(num_frames, dtype=np.int64)


def random_clip(rng: np.random.Generator, available: int, num_frames: int, stride_frames: int = 1) -> np.ndarray:
    """A clip whose start is uniform over all places where it fits: int64 (num_frames,).

    Args:
        rng: draws one integer.
        available: frames of the video.

    Raises:
        DataError: the video is shorter than the clip. It is never looped or padded.
    """
    span = clip_span(num_frames, stride_frames)
    if available < span:
        raise DataError(
            f"available frames ({available}) must be at least {span} for a clip of {num_frames} frames at stride"
            f" {stride_frames}. Use longer videos, or a smaller num_frames or stride_frames."
        )
    return clip_indices(int(rng.integers(available - span + 1)), num_frames, stride_frames)


def frame_gap(num_frames: int, fps: float, *, count: int, sample_fps: float) -> int:
    """Frames from one of ``count`` evenly spaced frames to the next: about fps / sample_fps, less in a short video."""
    wanted = max(1, round(fps / sample_fps)) if sample_fps > 0 else 1
    return min(wanted, (num_frames - 1) // (count - 1))


def spaced_frames(rng: np.random.Generator, video: VideoInfo, count: int, sample_fps: float) -> np.ndarray:
    """So many evenly spaced frames anywhere in the video: int64 (count,). In a short video they lie closer together.

    Args:
        rng: draws one integer.
        count: at least 2, and at most the frames of the video.
        sample_fps: frames per second that are taken; 0 takes the video's own, one after the other.
    """
    gap = frame_gap(video.num_frames, video.fps, count=count, sample_fps=sample_fps)
    return int(rng.integers(video.num_frames - gap * (count - 1))) + gap * np.arange(count, dtype=np.int64)


def evenly_spaced_clips(
    available: int, num_clips: int, num_frames: int, stride_frames: int = 1
) -> tuple[np.ndarray, ...]:
    """The clips of an evaluation: the first starts at frame 0, the last ends at the last frame, one alone is central.

    Where the video is shorter than a clip its last frame is repeated: the only place where ssvid repeats a frame,
    because an evaluation must score every video. ``is_padded`` says whether that happened.

    Returns:
        ``num_clips`` arrays, int64 (num_frames,) each.

    Raises:
        DataError: available, num_clips, num_frames or stride_frames is below 1.
    """
    if available < 1 or num_clips < 1:
        raise DataError(f"available frames ({available}) and num_clips ({num_clips}) must both be at least 1.")
    room = max(available - clip_span(num_frames, stride_frames), 0)
    starts = [room / 2] if num_clips == 1 else np.linspace(0, room, num_clips)
    clips = (clip_indices(int(start), num_frames, stride_frames) for start in starts)
    return tuple(np.minimum(clip, available - 1) for clip in clips)


def is_padded(available: int, num_frames: int, stride_frames: int = 1) -> bool:
    """Whether a clip does not fit into the video, so that an evaluation repeats the last frame."""
    return available < clip_span(num_frames, stride_frames)


def window_weights(motion_T: np.ndarray, length: int, power: float) -> np.ndarray:
    """How likely a window of ``length`` frames starts at each frame: its mean flow to a power. (T - length + 1,), sum 1.

    The flow into the first frame of a window is not part of it. Where nothing moves, all starts are alike.
    """
    total = np.concatenate([[0.0], np.cumsum(motion_T, dtype=np.float64)])
    count = len(motion_T) - length + 1
    mean = (total[length:] - total[1 : count + 1]).clip(min=0.0) / max(length - 1, 1)
    weights = mean**power
    return weights / weights.sum() if weights.sum() > 0 else np.full(count, 1.0 / count)
