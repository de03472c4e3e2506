"""Residual networks inflated to video: I3D (Carreira & Zisserman 2017, arXiv:1705.07750, sec. 2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import ClassVar

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
    take_channels,
)
from ssvid.backbones.non_local import Places, add_non_local_blocks
from ssvid.backbones.per_frame import IMAGENET_MEAN, IMAGENET_STD
from ssvid.backbones.pooling import RoundUpMaxPool3d
from ssvid.backbones.resnet2d import NATIVE_SPACE, STAGES, resnet_channels
from ssvid.backbones.resnet3d import NON_LOCAL_PLACES

_NATIVE_TIME = (1, 1, 2, 2, 2)
_STEM_KERNEL, _BLOCK_KERNEL = 5, 3


class _InflatedResNet(Backbone):
    """What the inflated ResNets share; ``name`` is that of the registered network."""

    name: ClassVar[str]
    inflated_from: ClassVar[str]
    expansion: ClassVar[int]
    # First convolution of which blocks of a layer spans 3 frames.
    inflated: ClassVar[Mapping[str, tuple[int, ...]]]
    # Number of non-local blocks -> after which blocks they stand.
    non_local_places: ClassVar[Mapping[int, Places]] = NON_LOCAL_PLACES

    def __init__(
        self, *, stride_time: int = 2, stride_space: int = 32, num_non_local: int = 0, in_channels: int = 3
    ) -> None:
        check_option(self.name, "stride_time", stride_time, (1, 2, 4, 8))
        check_option(self.name, "stride_space", stride_space, (8, 16, 32))
        check_option(self.name, "num_non_local", num_non_local, tuple(self.non_local_places))
        times, spaces = spread_stride(stride_time, _NATIVE_TIME), spread_stride(stride_space, NATIVE_SPACE)
        super().__init__(_info(self.name, self.expansion, times, spaces, num_non_local, in_channels))

        import torchvision  # here, because importing torchvision takes most of a second

        network = attrgetter(self.inflated_from)(torchvision.models)(weights=None)
        kernels = {"conv1": _STEM_KERNEL}
        for layer, blocks in self.inflated.items():
            kernels |= {f"{layer}.{block}.conv1": _BLOCK_KERNEL for block in blocks}
        _make_3d(network, kernels, dict(zip(STAGES, spaces, strict=True)))
        for name, module in network.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, module)
        take_channels(self, in_channels)
        for name, time in zip(STAGES, times, strict=True):
            if time > 1:
                self.add_module(f"{name}_pool", RoundUpMaxPool3d((time, 1, 1)))
        # Last, so that a seed gives the rest the same weights.
        add_non_local_blocks(self, self.non_local_places[num_non_local])

    def stage_modules(self, name: str) -> tuple[nn.Module, ...]:
        """The submodules that a stage is made of: a pooling over time where it has one, then torchvision's."""
        names = ("conv1", "bn1", "relu", "maxpool") if name == "stem" else (f"{name}_pool", name)
        return tuple(self.get_submodule(n) for n in names if n in self._modules)


@register_backbone("i3d_resnet18")
class I3DResNet18(_InflatedResNet):
    """ResNet-18 inflated to 3-D: torchvision's 2-D keys with kernels that span time.

    Weights of ``resnet18`` load after ``inflate_weights``. The first convolution spans 5 frames, the first of the two 3x3
    convolutions of each block spans 3; time is padded by repeating the first and the last frame, so that a still clip
    stays still up to its ends.

    Args:
        stride_time: frames per cell of the last map: 2 (one maximum over 2 frames before layer2), 1, 4 or 8 (before layer3
            and layer4 too). Adds no keys.
        stride_space: pixels per cell of the last map: 32, 16 or 8, by removing strides; no dilation.
        num_non_local: number of non-local blocks (``NonLocalBlock``): 0; 1, after the last block of layer3; or 2, after
            that of layer2 too.
        in_channels: 3 for pictures, 2 for optical flow (u, v).

    Differs: I3D inflates an Inception network, every kernel of it; which kernels of a ResNet span time follows Non-local
    networks (Wang 2018, arXiv:1711.07971, sec. 4.2), which has only bottlenecks. Time is padded by repetition, not by zeros.
    """

    name, inflated_from, expansion = "i3d_resnet18", "resnet18", 1
    inflated: ClassVar[Mapping[str, tuple[int, ...]]] = {f"layer{i}": (0, 1) for i in range(1, 5)}


