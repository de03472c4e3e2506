"""2-D ResNets frame by frame, with torchvision's own layers and state-dict keys, so that ImageNet weights load."""

from __future__ import annotations

from operator import attrgetter
from typing import ClassVar

from torch import nn

from ssvid.backbones.contract import (
    BackboneInfo,
    check_option,
    input_of,
    register_backbone,
    spread_stride,
    strided_stages,
    take_channels,
)
from ssvid.backbones.per_frame import IMAGENET_MEAN, IMAGENET_STD, PerFrameBackbone

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
NATIVE_SPACE = (4, 1, 2, 2, 2)
PADDINGS = ("zeros", "reflect")


class _ResNet(PerFrameBackbone):
    """What the 2-D ResNets share; ``name`` is that of the registered network, ``expansion`` that of its blocks."""

    name: ClassVar[str]
    expansion: ClassVar[int]

    def __init__(self, *, stride_space: int = 32, padding: str = "zeros", in_channels: int = 3) -> None:
        check_option(self.name, "stride_space", stride_space, (8, 16, 32))
        check_option(self.name, "padding", padding, PADDINGS)
        spaces = spread_stride(stride_space, NATIVE_SPACE)
        super().__init__(_info(self.name, self.expansion, spaces, padding, in_channels))

        import torchvision  # here, because importing torchvision takes most of a second

        network = attrgetter(self.torchvision)(torchvision.models)(weights=None)
        for name, module in network.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, module)
        for name, space in zip(STAGES[1:], spaces[1:], strict=True):
            _set_stride(self.get_submodule(name), space)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.padding != (0, 0):
                module.padding_mode = padding  # type: ignore[assignment]
        take_channels(self, in_channels)

    def stage_modules(self, name: str) -> tuple[nn.Module, ...]:
        """The submodules that a stage is made of; the stem is four of torchvision's."""
        names = ("conv1", "bn1", "relu", "maxpool") if name == "stem" else (name,)
        return tuple(self.get_submodule(n) for n in names)


@register_backbone("resnet18")
class ResNet18(_ResNet):
    """ResNet-18 (He 2016, arXiv:1512.03385) on each frame by itself, built by torchvision, without its classifier ``fc``.

    Its weights load into ``torchvision.models.resnet18()`` and the other way round.

    Args:
        stride_space: pixels per cell of the last map: 32 (torchvision), 16 or 8. Strides of convolutions are removed, the
            deepest first, and no dilation takes their place; the same weights load.
        padding: of the convolutions: "zeros" (torchvision) or "reflect", which gives away less of where the borders are
            (videowalk, arXiv:2006.14613) and needs clips one pixel larger than the stride. Adds no keys.
        in_channels: 3 for pictures, 2 for optical flow (u, v).
    """

    name = "resnet18"
    expansion = 1
    torchvision = "resnet18"


@register_backbone("resnet50")
class ResNet50(_ResNet):
    """ResNet-50 (He 2016, arXiv:1512.03385) on each frame by itself, built by torchvision, without its classifier ``fc``.

    Its weights load into ``torchvision.models.resnet50()`` and the other way round.

    Args:
        stride_space: pixels per cell of the last map: 32 (torchvision), 16 or 8. Strides of convolutions are removed, the
            deepest first, and no dilation takes their place; the same weights load. TimeCycle (CVPR 2019) takes the map
            of layer3 with stride 8.
        padding: of the convolutions: "zeros" (torchvision) or "reflect", which needs clips one pixel larger than the
            stride. Adds no keys.
        in_channels: 3 for pictures, 2 for optical flow (u, v).
    """

    name = "resnet50"
    expansion = 4
    torchvision = "resnet50"


def resnet_channels(expansion: int) -> tuple[int, ...]:
    """Channels of the five stages; ``expansion`` is 1 for basic blocks and 4 for bottlenecks."""
    return (64, *(width * expansion for width in (64, 128, 256, 512)))


def _info(name: str, expansion: int, spaces: tuple[int, ...], padding: str, in_channels: int) -> BackboneInfo:
    stages = strided_stages(STAGES, resnet_channels(expansion), spaces, [1] * len(spaces))
    last = stages[-1].stride_space
    return BackboneInfo(
        name,
        stages,
        # A map of one cell has nothing that could be reflected.
        min_px=last + 1 if padding == "reflect" else 1,
        size=224,
        **input_of(name, in_channels, IMAGENET_MEAN, IMAGENET_STD),
        options={"stride_space": last, "padding": padding, "in_channels": in_channels},
    )


def _set_stride(stage: nn.Module, space: int) -> None:
    """Give the strided convolutions (in the first block, and the shortcut beside it) another stride."""
    for module in stage.modules():
        if isinstance(module, nn.Conv2d) and module.stride != (1, 1):
            module.stride = (space, space)
