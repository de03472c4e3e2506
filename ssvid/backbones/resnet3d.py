"""3-D ResNets of 18 layers, R3D, MC3 and R(2+1)D, with torchvision's own layers and state-dict keys."""

from __future__ import annotations

from operator import attrgetter
from typing import ClassVar

from torch import nn

from ssvid.backbones.contract import (
    Backbone,
    BackboneInfo,
    check_option,
    input_of,
    register_backbone,
    spread_stride,
    strided_stages,
    take_channels,
)
from ssvid.backbones.non_local import Places, add_non_local_blocks

_STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
_CHANNELS = (64, 64, 128, 256, 512)
_TIME = (1, 1, 2, 2, 2)
_SPACE = (2, 1, 2, 2, 2)
# Mean and std of torchvision's Kinetics-400 weights (R3D_18_Weights.KINETICS400_V1.transforms()).
KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)
# Number of non-local blocks -> where they stand in a network of two blocks per layer. The paper has only deeper ones: as
# there, the last map of the middle layers.
NON_LOCAL_PLACES: dict[int, Places] = {0: {}, 1: {"layer3": (1,)}, 2: {"layer2": (1,), "layer3": (1,)}}


class _VideoResNet18(Backbone):
    """What the three networks of Tran 2018 share; ``name`` is that of the registered network."""

    name: ClassVar[str]

    stem: nn.Module
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def __init__(
        self, *, stride_time: int = 8, stride_space: int = 16, num_non_local: int = 0, in_channels: int = 3
    ) -> None:
        check_option(self.name, "stride_time", stride_time, (1, 2, 4, 8))
        check_option(self.name, "stride_space", stride_space, (2, 4, 8, 16))
        check_option(self.name, "num_non_local", num_non_local, tuple(NON_LOCAL_PLACES))
        times, spaces = spread_stride(stride_time, _TIME), spread_stride(stride_space, _SPACE)
        super().__init__(_info(self.name, times, spaces, num_non_local, in_channels))

        import torchvision  # here, because importing torchvision takes most of a second

        network = attrgetter(self.torchvision)(torchvision.models)(weights=None)
        for name, time, space in zip(_STAGES, times, spaces, strict=True):
            stage = network.get_submodule(name)
            _set_stride(stage, time, space)
            self.add_module(name, stage)
        take_channels(self, in_channels)
        # Last, so that a seed gives the rest the same weights.
        add_non_local_blocks(self, NON_LOCAL_PLACES[num_non_local])


@register_backbone("r3d_18")
class R3D18(_VideoResNet18):
    """R3D-18 (Tran 2018, arXiv:1711.11248, table 1), built by torchvision, without its classifier ``fc``.

    Its weights load into ``torchvision.models.video.r3d_18()`` and the other way round.

    Args:
        stride_time: frames per cell of the last map: 8 (torchvision), 4, 2 or 1.
        stride_space: pixels per cell of the last map: 16 (torchvision), 8, 4 or 2. Both change the strides of
            convolutions only, the deepest first; the same weights load.
        num_non_local: number of non-local blocks (``NonLocalBlock``): 0; 1, after the last block of layer3; or 2, after
            that of layer2 too. The network's own weights fill all but these.
        in_channels: 3 for pictures, 2 for optical flow (u, v).
    """

    name = "r3d_18"
    torchvision = "video.r3d_18"


@register_backbone("mc3_18")
class MC318(_VideoResNet18):
    """MC3-18 (Tran 2018, arXiv:1711.11248, sec. 3.3): 3-D convolutions in the stem and layer1, 2-D ones after them.

    Its weights load into ``torchvision.models.video.mc3_18()`` and the other way round.

    Args:
        stride_time: frames per cell of the last map: 1 (torchvision), 2, 4 or 8. Only the convolutions that stride in
            space skip frames then, so that the same weights load.
        stride_space: pixels per cell of the last map: 16 (torchvision), 8, 4 or 2.
        num_non_local: number of non-local blocks (``NonLocalBlock``): 0; 1, after the last block of layer3; or 2, after
            that of layer2 too. The network's own weights fill all but these.
        in_channels: 3 for pictures, 2 for optical flow (u, v).
    """

    name = "mc3_18"
    torchvision = "video.mc3_18"

    def __init__(
        self, *, stride_time: int = 1, stride_space: int = 16, num_non_local: int = 0, in_channels: int = 3
    ) -> None:
        super().__init__(
            stride_time=stride_time, stride_space=stride_space, num_non_local=num_non_local, in_channels=in_channels
        )


@register_backbone("r2plus1d_18")
class R2Plus1D18(_VideoResNet18):
    """R(2+1)D-18 (Tran 2018, arXiv:1711.11248, sec. 3.5): each 3-D convolution as one in space and one in time.

    Its weights load into ``torchvision.models.video.r2plus1d_18()`` and the other way round.

    Args:
        stride_time: frames per cell of the last map: 8 (torchvision), 4, 2 or 1.
        stride_space: pixels per cell of the last map: 16 (torchvision), 8, 4 or 2. Both change the strides of
            convolutions only, the deepest first; the same weights load.
        num_non_local: number of non-local blocks (``NonLocalBlock``): 0; 1, after the last block of layer3; or 2, after
            that of layer2 too. The network's own weights fill all but these.
        in_channels: 3 for pictures, 2 for optical flow (u, v).
    """

    name = "r2plus1d_18"
    torchvision = "video.r2plus1d_18"


def _info(
    name: str, times: tuple[int, ...], spaces: tuple[int, ...], num_non_local: int, in_channels: int
) -> BackboneInfo:
    stages = strided_stages(_STAGES, _CHANNELS, spaces, times)
    last = stages[-1]
    options = {
        "stride_time": last.stride_time,
        "stride_space": last.stride_space,
        "num_non_local": num_non_local,
        "in_channels": in_channels,
    }
    return BackboneInfo(
        name, stages, size=112, options=options, **input_of(name, in_channels, KINETICS_MEAN, KINETICS_STD)
    )


def _set_stride(stage: nn.Module, time: int, space: int) -> None:
    """Give the strided convolutions (first of the stage, and the shortcut beside it) another stride.

    R(2+1)D strides in space and in time in two convolutions; a stage of MC3 has none in time, and takes that of space.
    """
    strided = [m for m in stage.modules() if isinstance(m, nn.Conv3d) and m.stride != (1, 1, 1)]
    in_time = [m for m in strided if m.stride[0] > 1] or strided
    in_space = [m for m in strided if m.stride[1] > 1]
    for module in strided:
        spatial = space if module in in_space else 1
        module.stride = (time if module in in_time else 1, spatial, spatial)
