"""What an Omnimatte is fitted by. Pure functions; alphas and colors are in [0, 1].

Lu et al., *Omnimatte: Associating Objects and Their Effects in Video* (CVPR 2021), section 3.3 and the released code.
Differs: no flow is reconstructed and no alpha warped, neither is needed at small size; weights are those that hold there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


def over(background_BCHW: Tensor, layers_NB4HW: Tensor) -> Tensor:
    """Layers over a background, that in front first: BCHW."""
    picture_BCHW = background_BCHW
    for layer_B4HW in layers_NB4HW.flip(0):
        alpha_B1HW = layer_B4HW[:, 3:]
        picture_BCHW = alpha_B1HW * layer_B4HW[:, :3] + (1 - alpha_B1HW) * picture_BCHW
    return picture_BCHW


def rgb_loss(found_BCHW: Tensor, frames_BCHW: Tensor) -> Tensor:
    """Mean absolute difference of colors."""
    return (found_BCHW - frames_BCHW).abs().mean()


def trimaps(masks_NTHW: Tensor, band_px: int) -> Tensor:
    """1 on a mask, 0 away from it, and in between -1 where alpha is free: float, as the masks."""
    grown_NTHW = F.max_pool2d(masks_NTHW, 2 * band_px + 1, stride=1, padding=band_px)
    return torch.where(masks_NTHW > 0, 1.0, torch.where(grown_NTHW > 0, -1.0, 0.0))


def mask_loss(alphas: Tensor, trimaps: Tensor) -> Tensor:
    """Mean error of alpha on a mask and mean error away from it, half each, however large the mask is."""
    on, off = (trimaps == 1).to(alphas), (trimaps == 0).to(alphas)
    missing = ((1 - alphas) * on).sum() / on.sum().clamp(min=1)
    spilled = (alphas * off).sum() / off.sum().clamp(min=1)
    return (missing + spilled) / 2


def alpha_l1(alphas: Tensor) -> Tensor:
    """Mean alpha."""
    return alphas.mean()


def alpha_l0(alphas: Tensor) -> Tensor:
    """A smooth count of pixels with alpha: mean of 2 sigmoid(5 alpha) - 1."""
    return (2 * torch.sigmoid(5 * alphas) - 1).mean()


@dataclass(frozen=True)
class MaskSchedule:
    """How much the mask loss counts: in full until it is below ``target``, a tenth from then on, nothing at twice that step.

    So that an object's effects may join it. reached_step: when it was below; None before.
    """

    weight: float
    target: float
    reached_step: int | None = None

    def at(self, step: int) -> float:
        """The weight in a step; steps are counted from 0."""
        if self.reached_step is None:
            return self.weight
        return 0.1 * self.weight if step < 2 * self.reached_step else 0.0

    def after(self, step: int, loss: float) -> MaskSchedule:
        """The schedule once a step found that mask loss."""
        reached = self.reached_step is None and loss < self.target
        return replace(self, reached_step=step + 1) if reached else self
