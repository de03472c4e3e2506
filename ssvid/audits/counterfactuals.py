"""The ways to change a clip: other frames of the same video (index arithmetic), or the same frames made to look different.

Each is a pure function of (frames, generator). A *sequence* is what the network is shown in one piece: each view of a
plan, or all views together where each of them is a single frame.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssvid.errors import RecipeError, did_you_mean
from ssvid.transforms.lab import LUMA
from ssvid.video.reencoding import reencode

# Where a counterfactual acts. VIDEO: on the frames as they come from the file, before the task crops and resizes them.
# CLIP: on the frames that the task hands to the device, so that what the task itself puts there is reached too.
VIDEO, CLIP = "video", "clip"
OCCLUSION_GRID = 4
BORDER_SHARE = 1 / 32  # of the short side
SHIFT_SHARE = 1 / 8  # of each side, that a shifted frame lacks
REENCODINGS = ((28, 12), (36, 1), (36, 12))  # crf, GOP
SCALES = ((1, 2),)
RATES = ((4, 5), (3, 5))
_GRAY_LEVEL = 128

Reindex = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
Repaint = Callable[[Tensor, np.random.Generator], Tensor]


@dataclass(frozen=True)
class Counterfactual:
    """One way to change a clip, with one value.

    name: of the kind; tasks name it in ``must_fall`` and ``must_hold``. value: which of the kind, in words.
    place: ``VIDEO`` or ``CLIP``. reindex: other frames for a sequence of frames. repaint: other pixels for frames TCHW.
    by_frame: ``repaint`` does to each frame the same, whatever the others are, and draws nothing.
    from_others: all frames of each sequence but the last are those of another video of the batch; on the clip alone.
    lead_frames: above 0, ``repaint`` gets whole stretches of the video (every frame between those that are wanted), each
        with some frames before it; so many different numbers of them occur.
    """

    name: str
    value: str = ""
    place: str = VIDEO
    reindex: Reindex | None = field(default=None, compare=False)
    repaint: Repaint | None = field(default=None, compare=False)
    by_frame: bool = False
    from_others: bool = False
    lead_frames: int = 0

    @property
    def label(self) -> str:
        """Name and value, as tables print them."""
        return f"{self.name} {self.value}".strip()

    def rng(self, sample_rng: np.random.Generator) -> np.random.Generator:
        """A generator at the sample's own address and this counterfactual's name; ``sample_rng`` is left untouched."""
        seed = sample_rng.bit_generator.seed_seq
        entropy = np.atleast_1d(np.asarray(seed.entropy)).tolist()  # type: ignore[attr-defined]
        words = [*entropy, *seed.spawn_key, zlib.crc32(f"{self.label}/{self.place}".encode())]  # type: ignore[attr-defined]
        return np.random.default_rng(words)

    def other_frames(
        self, views: Sequence[np.ndarray], num_frames: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, ...]:
        """The frame indices of every view, each sequence changed by itself; all stay in [0, num_frames)."""
        if self.reindex is None:
            return tuple(views)
        if all(len(view) == 1 for view in views):
            together = self.reindex(np.concatenate(views), num_frames, rng)
            return tuple(together[i : i + 1] for i in range(len(views)))
        return tuple(self.reindex(view, num_frames, rng) for view in views)


# ---- which frames: (T,) -> (T,) --------------------------------------------------------------------------------------


def static(indices: np.ndarray, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """The first frame, over and over: nothing moves."""
    return np.full_like(indices, indices[0])


def shuffled(indices: np.ndarray, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """The same frames in random order."""
    return rng.permutation(indices)


def duplicated(indices: np.ndarray, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Every second frame repeats the one before it: 0 0 2 2 4 4."""
    held = indices.copy()
    held[1::2] = indices[0::2][: len(indices) // 2]
    return held


def irregular(indices: np.ndarray, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Each index moved by up to half a step (at least one frame) to either side; a rising or falling order is kept."""
    steps = np.diff(indices)
    reach = max(1, int(np.median(np.abs(steps))) // 2) if len(steps) else 1
    moved = np.clip(indices + rng.integers(-reach, reach + 1, len(indices)), 0, num_frames - 1)
    if (steps >= 0).all():
        return np.sort(moved)
    return np.sort(moved)[::-1].copy() if (steps <= 0).all() else moved


def resampled(
    indices: np.ndarray, num_frames: int, rng: np.random.Generator, *, numerator: int, denominator: int
) -> np.ndarray:
    """The video at numerator / denominator of its frame rate, played at the old one: i -> floor(floor(i r) / r).

    Each kept frame is held until the next one is due, as a converted video does it. Time runs as before.
    """
    kept = indices * numerator // denominator
    return np.minimum(kept * denominator // numerator, indices)


# ---- what they look like: TCHW uint8 -> TCHW uint8 -------------------------------------------------------------------


def reencoded(frames_TCHW: Tensor, rng: np.random.Generator, *, crf: int, gop: int) -> Tensor:
    """As another encoder gives them back."""
    return reencode(frames_TCHW, crf=crf, gop=gop)


def resized(frames_TCHW: Tensor, rng: np.random.Generator, *, numerator: int, denominator: int) -> Tensor:
    """Shrunk by numerator / denominator and enlarged again, bilinear: the finest detail is gone."""
    size = tuple(frames_TCHW.shape[-2:])
    small = tuple(max(1, side * numerator // denominator) for side in size)
    shrunk = F.interpolate(frames_TCHW.float(), small, mode="bilinear", antialias=True)
    again = F.interpolate(shrunk, size, mode="bilinear", align_corners=False)
    return again.round().clamp(0, 255).to(torch.uint8)


def bordered(frames_TCHW: Tensor, rng: np.random.Generator, *, share: float) -> Tensor:
    """The outermost pixels black, ``share`` of the short side wide."""
    width = max(1, round(min(frames_TCHW.shape[-2:]) * share))
    black = torch.zeros_like(frames_TCHW)
    black[..., width:-width, width:-width] = frames_TCHW[..., width:-width, width:-width]
    return black


def grayed(frames_TCHW: Tensor, rng: np.random.Generator) -> Tensor:
    """Luma 0.299 R + 0.587 G + 0.114 B in all three channels."""
    luma = torch.einsum("c,tchw->thw", torch.tensor(LUMA), frames_TCHW.float())
    return luma.round().to(torch.uint8)[:, None].expand_as(frames_TCHW).contiguous()


def shifted(frames_TCHW: Tensor, rng: np.random.Generator, *, share: float) -> Tensor:
    """Of each frame a part of its own, by ``share`` smaller and anywhere, enlarged to the old size: all of them shift."""
    height, width = frames_TCHW.shape[-2:]
    inner = (max(1, round(height * (1 - share))), max(1, round(width * (1 - share))))
    tops_T = rng.integers(height - inner[0] + 1, size=len(frames_TCHW))
    lefts_T = rng.integers(width - inner[1] + 1, size=len(frames_TCHW))
    enlarged_TCHW = torch.empty_like(frames_TCHW)
    for place, (top, left) in enumerate(zip(tops_T, lefts_T, strict=True)):  # all at once take gigabytes at 4K
        cut_1CHW = frames_TCHW[place : place + 1, :, top : top + inner[0], left : left + inner[1]]
        enlarged = F.interpolate(cut_1CHW.float(), (height, width), mode="bilinear", align_corners=False)
        enlarged_TCHW[place] = enlarged[0].round().clamp(0, 255).to(torch.uint8)
    return enlarged_TCHW


def channel_swapped(frames_TCHW: Tensor, rng: np.random.Generator) -> Tensor:
    """Blue, green, red."""
    return frames_TCHW.flip(1)


def noise(frames_TCHW: Tensor, rng: np.random.Generator) -> Tensor:
    """Every value of every frame drawn anew, uniform: nothing of the video is left, and nothing moves."""
    return torch.from_numpy(rng.integers(0, 256, tuple(frames_TCHW.shape), dtype=np.uint8))


def occluded(frames_TCHW: Tensor, rng: np.random.Generator, *, row: int, column: int, grid: int) -> Tensor:
    """One cell of a grid x grid raster filled with mid-gray in every frame."""
    height, width = frames_TCHW.shape[-2:]
    top, bottom = height * row // grid, height * (row + 1) // grid
    left, right = width * column // grid, width * (column + 1) // grid
    covered = frames_TCHW.clone()
    covered[..., top:bottom, left:right] = _GRAY_LEVEL
    return covered


# ---- the list --------------------------------------------------------------------------------------------------------


def all_counterfactuals() -> list[Counterfactual]:
    """Everything that an audit asks, in the order of its table."""
    return [
        Counterfactual("static", reindex=static),
        Counterfactual("noise", repaint=noise),
        Counterfactual("shuffled", reindex=shuffled),
        Counterfactual("duplicated", reindex=duplicated),
        Counterfactual("irregular", reindex=irregular),
        *(_rate(*ratio) for ratio in RATES),
        Counterfactual("shifted", f"by up to {SHIFT_SHARE:g} of the side", repaint=partial(shifted, share=SHIFT_SHARE)),
        Counterfactual("foreign", place=CLIP, from_others=True),
        # On the video alone: a clip of 56 pixels is damaged so much by both that an honest network fails, too.
        *(_reencoding(crf, gop) for crf, gop in REENCODINGS),
        *(_scale(*ratio) for ratio in SCALES),
        *(
            Counterfactual("border", "1/32 wide", place, repaint=partial(bordered, share=BORDER_SHARE), by_frame=True)
            for place in (VIDEO, CLIP)
        ),
        Counterfactual("gray", repaint=grayed, by_frame=True),
        Counterfactual("channel_swapped", repaint=channel_swapped, by_frame=True),
        *(_occlusion(row, column) for row in range(OCCLUSION_GRID) for column in range(OCCLUSION_GRID)),
    ]


def _rate(numerator: int, denominator: int) -> Counterfactual:
    change = partial(resampled, numerator=numerator, denominator=denominator)
    return Counterfactual("frame_rate", f"x {numerator}/{denominator}", reindex=change)


def _reencoding(crf: int, gop: int) -> Counterfactual:
    change = partial(reencoded, crf=crf, gop=gop)
    # As many phases as there are: were a key frame always the first of a clip, that would itself be a clock.
    return Counterfactual("reencoded", f"crf {crf}, GOP {gop}", repaint=change, lead_frames=gop)


def _scale(numerator: int, denominator: int) -> Counterfactual:
    change = partial(resized, numerator=numerator, denominator=denominator)
    return Counterfactual("resized", f"to {numerator}/{denominator} and back", repaint=change, by_frame=True)


def _occlusion(row: int, column: int) -> Counterfactual:
    change = partial(occluded, row=row, column=column, grid=OCCLUSION_GRID)
    return Counterfactual("occluded", f"row {row + 1}, column {column + 1} of {OCCLUSION_GRID}", CLIP, repaint=change)


NAMES = tuple(dict.fromkeys(c.name for c in all_counterfactuals()))


def chosen_counterfactuals(names: Sequence[str] = ()) -> list[Counterfactual]:
    """Those of the given kinds, in the order of the table; all of them where none is named.

    Raises:
        RecipeError: there is no such kind.
    """
    for name in names:
        if name not in NAMES:
            raise RecipeError(f"counterfactual ({name!r}) is unknown. {did_you_mean(name, NAMES)}")
    return [c for c in all_counterfactuals() if not names or c.name in names]
