"""S3D and S3D-G: Inception in 3-D with separable convolutions (Xie 2018, arXiv:1712.04851), as SpeedNet and CoCLR use it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ssvid.backbones.contract import (
    Backbone,
    BackboneInfo,
    check_option,
    input_of,
    register_backbone,
    strided_stages,
    take_channels,
)
from ssvid.backbones.pooling import RoundUpMaxPool3d
from ssvid.backbones.resnet3d import KINETICS_MEAN, KINETICS_STD

# Stage: its part of torchvision's ``features``, its channels.
_STAGES = {
    "conv1": (slice(0, 1), 64),
    "conv2": (slice(1, 4), 192),
    "mixed3": (slice(4, 7), 480),
    "mixed4": (slice(7, 13), 832),
    "mixed5": (slice(13, 16), 1024),
}
_CONV2C, _POOL4, _POOL5 = 3, 7, 13


class _S3D(Backbone):
    """What S3D and S3D-G share; ``name`` is that of the registered network.

    Differs: the last pooling rounds sizes up, as the padding "SAME" of the paper's code does, so that one frame is
    enough; torchvision's rounds down. Maps are equal where the map before it has even sides. The batch statistics
    follow with momentum 0.1: at torchvision's 0.001 the evaluation of a run of a few hundred steps would still see
    the initial ones. Convolutions start from Kaiming's fan-out initialization: with torchvision's, the maps of
    the untrained network in evaluation vanish with depth.
    """

    name: ClassVar[str]
    is_gated: ClassVar[bool] = False

    def __init__(
        self,
        *,
        conv1_stride_time: int = 2,
        pool4_stride_time: int = 2,
        pool5_stride_time: int = 2,
        in_channels: int = 3,
    ) -> None:
        options = {
            "conv1_stride_time": conv1_stride_time,
            "pool4_stride_time": pool4_stride_time,
            "pool5_stride_time": pool5_stride_time,
        }
        for option, value in options.items():
            check_option(self.name, option, value, (1, 2))
        super().__init__(_info(self.name, options, in_channels))
        self.features = _features(**options)
        _initialize(self.features)
        take_channels(self, in_channels)
        if self.is_gated:
            _add_gates(self.features)

    def stage_modules(self, name: str) -> tuple[nn.Module, ...]:
        """The layers of torchvision's ``features`` that a stage is made of."""
        return tuple(self.features[_STAGES[name][0]])


@register_backbone("s3d")
class S3D(_S3D):
    """S3D (Xie 2018, arXiv:1712.04851, sec. 4.2), built by torchvision, without its classifier.

    Its weights load into ``torchvision.models.video.s3d()`` and the other way round. It takes clips of 1 frame and
    more, torchvision's whole network only of 14 and more.

    Args:
        conv1_stride_time: stride in frames of the first convolution: 2 or 1.
        pool4_stride_time: of the pooling before mixed4: 2 or 1.
        pool5_stride_time: of the pooling before mixed5: 2 or 1; with 1 it pools in space alone. None of them changes
            the weights. All 1 keep the length of the clip.
        in_channels: 3 for pictures, 2 for optical flow (u, v).

    Differs: see ``_S3D``: sizes are rounded up in the last pooling, momentum and initialization are others.
    """

    name = "s3d"
    torchvision = "video.s3d"
    torchvision_head = "classifier."
    torchvision_last = "features"
    torchvision_setup = (
        "network.features[13].ceil_mode = True  # odd sizes are rounded up, so that one frame is enough",
        "network.avgpool = torch.nn.AdaptiveAvgPool3d(1)",
        "network.classifier = torch.nn.Identity()",
    )


