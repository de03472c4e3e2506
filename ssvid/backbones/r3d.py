"""The 3-D ResNet of 18 layers, with torchvision's own layers and state-dict keys."""

from __future__ import annotations

from itertools import accumulate
from operator import mul

from torch import Tensor, nn

from ssvid.backbones.contract import (
    Backbone,
    BackboneInfo,
    StageInfo,
    check_option,
    register_backbone,
    spread_stride,
)

_STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
_CHANNELS = (64, 64, 128, 256, 512)
_NATIVE_TIME = (1, 1, 2, 2, 2)
_NATIVE_SPACE = (2, 1, 2, 2, 2)
# Mean and std of torchvision's Kinetics-400 weights (R3D_18_Weights.KINETICS400_V1.transforms()).
KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)


@register_backbone("r3d_18")
class R3D18(Backbone):
    """R3D-18 (Tran 2018, arXiv:1711.11248, table 1), built by torchvision, without its classifier ``fc``.

    Its weights load into ``torchvision.models.video.r3d_18()`` and the other way round.

    Args:
        stride_time: frames per cell of the last map: 8 (torchvision), 4, 2 or 1.
        stride_space: pixels per cell of the last map: 16 (torchvision), 8, 4 or 2. Both change the strides of
            convolutions only, the deepest first; the same weights load.
    """

    torchvision = "video.r3d_18"

    stem: nn.Module
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def __init__(self, *, stride_time: int = 8, stride_space: int = 16) -> None:
        check_option("r3d_18", "stride_time", stride_time, (1, 2, 4, 8))
        check_option("r3d_18", "stride_space", stride_space, (2, 4, 8, 16))
        times = spread_stride(stride_time, _NATIVE_TIME)
        spaces = spread_stride(stride_space, _NATIVE_SPACE)
        super().__init__(_info(times, spaces))

        from torchvision.models.video import r3d_18  # here, because importing torchvision takes most of a second

        network = r3d_18(weights=None)
        for name, time, space in zip(_STAGES, times, spaces, strict=True):
            stage = network.get_submodule(name)
            _set_stride(stage, time, space)
            self.add_module(name, stage)

    def run_stage(self, name: str, x_BCTHW: Tensor, keep_BN: Tensor | None) -> Tensor:
        """Compute one stage."""
        return self.get_submodule(name)(x_BCTHW)


def _info(times: tuple[int, ...], spaces: tuple[int, ...]) -> BackboneInfo:
    totals = zip(_STAGES, _CHANNELS, accumulate(spaces, mul), accumulate(times, mul), strict=True)
    stages = tuple(StageInfo(name, channels, space, time) for name, channels, space, time in totals)
    options = {"stride_time": stages[-1].stride_time, "stride_space": stages[-1].stride_space}
    return BackboneInfo("r3d_18", stages, size=112, mean=KINETICS_MEAN, std=KINETICS_STD, options=options)


def _set_stride(stage: nn.Module, time: int, space: int) -> None:
    """Give the convolutions that stride (first of the stage, and the shortcut beside it) another stride."""
    for module in stage.modules():
        if isinstance(module, nn.Conv3d) and module.stride != (1, 1, 1):
            module.stride = (time, space, space)
