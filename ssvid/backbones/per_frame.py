"""2-D networks as backbones: each frame by itself, time folded into the batch and unfolded again."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ssvid.backbones.contract import Backbone

# Mean and std of torchvision's ImageNet weights (ResNet18_Weights.IMAGENET1K_V1.transforms()).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class PerFrameBackbone(Backbone):
    """A network whose stages take and give maps of pictures; from outside it takes clips like any other."""

    per_frame: ClassVar[bool] = True

    def run_stage(self, name: str, x_BCTHW: Tensor) -> Tensor:
        """Compute one stage on the frames of all clips as one batch."""
        num_frames = x_BCTHW.shape[2]
        maps = super().run_stage(name, x_BCTHW.transpose(1, 2).flatten(0, 1))
        return maps.unflatten(0, (-1, num_frames)).transpose(1, 2)