@register_backbone("i3d_resnet50")
class I3DResNet50(_InflatedResNet):
    """ResNet-50 inflated to 3-D as in Non-local networks (Wang 2018, arXiv:1711.07971, sec. 4.2, I3D with 3x1x1 kernels).

    Torchvision's 2-D keys with kernels that span time: weights of ``resnet50`` load after ``inflate_weights``. The first
    convolution spans 5 frames, and the first 1x1 convolution of every second block (of all three in layer1) spans 3.

    Args:
        stride_time: frames per cell of the last map: 2 (one maximum over 2 frames before layer2, as there), 1, 4 or 8
            (before layer3 and layer4 too). Adds no keys.
        stride_space: pixels per cell of the last map: 32, 16 or 8, by removing strides; no dilation.
        num_non_local: number of non-local blocks (``NonLocalBlock``): 0; 1, before the last block of layer3; 5, two in layer2
            and three in layer3, after every second block; or 10, after each block of both (there, sec. 4.1).
        in_channels: 3 for pictures, 2 for optical flow (u, v).

    Differs: time is padded by repeating the first and the last frame, not by zeros, so that a still clip stays still up
    to its ends; the stride within a bottleneck is at its 3x3 convolution, as in torchvision.
    """

    name, inflated_from, expansion = "i3d_resnet50", "resnet50", 4
    inflated: ClassVar[Mapping[str, tuple[int, ...]]] = {
        "layer1": (0, 1, 2),
        "layer2": (0, 2),
        "layer3": (0, 2, 4),
        "layer4": (1,),
    }
    non_local_places: ClassVar[Mapping[int, Places]] = {
        0: {},
        1: {"layer3": (4,)},
        5: {"layer2": (1, 3), "layer3": (1, 3, 5)},
        10: {"layer2": (0, 1, 2, 3), "layer3": (0, 1, 2, 3, 4, 5)},
    }


class InflatedConv3d(nn.Conv3d):
    """A 3-D convolution that pads time by repeating the first and the last frame, and space by zeros. BCTHW to BCTHW."""

    def __init__(self, flat: nn.Conv2d, kernel_time: int, stride_space: tuple[int, int]) -> None:
        super().__init__(
            flat.in_channels,
            flat.out_channels,
            (kernel_time, *flat.kernel_size),  # type: ignore[arg-type]
            (1, *stride_space),
            (0, *flat.padding),  # type: ignore[arg-type]
            bias=False,
        )
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, input: Tensor) -> Tensor:
        """Convolve."""
        return super().forward(repeat_ends(input, self.kernel_size[0] // 2))


def repeat_ends(x_BCTHW: Tensor, num_frames: int) -> Tensor:
    """The clip with its first and its last frame repeated so often more, before and after.

    Not by ``pad(mode="replicate")``, whose gradient on GPUs is not deterministic.
    """
    if num_frames == 0:
        return x_BCTHW
    first, last = x_BCTHW[:, :, :1], x_BCTHW[:, :, -1:]
    return torch.cat([first] * num_frames + [x_BCTHW] + [last] * num_frames, dim=2)


def _make_3d(network: nn.Module, kernels: Mapping[str, int], spaces: Mapping[str, int]) -> None:
    """Replace the 2-D layers of torchvision's ResNet in place. kernels: frames spanned, 1 where not named."""
    for path, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d):
            space = spaces.get(path.split(".")[0], 2)
            stride = module.stride if module.stride == (1, 1) or path == "conv1" else (space, space)
            new: nn.Module = InflatedConv3d(module, kernels.get(path, 1), stride)  # type: ignore[arg-type]
        elif isinstance(module, nn.BatchNorm2d):
            new = nn.BatchNorm3d(module.num_features)
        elif isinstance(module, nn.MaxPool2d):
            new = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        else:
            continue
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, new)


def _info(
    name: str,
    expansion: int,
    times: tuple[int, ...],
    spaces: tuple[int, ...],
    num_non_local: int,
    in_channels: int,
) -> BackboneInfo:
    stages = strided_stages(STAGES, resnet_channels(expansion), spaces, times)
    last = stages[-1]
    options = {
        "stride_time": last.stride_time,
        "stride_space": last.stride_space,
        "num_non_local": num_non_local,
        "in_channels": in_channels,
    }
    clips = input_of(name, in_channels, IMAGENET_MEAN, IMAGENET_STD)
    return BackboneInfo(name, stages, size=224, num_frames=32, options=options, **clips)
