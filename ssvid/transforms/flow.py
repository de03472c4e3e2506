"""What flow needs beside what is done to pictures: a mirror image moves the other way, a smaller frame moves less.

A clip of two channels is flow, u to the right and v down: levels of ``ssvid.video.flow`` as uint8, or divided by 255 as floats.
Crops leave motion as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssvid.types import FLOW_CHANNELS, NO_MOTION


def is_flow(images: Tensor, axis: int) -> bool:
    """Whether these are frames of flow. axis: of the channels."""
    return images.shape[axis] == FLOW_CHANNELS


def mirrored(images: Tensor, axis: int) -> Tensor:
    """The mirror image (..., W), of pictures or of flow, whose u is negated. axis: of the channels."""
    turned = images.flip(-1)
    if not is_flow(images, axis):
        return turned
    u, v = turned.split(1, dim=axis)
    return torch.cat([2 * no_motion(images.dtype) - u, v], dim=axis)


def scaled_motion(flow_NCHW: Tensor, before: Sequence[int], *, as_type: torch.dtype) -> Tensor:
    """The motion in frames that were brought from another size to this one: as many times longer as the frames are larger.

    Args:
        flow_NCHW: float, at its new size. before: height and width of the frames before. as_type: of what is returned:
            uint8 has the motion rounded and cut to what there is.
    """
    high, wide = flow_NCHW.shape[-2] / before[0], flow_NCHW.shape[-1] / before[1]
    factors_211 = torch.tensor([wide, high], device=flow_NCHW.device).view(-1, 1, 1)
    rest = no_motion(as_type)
    scaled_NCHW = (flow_NCHW - rest) * factors_211 + rest
    return scaled_NCHW if as_type.is_floating_point else scaled_NCHW.round().clamp(1, 255).to(as_type)


def no_motion(of_type: torch.dtype) -> float:
    """The value of no motion among values of that type."""
    return NO_MOTION / 255 if of_type.is_floating_point else NO_MOTION