@register_backbone("s3dg")
class S3DG(_S3D):
    """S3D-G: S3D with self-gating (Xie 2018, arXiv:1712.04851, sec. 4.4), the network of SpeedNet.

    A gate weighs the channels of a map by a sigmoid of their own mean over time and space. It stands where the paper's
    authors put it in their code: after the separable convolution of conv2 and after the four branches of each mixed
    block. Keys are those of s3d, and ``gate`` and ``gates``: weights of s3d fill all but the gates.

    SpeedNet keeps the length of the clip: all three options 1. Whether it does so in the first convolution
    too was not checked against the paper (arXiv:2004.06130, without public code); a reimplementation does it.

    Args:
        conv1_stride_time: stride in frames of the first convolution: 2 or 1.
        pool4_stride_time: of the pooling before mixed4: 2 or 1.
        pool5_stride_time: of the pooling before mixed5: 2 or 1; with 1 it pools in space alone. None of them changes
            the weights.
        in_channels: 3 for pictures, 2 for optical flow (u, v).

    Differs: the first convolution is separable, as in the paper's figure and in s3d; the authors' code has it whole. See
    also ``_S3D``.
    """

    name = "s3dg"
    is_gated = True


class SelfGating(nn.Module):
    """Channels weighed by what the whole map holds: x * sigmoid(W mean(x)) (arXiv:1712.04851, sec. 4.4). BCTHW to BCTHW."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels))
        nn.init.trunc_normal_(self.weight, std=0.01)  # as in the authors' code, which has no bias either

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        gate_BC = nn.functional.linear(x_BCTHW.mean(dim=(2, 3, 4)), self.weight).sigmoid()
        return x_BCTHW * gate_BC[:, :, None, None, None]


class _GatedSeparable(nn.Sequential):
    """A separable convolution, then a gate. The convolution's own keys stay as they are."""

    def __init__(self, separable: Any) -> None:
        super().__init__(*separable)
        self.gate = SelfGating(separable[1][0].out_channels)


def _add_gates(features: Any) -> None:
    features[_CONV2C] = _GatedSeparable(features[_CONV2C])
    for i, layer in enumerate(features):
        if hasattr(layer, "branch0"):
            features[i] = _GatedInception(layer)


class _GatedInception(nn.Module):
    """torchvision's separable Inception block with a gate after each branch. The block's own keys stay as they are."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        for name, branch in block.named_children():
            self.add_module(name, branch)
        self.gates = nn.ModuleList(SelfGating(_out_channels(branch)) for branch in block.children())

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        branches = [self.get_submodule(f"branch{i}") for i in range(4)]
        gated = [gate(branch(x_BCTHW)) for gate, branch in zip(self.gates, branches, strict=True)]
        return torch.cat(gated, dim=1)


def _out_channels(branch: nn.Module) -> int:
    return [m for m in branch.modules() if isinstance(m, nn.Conv3d)][-1].out_channels


def _info(name: str, options: dict[str, int], in_channels: int) -> BackboneInfo:
    times = (options["conv1_stride_time"], 1, 1, options["pool4_stride_time"], options["pool5_stride_time"])
    channels = [width for _, width in _STAGES.values()]
    stages = strided_stages(_STAGES, channels, [2] * len(times), times)
    clips = input_of(name, in_channels, KINETICS_MEAN, KINETICS_STD)
    return BackboneInfo(name, stages, size=224, num_frames=64, options={**options, "in_channels": in_channels}, **clips)


def _features(*, conv1_stride_time: int, pool4_stride_time: int, pool5_stride_time: int) -> Any:
    from torchvision.models.video import s3d  # here, because importing torchvision takes most of a second

    features: Any = s3d(weights=None).features
    features[0][1][0].stride = (conv1_stride_time, 1, 1)
    features[_POOL4].stride = (pool4_stride_time, 2, 2)
    # A window of 2 frames with stride 1 would make the clip one frame shorter and shift it by half a frame.
    features[_POOL5] = RoundUpMaxPool3d((pool5_stride_time, 2, 2))
    return features


def _initialize(features: nn.Module) -> None:
    for module in features.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm3d):
            module.momentum = 0.1
