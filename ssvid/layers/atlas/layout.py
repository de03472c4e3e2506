"""Places: of pixels in the space-time of a clip, and of layers in their atlases.

A point of a clip is (x, y, t): x and y from the middle of the frame in halves of its longer side, t from -1 in the first frame to 1 in
the last. A place of an atlas is (u, v) in the same unit; where mappings begin with similarities it is where the point lies in the frame
in the middle. The letter L is for layers (the objects, that in front first, then the background), P for points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssvid.errors import DataError
from ssvid.layers.clip import LayerClip
from ssvid.layers.motion import LARGEST_CANVAS, ClipMotion, apply, similarities

BACKGROUND = "background"
_IDENTITY_REACH = 1.25  # of a square atlas, as published: there frames fill 0.8 of it
_MARGIN = 0.1  # added to an atlas on each side, in units
_LEAST_MARGIN_PX = 4


@dataclass(frozen=True)
class Layout:
    """The sizes of a clip and where its layers have their atlases.

    names: of the L layers. boxes_L22: lowest and highest u, v of each atlas. chains_LT23: where the mapping of each layer begins.
    """

    names: tuple[str, ...]
    num_frames: int
    height: int
    width: int
    boxes_L22: Tensor
    chains_LT23: Tensor

    @property
    def half_px(self) -> float:
        """A unit in px: half of the longer side."""
        return max(self.height, self.width) / 2

    @property
    def num_objects(self) -> int:
        """N, the layers but the background."""
        return len(self.names) - 1

    def points(self, x_px: Tensor, y_px: Tensor, times: Tensor) -> Tensor:
        """(x, y, t) of pixels of the frames that are fitted, in a last axis. times: numbers of frames, with fractions."""
        x = (x_px - (self.width - 1) / 2) / self.half_px
        y = (y_px - (self.height - 1) / 2) / self.half_px
        return torch.stack([x, y, 2 * times / (self.num_frames - 1) - 1], dim=-1)

    def frame_points(self, height: int, width: int, time: float) -> Tensor:
        """(x, y, t) of all pixels of a frame of any size, (H * W, 3)."""
        y_H = (torch.arange(height, dtype=torch.float32) + 0.5) * (self.height / height) - 0.5
        x_W = (torch.arange(width, dtype=torch.float32) + 0.5) * (self.width / width) - 0.5
        y_HW, x_HW = torch.meshgrid(y_H, x_W, indexing="ij")
        return self.points(x_HW, y_HW, torch.full_like(x_HW, time)).reshape(-1, 3)

    def bordered_points(self, time: float) -> Tensor:
        """(x, y, t) of all pixels of a frame that is fitted and of a border of one px around it, ((H + 2) * (W + 2), 3)."""
        y_HW, x_HW = torch.meshgrid(
            torch.arange(-1.0, self.height + 1), torch.arange(-1.0, self.width + 1), indexing="ij"
        )
        return self.points(x_HW, y_HW, torch.full_like(x_HW, time)).reshape(-1, 3)

    def within_bordered(self, height: int, width: int) -> Tensor:
        """The pixels of a frame of any size within ``bordered_points``, whose first one is (-1, -1) and last one (1, 1): (H, W, 2)."""
        x_W = (torch.arange(width) + 0.5) * (self.width / width) + 0.5
        y_H = (torch.arange(height) + 0.5) * (self.height / height) + 0.5
        y_HW, x_HW = torch.meshgrid(2 * y_H / (self.height + 1) - 1, 2 * x_W / (self.width + 1) - 1, indexing="ij")
        return torch.stack([x_HW, y_HW], dim=-1)


def lay_out(clip: LayerClip, motion: ClipMotion, start: str) -> Layout:
    """Where the mappings of all layers begin, and how large their atlases are.

    Args:
        motion: measured on the frames of ``clip``. start: ``identity`` or ``chain``, as of ``AtlasConfig``.

    Raises:
        DataError: there is one frame alone, or no object; the motion is of other frames; an object is called like the background; an atlas would be more
            than ``LARGEST_CANVAS`` times as large as a frame.
    """
    _check(clip, motion)
    height, width = clip.size
    names = (*clip.names, BACKGROUND)
    num_layers, num_frames = len(names), clip.num_frames
    if start == "identity":
        chains = np.tile(np.eye(3)[:2], (num_layers, num_frames, 1, 1))
        boxes = np.tile(_IDENTITY_REACH * np.array([[-1.0, -1.0], [1.0, 1.0]]), (num_layers, 1, 1))
    else:
        where = [*clip.masks_NTHW, ~clip.masks_NTHW.any(axis=0)]
        seen = [*(_grown_boxes(mask_THW) for mask_THW in clip.masks_NTHW), _whole_frames(clip)]
        chains_px = [similarities(motion, where_THW).to_middle_T33 for where_THW in where]
        half = max(height, width) / 2
        boxes = np.stack(
            [_box(name, chain, corners, clip) for name, chain, corners in zip(names, chains_px, seen, strict=True)]
        )
        chains = np.stack([_in_units(chain, height, width, half) for chain in chains_px])
    return Layout(
        names,
        num_frames,
        height,
        width,
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor(chains, dtype=torch.float32),
    )


def _check(clip: LayerClip, motion: ClipMotion) -> None:
    if clip.num_frames < 2:
        raise DataError("an atlas needs at least 2 frames, and the clip has 1. Take more of the video.")
    if not clip.names:
        raise DataError("no object has a mask, so that there is nothing to take apart. Give the mask of one at least.")
    want = (clip.num_frames - 1, *clip.size, 2)
    if motion.forward_THW2.shape != want:
        raise DataError(
            f"the motion has shape {motion.forward_THW2.shape}; for these frames it must be {want}. Measure it on the frames that "
            "are fitted."
        )
    if BACKGROUND in clip.names:
        raise DataError(
            f"an object is called {BACKGROUND!r}, which is the name of what lies behind. Call it otherwise."
        )


def _grown_boxes(mask_THW: np.ndarray) -> list[np.ndarray]:
    """Corners (4, 2) of the box around the mask of each frame, in px; none, (0, 2), where the mask is empty."""
    found = []
    for mask_HW in mask_THW:
        rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
        found.append(_corners(columns[0], rows[0], columns[-1], rows[-1]) if len(rows) else np.zeros((0, 2)))
    return found


def _whole_frames(clip: LayerClip) -> list[np.ndarray]:
    height, width = clip.size
    return [_corners(0, 0, width - 1, height - 1)] * clip.num_frames


def _corners(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [left, bottom], [right, bottom]], dtype=float)


def _box(name: str, chain_T33: np.ndarray, corners_T: list[np.ndarray], clip: LayerClip) -> np.ndarray:
    """Lowest and highest u, v that hold the corners of all frames, with a margin."""
    height, width = clip.size
    half = max(height, width) / 2
    placed_N2 = np.concatenate([apply(matrix, corners) for matrix, corners in zip(chain_T33, corners_T, strict=True)])
    low, high = placed_N2.min(axis=0), placed_N2.max(axis=0)
    times = float(np.prod(high - low + 1) / (height * width))
    if not times <= LARGEST_CANVAS:
        raise DataError(
            f"the atlas of {name} would be {times:.1f} times as large as a frame; at most {LARGEST_CANVAS:g} times is taken. Its motion was "
            "not found, or is more than turning, zooming and shifting. Take fewer frames, better masks, or the start from the identity."
        )
    margin = np.maximum(_MARGIN * (high - low), _LEAST_MARGIN_PX)
    middle = (np.array([width, height]) - 1) / 2
    box: np.ndarray = (np.stack([low - margin, high + margin]) - middle) / half
    return box


def _in_units(chain_T33: np.ndarray, height: int, width: int, half: float) -> np.ndarray:
    """Matrices in px as matrices (T, 2, 3) of points in units."""
    to_px = np.array([[half, 0, (width - 1) / 2], [0, half, (height - 1) / 2], [0, 0, 1]])
    matrices: np.ndarray = (np.linalg.inv(to_px) @ chain_T33 @ to_px)[:, :2]
    return matrices
