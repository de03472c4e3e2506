"""A small 3-D network for two CPU cores: tests, the demo, and tasks that are to be understood rather than ranked."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssvid.backbones.contract import (
    Backbone,
    BackboneInfo,
    check_option,
    input_of,
    register_backbone,
    spread_stride,
    strided_stages,
)
from ssvid.errors import RecipeError

_STAGES = ("stage1", "stage2", "stage3", "stage4")
_WIDTHS = (1, 2, 4, 8)  # times the option ``width``
# Time is halved in the first convolution, whose maps cost most, and once more late. Measured side by side on one busy
# core: 134 clips of 16x56x56 per CPU second forward and backward, against 64 with strides 1, 1, 2, 2.
_NATIVE_TIME = (2, 1, 2, 1)
_NATIVE_SPACE = (2, 2, 2, 2)
_MEAN, _STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
# Differences of neighboring frames have mean 0; their root mean square is 0.03 to 0.06 on Weizmann, HMDB51 and UCF101.
_DIFFERENCE_STD = 0.05
INPUTS = ("rgb", "difference")


@register_backbone("tiny3d")
class Tiny3D(Backbone):
    """Four stages, each a convolution (3x5x5, then 3x3x3), batch normalization and ReLU.

    Args:
        width: channels of the first stage; the others have 2, 4 and 8 times as many. 16 gives 0.29 million parameters.
        input: "rgb"; or "difference": the network itself takes the difference of each frame to the one before it
            (``frame_difference``), so that a clip is given as RGB all the same. A still clip is then all zeros.
        stride_time: frames per cell of the last map: 4, 2 or 1. Changes strides only; the same weights load.
        in_channels: 3 for pictures, 2 for optical flow (u, v).
    """

    def __init__(self, *, width: int = 16, input: str = "rgb", stride_time: int = 4, in_channels: int = 3) -> None:
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise RecipeError(f"backbone tiny3d: width ({width!r}) must be a whole number of at least 1.")
        check_option("tiny3d", "input", input, INPUTS)
        check_option("tiny3d", "stride_time", stride_time, (1, 2, 4))
        times = spread_stride(stride_time, _NATIVE_TIME)
        super().__init__(_info(width, input, times, in_channels))
        self.input = input
        channels = (in_channels, *(width * w for w in _WIDTHS))
        for i, name in enumerate(_STAGES):
            kernel = (3, 5, 5) if i == 0 else (3, 3, 3)
            stride = (times[i], _NATIVE_SPACE[i], _NATIVE_SPACE[i])
            self.add_module(name, _conv_norm_relu(channels[i], channels[i + 1], kernel, stride))

    def normalize(self, clip_BCTHW: Tensor) -> Tensor:
        """Scale pixels, or the differences of neighboring frames."""
        return super().normalize(frame_difference(clip_BCTHW) if self.input == "difference" else clip_BCTHW)


def frame_difference(clip_BCTHW: Tensor) -> Tensor:
    """Each frame minus the one before it; the frame before the first counts as the first itself.

    So T frames stay T frames, the first of them all zeros, and a still clip is zero throughout.
    """
    return torch.diff(clip_BCTHW, dim=2, prepend=clip_BCTHW[:, :, :1])


def _info(width: int, input: str, times: tuple[int, ...], in_channels: int) -> BackboneInfo:
    stages = strided_stages(_STAGES, [width * w for w in _WIDTHS], _NATIVE_SPACE, times)
    options = {
        "width": width,
        "input": input,
        "stride_time": stages[-1].stride_time,
        "in_channels": in_channels,
    }
    difference = input == "difference"
    clips = input_of("tiny3d", in_channels, _MEAN, _STD)
    if difference:
        clips |= {"mean": (0.0,) * in_channels, "std": (_DIFFERENCE_STD,) * in_channels}
    return BackboneInfo(
        "tiny3d",
        stages,
        min_frames=2 if difference else 1,  # one frame has no difference
        size=56,
        **clips,
        options=options,
    )


def _conv_norm_relu(ins: int, outs: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> nn.Sequential:
    padding = tuple(k // 2 for k in kernel)
    convolution = nn.Conv3d(ins, outs, kernel, stride, padding, bias=False)  # type: ignore[arg-type]
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm3d(outs), nn.ReLU(inplace=True))
