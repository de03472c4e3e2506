"""The network that turns what is known of an object in a frame into its layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STRIDE = 16  # four stages that halve


class LayerNet(nn.Module):
    """A small U-Net from mask, flow and noise to RGBA in [0, 1], of any size.

    Lu et al. (CVPR 2021), supplement: stride-2 convolutions of 4 x 4 with batch normalization, dilated ones, transposed ones with skips.
    Differs: 4 instead of 5 halvings, a quarter of the channels, one dilated convolution, the frame alone instead of two; no flow comes out.

    Args:
        num_inputs: channels of the input. width: channels of the first stage.
    """

    def __init__(self, num_inputs: int, width: int = 16) -> None:
        super().__init__()
        down = [width, 2 * width, 4 * width, 4 * width]
        self.down = nn.ModuleList(
            _stage(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=number == 0), norm=number > 0)
            for number, (before, after) in enumerate(zip([num_inputs, *down], down, strict=False))
        )
        self.middle = _stage(nn.Conv2d(down[-1], down[-1], 3, padding=2, dilation=2, bias=False))
        up_in = [2 * channels for channels in reversed(down)]
        up_out = [*reversed(down[:-1]), width]
        self.up = nn.ModuleList(
            _stage(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False))
            for before, after in zip(up_in, up_out, strict=True)
        )
        self.head = nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        """Layers, B4HW."""
        height, width = inputs_BCHW.shape[2:]
        padding = (0, -width % _STRIDE, 0, -height % _STRIDE)
        maps = [F.pad(inputs_BCHW, padding, mode="replicate")]
        for stage in self.down:
            maps.append(stage(maps[-1]))
        found = self.middle(maps[-1])
        for stage, skipped in zip(self.up, reversed(maps), strict=False):
            found = stage(torch.cat([found, skipped], dim=1))
        layers_B4HW: Tensor = torch.sigmoid(self.head(found))
        return layers_B4HW[:, :, :height, :width]


def _stage(convolution: nn.Conv2d | nn.ConvTranspose2d, norm: bool = True) -> nn.Sequential:
    channels = convolution.out_channels
    return nn.Sequential(convolution, *([nn.BatchNorm2d(channels)] if norm else []), nn.LeakyReLU(0.2))
