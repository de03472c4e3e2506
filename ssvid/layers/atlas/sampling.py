"""Which pixels of a clip a step of the fit sees: square patches, half of them on objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import binary_dilation, maximum_filter, minimum_filter
from torch import Tensor

from ssvid.errors import DataError
from ssvid.layers.clip import LayerClip
from ssvid.layers.motion import ClipMotion

_AROUND_PX = 4  # around a mask, that still counts as on the object
_FORWARD, _BACKWARD = 0, 1


class Patches(NamedTuple):
    """Pixels of B squares of S x S px. y_BSS, x_BSS, t_BSS: int64. direction_B: whether flow is followed forward (0) or backward (1)."""

    y_BSS: Tensor
    x_BSS: Tensor
    t_BSS: Tensor
    direction_B: Tensor

    @property
    def every_second(self) -> Patches:
        """A quarter of the pixels: every second one along both sides."""
        return Patches(self.y_BSS[:, ::2, ::2], self.x_BSS[:, ::2, ::2], self.t_BSS[:, ::2, ::2], self.direction_B)


@dataclass(frozen=True)
class Pixels:
    """A clip and its motion as tensors. frames_THW3: float in [0, 1]. labels_THW: int64, the first layer whose mask holds the pixel, the number
    of objects where none does. sure_THW: bool, where neighbors agree on that: masks end somewhere within the px of their border. flows_2THW2: forward and backward, in px; 0 where there is none; valid_2THW: bool. near_P: numbers of the
    pixels on objects and near them, of all in order.
    """

    frames_THW3: Tensor
    labels_THW: Tensor
    sure_THW: Tensor
    flows_2THW2: Tensor
    valid_2THW: Tensor
    near_P: Tensor

    @classmethod
    def of(cls, clip: LayerClip, motion: ClipMotion, device: torch.device) -> Pixels:
        """On a device."""
        none = np.zeros((1, *clip.size), dtype=bool)
        still = np.zeros((1, *clip.size, 2), dtype=np.float32)
        flows = np.stack(
            [np.concatenate([motion.forward_THW2, still]), np.concatenate([still, motion.backward_THW2])]
        ).astype(np.float32)
        valid = np.stack(
            [np.concatenate([motion.forward_valid_THW, none]), np.concatenate([none, motion.backward_valid_THW])]
        )
        around = np.ones((1, 2 * _AROUND_PX + 1, 2 * _AROUND_PX + 1), dtype=bool)
        near = np.flatnonzero(binary_dilation(clip.masks_NTHW.any(axis=0), around))
        labels = labels_of(clip.masks_NTHW)
        arrays = (clip.frames_THWC.astype(np.float32) / 255, labels, sure_of(labels), flows, valid, near)
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))

    def draw(self, num_patches: int, patch_px: int, generator: torch.Generator) -> Patches:
        """Squares that lie within frames; every second one holds a pixel on or near an object.

        Args:
            generator: of the processor, whatever device the pixels are on.

        Raises:
            DataError: a frame is smaller than a patch.
        """
        num_frames, height, width = self.labels_THW.shape
        if min(height, width) < patch_px:
            raise DataError(
                f"frames of {width} x {height} px are smaller than a patch of {patch_px} px. Take larger frames, or set "
                f"atlas.patch_px={min(height, width)}."
            )

        def upto(limit: int, count: int) -> Tensor:
            return torch.randint(limit, (count,), generator=generator).to(self.near_P.device)

        near_P = self.near_P[upto(len(self.near_P), num_patches // 2)]
        chosen_B = torch.cat([near_P, upto(self.labels_THW.numel(), num_patches - len(near_P))])
        # A patch that would reach out of its frame is moved into it, so that pixels of the border are seen as often as most.
        top_B = (chosen_B // width % height - upto(patch_px, num_patches)).clamp(0, height - patch_px)
        left_B = (chosen_B % width - upto(patch_px, num_patches)).clamp(0, width - patch_px)
        t_B = chosen_B // (height * width)
        direction_B = upto(2, num_patches)
        direction_B[t_B == 0], direction_B[t_B == num_frames - 1] = _FORWARD, _BACKWARD
        return _squares(top_B, left_B, t_B, direction_B, patch_px)


def _squares(top_B: Tensor, left_B: Tensor, t_B: Tensor, direction_B: Tensor, side: int) -> Patches:
    along = torch.arange(side, device=top_B.device)
    y_BSS = (top_B[:, None, None] + along[:, None]).expand(-1, side, side)
    x_BSS = (left_B[:, None, None] + along).expand(-1, side, side)
    return Patches(y_BSS, x_BSS, t_B[:, None, None].expand(-1, side, side), direction_B)


def labels_of(masks_NTHW: np.ndarray) -> np.ndarray:
    """The number of the first layer whose mask holds each pixel, the number of objects where none does: int64 THW."""
    behind = np.ones((1, *masks_NTHW.shape[1:]), dtype=bool)
    labels: np.ndarray = np.concatenate([masks_NTHW, behind]).argmax(axis=0).astype(np.int64)
    return labels


def sure_of(labels_THW: np.ndarray) -> np.ndarray:
    """Where a pixel has the label of all its eight neighbors: bool THW."""
    square = (1, 3, 3)
    sure: np.ndarray = maximum_filter(labels_THW, square) == minimum_filter(labels_THW, square)
    return sure
