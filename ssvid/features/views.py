"""The views of a video in an evaluation: several clips, several crops of each, with and without their mirror image."""

from __future__ import annotations

import torch
from torch import Tensor

from ssvid.transforms.flow import mirrored


def crop_views(resized_VTCHW: Tensor, crop_px: int, num_crops: int) -> Tensor:
    """All views of one video, clip by clip.

    Args:
        resized_VTCHW: the clips of a video, float in [0, 1], at their size before the crop. num_crops: 1 (the center), 3 (start, center
            and end of the longer side) or 10 (four corners and center, each also mirrored).

    Returns:
        float (V * num_crops, C, T, crop_px, crop_px); the crops of a clip are neighbors.
    """
    from torchvision.transforms.v2 import functional as pixels  # here: importing it takes seconds

    if num_crops == 1:
        return pixels.center_crop(resized_VTCHW, [crop_px]).transpose(1, 2)
    height, width = resized_VTCHW.shape[-2:]
    cuts = [resized_VTCHW[..., y : y + crop_px, x : x + crop_px] for y, x in corners(height, width, crop_px, num_crops)]
    if num_crops == 10:
        cuts += [mirrored(cut, -3) for cut in cuts]
    return torch.stack(cuts, dim=1).flatten(0, 1).transpose(1, 2)


def corners(height: int, width: int, crop_px: int, num_crops: int) -> list[tuple[int, int]]:
    """The (top, left) corner of each crop, mirror images not counted."""
    bottom, right = height - crop_px, width - crop_px
    middle = (round(bottom / 2), round(right / 2))
    if num_crops == 1:
        return [middle]
    if num_crops == 3:
        if width >= height:
            return [(middle[0], 0), middle, (middle[0], right)]
        return [(0, middle[1]), middle, (bottom, middle[1])]
    return [(0, 0), (0, right), (bottom, 0), (bottom, right), middle]
