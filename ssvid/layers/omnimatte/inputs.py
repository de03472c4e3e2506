"""What the network is told of each object in each frame, and the tensors that a fit works on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssvid.layers.background import CameraCanvas, camera_canvas, grown, inpainted, masked_median
from ssvid.layers.clip import LayerClip
from ssvid.layers.motion import Canvas, ClipMotion, apply, grid_px
from ssvid.layers.omnimatte.config import OmnimatteConfig
from ssvid.layers.omnimatte.losses import trimaps

_FLOW_PX = 5.0  # the flow that is 1


@dataclass(frozen=True)
class FitInputs:
    """All of a fit that does not change.

    frames_TCHW: in [0, 1]. inputs_NTCHW: of the network. trimaps_NTHW: 1 on a mask, 0 off it, -1 in between. grids_THW2: where each pixel
    lies on the canvas, as ``grid_sample`` takes it. canvas: its size and the frames' places. start_HWC, seen_HW: the masked median, filled,
    and where anything was seen. inliers_T: share of flow that the camera explains.
    """

    frames_TCHW: Tensor
    inputs_NTCHW: Tensor
    trimaps_NTHW: Tensor
    grids_THW2: Tensor
    canvas: Canvas
    start_HWC: np.ndarray
    seen_HW: np.ndarray
    inliers_T: np.ndarray


def fit_inputs(
    clip: LayerClip, motion: ClipMotion, config: OmnimatteConfig, seed: int, camera: CameraCanvas | None = None
) -> FitInputs:
    """What a fit starts from.

    Args:
        camera: what ``camera_canvas`` found of this clip; None looks for it.

    Raises:
        DataError: the camera was lost, or nothing is seen of the background.
    """
    canvas, inliers_T = camera or camera_canvas(clip, motion, config.camera, config.grown_px)
    hidden_THW = grown(np.any(clip.masks_NTHW, axis=0), config.grown_px)
    median_HWC, seen_HW = masked_median(clip.frames_THWC, hidden_THW, canvas)
    masks_NTHW = torch.from_numpy(clip.masks_NTHW).float()
    grids_THW2 = canvas_grids(canvas, *clip.size)
    parts = [masks_NTHW[:, :, None]]
    if config.flow:
        flow_T2HW = torch.from_numpy(onward(motion)).permute(0, 3, 1, 2) / _FLOW_PX
        parts.append(masks_NTHW[:, :, None] * flow_T2HW)
    if config.noise_channels:
        noise_1CHW = noise_canvas(canvas, config.noise_channels, config.noise_cell_px, seed)
        noise_TCHW = sampled(noise_1CHW, grids_THW2)
        parts.append(noise_TCHW.expand(len(masks_NTHW), *noise_TCHW.shape))
    return FitInputs(
        torch.from_numpy(clip.frames_THWC).permute(0, 3, 1, 2).float() / 255,
        torch.cat(parts, dim=2),
        trimaps(masks_NTHW, config.band_px),
        grids_THW2,
        canvas,
        inpainted(median_HWC, seen_HW),
        seen_HW,
        inliers_T,
    )


def onward(motion: ClipMotion) -> np.ndarray:
    """Where the pixels of each frame go, THW2; of the last frame, on from where they came."""
    last_1HW2 = -motion.backward_THW2[-1:]
    return np.concatenate([motion.forward_THW2, last_1HW2]).astype(np.float32)


def canvas_grids(canvas: Canvas, height: int, width: int) -> Tensor:
    """The place of every pixel of every frame on the canvas, from -1 to 1 between the centers of its outer pixels: THW2."""
    pixels_N2 = grid_px(height, width).reshape(-1, 2).astype(np.float64)
    placed = np.stack([apply(matrix, pixels_N2) for matrix in canvas.to_canvas_T33])
    scaled = 2 * placed / (np.array([canvas.width, canvas.height]) - 1).clip(min=1) - 1
    return torch.from_numpy(scaled.reshape(-1, height, width, 2)).float()


def noise_canvas(canvas: Canvas, channels: int, cell_px: float, seed: int) -> Tensor:
    """Smooth noise that stands where the background stands, 1CHW: by it the network knows a place whatever the camera does.

    Lu et al. (CVPR 2021), section 3.1. Numbers drawn for a grid of ``cell_px``, and what lies between them.
    """
    cells = [int(np.ceil(side / cell_px)) + 1 for side in (canvas.height, canvas.width)]
    drawn = np.random.default_rng([seed, 0]).standard_normal((1, channels, *cells), dtype=np.float32)
    return torch.nn.functional.interpolate(
        torch.from_numpy(drawn), size=(canvas.height, canvas.width), mode="bilinear", align_corners=True
    )


def sampled(picture_1CHW: Tensor, grids_BHW2: Tensor) -> Tensor:
    """A canvas as frames see it, BCHW."""
    picture_BCHW = picture_1CHW.expand(len(grids_BHW2), -1, -1, -1)
    return torch.nn.functional.grid_sample(
        picture_BCHW, grids_BHW2, mode="bilinear", padding_mode="border", align_corners=True
    )
