"""What a clip maker wants of each frame, said before a pixel is read: frames are then cut as they are decoded.

A frame that is cut and shrunk the moment it comes costs one copy of what is kept. Whole frames kept for all clips of a
file cost several copies, and gigabytes at 4K.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssvid.transforms.geometry import Box, Rectangle, crop_rectangles, square, squash
from ssvid.types import FLOW_CHANNELS, NO_MOTION, RGB_CHANNELS, ClipMaker, ClipPlan

_BUFFER_BYTES = 8 << 20  # of cut frames that wait to be resized together


class Cut(NamedTuple):
    """A rectangle of every frame of a view, brought to ``size_px`` x ``size_px``.

    view: which one of the plan. rectangles: (top, left, height, width) of the frames in turn; the last one holds for all
    that follow. Without a rectangle the frames come whole, as they are. change: done to each whole frame first, uint8 HWC.
    """

    view: int
    rectangles: tuple[Rectangle, ...] = ()
    size_px: int = 0
    change: Callable[[np.ndarray], np.ndarray] | None = None

    @classmethod
    def squares(cls, view: int, boxes: Sequence[Box], size_px: int) -> Cut:
        """The same of squares (top, left, side)."""
        return cls(view, tuple(square(box) for box in boxes), size_px)

    def rectangle(self, place: int) -> Rectangle:
        """What is cut out of the frame at this place of the view."""
        return self.rectangles[min(place, len(self.rectangles) - 1)]


class Cuts(NamedTuple):
    """All that a sample needs of its frames. finish: makes the sample of them; it gets one uint8 TCHW for each cut."""

    wanted: tuple[Cut, ...]
    finish: Callable[[tuple[Tensor, ...]], dict[str, Tensor]]


class CutFirst:
    """Base of clip makers that know what they cut out before they see the frames; ``transform`` follows from ``cuts``."""

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """What is cut out of the plan's frames, each ``height`` x ``width`` pixels, and what the sample is made of it."""
        raise NotImplementedError

    def transform(
        self,
        views_TCHW: tuple[Tensor, ...],
        plan: ClipPlan,
        rng: np.random.Generator,
        batch_rng: np.random.Generator,
    ) -> dict[str, Tensor]:
        """The sample of whole frames: the same pixels as of frames that were cut while they were decoded."""
        height, width = views_TCHW[0].shape[-2:]
        cuts = self.cuts(height, width, plan, rng, batch_rng)
        return cuts.finish(tuple(cut_view(views_TCHW[cut.view], cut) for cut in cuts.wanted))


def cuts_of(
    maker: ClipMaker,
    height: int,
    width: int,
    plan: ClipPlan,
    rng: np.random.Generator,
    batch_rng: np.random.Generator,
) -> Cuts:
    """The cuts of any clip maker; one that has its own ``transform`` gets whole frames."""
    if isinstance(maker, CutFirst) and type(maker).transform is CutFirst.transform:
        return maker.cuts(height, width, plan, rng, batch_rng)
    whole = tuple(Cut(view) for view in range(len(plan.views)))
    return Cuts(whole, lambda views_TCHW: maker.transform(views_TCHW, plan, rng, batch_rng))


def cut_view(view_TCHW: Tensor, cut: Cut) -> Tensor:
    """A cut of frames that are there whole."""
    if cut.change is not None:
        changed = [torch.from_numpy(cut.change(frame_CHW.permute(1, 2, 0).numpy())) for frame_CHW in view_TCHW]
        view_TCHW = torch.stack(changed).permute(0, 3, 1, 2)
    if not cut.rectangles:
        return view_TCHW
    return crop_rectangles(view_TCHW, [cut.rectangle(place) for place in range(len(view_TCHW))], cut.size_px)


class Cutter:
    """One cut of one clip, filled frame by frame in any order.

    Cut frames wait in a small buffer and are resized together.

    Args:
        num_frames: of the clip. height, width: of the whole frames. channels: 3, or 2 of flow.
    """

    def __init__(self, cut: Cut, num_frames: int, height: int, width: int, channels: int = RGB_CHANNELS) -> None:
        self._cut, self._num_frames = cut, num_frames
        size = (cut.size_px, cut.size_px) if cut.rectangles else (height, width)
        still = NO_MOTION if channels == FLOW_CHANNELS else 0
        self._clip_TCHW = np.full((num_frames, channels, *size), still, np.uint8)
        self._buffer_THWC = np.empty((0, 0, 0, 0), np.uint8)
        self._waiting: list[int] = []  # the places of what is in the buffer

    def put(self, place: int, frame_HWC: np.ndarray) -> None:
        """Take a whole frame, uint8 HWC; what is put at the same place later replaces it."""
        part_HWC = frame_HWC = frame_HWC if self._cut.change is None else self._cut.change(frame_HWC)
        if self._cut.rectangles:
            top, left, height, width = self._cut.rectangle(place)
            part_HWC = frame_HWC[top : top + height, left : left + width]
        if part_HWC.shape[:2] == self._clip_TCHW.shape[2:]:
            self._clip_TCHW[place] = part_HWC.transpose(2, 0, 1)
            return
        if len(self._waiting) == len(self._buffer_THWC) or part_HWC.shape != self._buffer_THWC.shape[1:]:
            self._resize_waiting()
            room = min(self._num_frames, max(1, _BUFFER_BYTES // part_HWC.size))
            self._buffer_THWC = np.empty((room, *part_HWC.shape), np.uint8)
        self._buffer_THWC[len(self._waiting)] = part_HWC
        self._waiting.append(place)
        if len(self._waiting) == len(self._buffer_THWC):
            self._resize_waiting()

    def clip(self) -> Tensor:
        """The clip, a contiguous uint8 TCHW; frames that were not put are black, of flow without motion."""
        self._resize_waiting()
        return torch.from_numpy(self._clip_TCHW)

    def _resize_waiting(self) -> None:
        if self._waiting:
            parts_TCHW = torch.from_numpy(self._buffer_THWC[: len(self._waiting)]).permute(0, 3, 1, 2)
            for place, frame_CHW in zip(self._waiting, squash(parts_TCHW, self._cut.size_px).numpy(), strict=True):
                self._clip_TCHW[place] = frame_CHW
        self._waiting, self._buffer_THWC = [], np.empty((0, 0, 0, 0), np.uint8)
