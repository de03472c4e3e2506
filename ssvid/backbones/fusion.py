"""Where a network may meet time: early fusion, slow fusion, context and fovea (Karpathy 2014, CVPR, secs. 3.1 and 3.2).

The three share five convolutions that follow Krizhevsky's, for frames of 170 px. Late fusion is no network of its own: it
is a head over the maps of a network that sees frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssvid.backbones.contract import (
    Backbone,
    BackboneInfo,
    StageInfo,
    check_option,
    input_of,
    register_backbone,
    strided_stages,
    take_channels,
)
from ssvid.backbones.per_frame import IMAGENET_MEAN, IMAGENET_STD, PerFrameBackbone
from ssvid.errors import RecipeError

NORMS = ("lrn", "batch")
FC_CHANNELS = 4096
STAGES = ("conv1", "conv2", "conv3", "conv4", "conv5")
_CHANNELS = (96, 256, 384, 384, 256)
_KERNELS = (11, 5, 3, 3, 3)
_STRIDES = (3, 1, 1, 1, 1)
_POOLED = (True, True, False, False, True)  # by 2 x 2 cells, sizes rounded down
_FC_CELLS = 7  # cells of conv5 on a side, of frames of 170 px
_ONES = (1, 1, 1, 1, 1)


@register_backbone("early_fusion")
class EarlyFusion(Backbone):
    """Early fusion (Karpathy 2014, sec. 3.1): the first filters span all frames of the clip, everything after is 2-D.

    Motion can be seen by the first layer alone, and at the times it was trained at alone: a clip that begins a frame
    later is another input, not a shifted one. Maps have one cell in time.

    Args:
        num_frames: frames of a clip, T of the first filters 11x11x3xT: 10 in the paper. Clips of any other length are
            refused.
        norm: after conv1 and conv2: "lrn", local response normalization (paper), or "batch", after all five.
        fc: whether there are the stages fc6 and fc7 of 4096 channels with dropout 0.5, as convolutions of 7x7 cells.
        in_channels: 3 for pictures, 2 for optical flow (u, v): the first filters then span T frames of flow, as those of a
            temporal stream do (Simonyan & Zisserman 2014, section 3).

    Differs: pixels are normalized by ImageNet's mean and standard deviation; the paper subtracts 117. Weights start from
    Kaiming's fan-out initialization.
    """

    def __init__(self, *, num_frames: int = 10, norm: str = "lrn", fc: bool = False, in_channels: int = 3) -> None:
        if isinstance(num_frames, bool) or not isinstance(num_frames, int) or num_frames < 2:
            raise RecipeError(
                f"backbone early_fusion: num_frames ({num_frames!r}) must be a whole number of at least 2. For single "
                "frames choose a network that sees frames, such as caffenet."
            )
        check_options("early_fusion", norm, fc)
        extents, strides = (num_frames, *_ONES[1:]), (num_frames, *_ONES[1:])
        options = {"num_frames": num_frames, "norm": norm, "fc": fc, "in_channels": in_channels}
        info = BackboneInfo(
            "early_fusion",
            stage_infos(strides, fc=fc),
            min_frames=num_frames,
            max_frames=num_frames,
            min_px=least_px(fc),
            size=170,
            num_frames=num_frames,
            **input_of("early_fusion", in_channels, IMAGENET_MEAN, IMAGENET_STD),
            full_maps=False,
            options=options,
        )
        super().__init__(info)
        add_stages(self, extents, strides, norm=norm, fc=fc)
        take_channels(self, in_channels)


@register_backbone("slow_fusion")
class SlowFusion(Backbone):
    """Slow fusion (Karpathy 2014, sec. 3.1): the first three layers each see more frames than the one before.

    The first filters span 4 frames at a stride of 2, those of conv2 and conv3 two responses at a stride of 2: of 10
    frames there are 4, then 2, then 1 response, which has seen all 10. Longer clips give more; frames that fill no
    response are left out at the end.

    Args:
        norm: after conv1 and conv2: "lrn", local response normalization (paper), or "batch", after all five.
        fc: whether there are the stages fc6 and fc7 of 4096 channels with dropout 0.5, as convolutions of 7x7 cells.
        in_channels: 3 for pictures, 2 for optical flow (u, v).

    Differs: as ``EarlyFusion``.
    """

    def __init__(self, *, norm: str = "lrn", fc: bool = False, in_channels: int = 3) -> None:
        check_options("slow_fusion", norm, fc)
        extents, strides = (4, 2, 2, 1, 1), (2, 2, 2, 1, 1)
        info = BackboneInfo(
            "slow_fusion",
            stage_infos(strides, fc=fc),
            min_frames=10,
            min_px=least_px(fc),
            size=170,
            num_frames=10,
            **input_of("slow_fusion", in_channels, IMAGENET_MEAN, IMAGENET_STD),
            full_maps=False,
            options={"norm": norm, "fc": fc, "in_channels": in_channels},
        )
        super().__init__(info)
        add_stages(self, extents, strides, norm=norm, fc=fc)
        take_channels(self, in_channels)


@register_backbone("context_fovea")
class ContextFovea(PerFrameBackbone):
    """Context and fovea (Karpathy 2014, sec. 3.2) on each frame by itself: two streams, each of half the frame's sides.

    The context stream sees the whole frame at half its resolution, the fovea stream the middle at full resolution: of
    178 px two inputs of 89 px. Each has filters of its own and no last pooling, so that both end in 7x7 cells. A map
    holds the channels of the context, then those of the fovea; a cell of the fovea's half covers half as many pixels,
    around the middle, so that one cell of the map is not one place of the frame.

    Args:
        norm: after conv1 and conv2: "lrn", local response normalization (paper), or "batch", after all five.
        fc: whether there are the stages fc6 and fc7 of 4096 channels with dropout 0.5, over both streams.

    Differs: as ``EarlyFusion``. The resolution is halved by the mean of 2x2 pixels.
    """

    per_frame: ClassVar[bool] = True

    def __init__(self, *, norm: str = "lrn", fc: bool = False) -> None:
        check_options("context_fovea", norm, fc)
        info = BackboneInfo(
            "context_fovea",
            stage_infos(_ONES, fc=fc, num_streams=2),
            min_px=least_px(fc, num_streams=2),
            size=178,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            full_maps=False,
            options={"norm": norm, "fc": fc},
        )
        super().__init__(info)
        streams = [nn.ModuleDict() for _ in range(2)]
        for stream in streams:
            add_stages(stream, _ONES, _ONES, norm=norm, last_pool=False)
        for name in STAGES:
            self.add_module(name, TwoStreams(*(stream[name] for stream in streams)))
        if fc:
            add_fc(self, 2 * _CHANNELS[-1])

    def normalize(self, clip_BCTHW: Tensor) -> Tensor:
        """Scale pixels, and lay what the two streams see side by side as channels: the context's, then the fovea's."""
        x_BCTHW = super().normalize(clip_BCTHW)
        height, width = x_BCTHW.shape[3] // 2, x_BCTHW.shape[4] // 2
        top, left = (x_BCTHW.shape[3] - height) // 2, (x_BCTHW.shape[4] - width) // 2
        context = F.avg_pool3d(x_BCTHW, (1, 2, 2))
        fovea = x_BCTHW.narrow(3, top, height).narrow(4, left, width)
        return torch.cat([context, fovea], dim=1)

    def run_stage(self, name: str, x_BCTHW: Tensor) -> Tensor:
        """Compute one stage on the frames of all clips as one batch of clips of one frame."""
        num_frames = x_BCTHW.shape[2]
        x_BCTHW = x_BCTHW.transpose(1, 2).flatten(0, 1)[:, :, None]
        for module in self.stage_modules(name):
            x_BCTHW = module(x_BCTHW)
        return x_BCTHW[:, :, 0].unflatten(0, (-1, num_frames)).transpose(1, 2)


class TwoStreams(nn.Module):
    """Two modules, each on one half of the channels; their maps side by side as channels. BCTHW to BCTHW."""

    def __init__(self, context: nn.Module, fovea: nn.Module) -> None:
        super().__init__()
        self.context, self.fovea = context, fovea

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Run both."""
        context, fovea = x_BCTHW.chunk(2, dim=1)
        return torch.cat([self.context(context), self.fovea(fovea)], dim=1)


def add_stages(
    owner: nn.Module,
    extents: Sequence[int],
    strides: Sequence[int],
    *,
    norm: str,
    fc: bool = False,
    last_pool: bool = True,
) -> None:
    """Give a module the five convolutions as children of the stages' names, and fc6 and fc7 where they are wanted.

    Args:
        extents, strides: of each convolution in time, in frames or responses of the layer before.
        last_pool: whether conv5 ends in a pooling.
    """
    before = 3
    for i, name in enumerate(STAGES):
        kernel, stride = (extents[i], _KERNELS[i], _KERNELS[i]), (strides[i], _STRIDES[i], _STRIDES[i])
        layers: list[nn.Module] = [convolution(before, _CHANNELS[i], kernel, stride)]
        if norm == "batch":
            layers.append(nn.BatchNorm3d(_CHANNELS[i]))
        layers.append(nn.ReLU(inplace=True))
        if norm == "lrn" and i < 2:
            layers.append(nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75))
        if _POOLED[i] and (last_pool or name != STAGES[-1]):
            layers.append(nn.MaxPool3d((1, 2, 2)))
        owner.add_module(name, nn.Sequential(*layers))
        before = _CHANNELS[i]
    if fc:
        add_fc(owner, before)


def add_fc(owner: nn.Module, channels: int) -> None:
    """Give a module the stages fc6 and fc7, as convolutions, over a map of so many channels."""
    for name, ins, side in (("fc6", channels, _FC_CELLS), ("fc7", FC_CHANNELS, 1)):
        owner.add_module(name, dense(ins, FC_CHANNELS, side))


def stage_infos(strides_time: Sequence[int], *, fc: bool, num_streams: int = 1) -> tuple[StageInfo, ...]:
    """The stages of one network over a whole frame, or of two streams over half its sides each and no last pooling."""
    pooled = [*_POOLED[:-1], num_streams == 1]
    steps = [stride * (2 if pool else 1) for stride, pool in zip(_STRIDES, pooled, strict=True)]
    steps[0] *= num_streams  # of half the sides
    stages = strided_stages(STAGES, [num_streams * channels for channels in _CHANNELS], steps, strides_time)
    last = stages[-1]
    names = ("fc6", "fc7") if fc else ()
    return (*stages, *(StageInfo(name, FC_CHANNELS, last.stride_space, last.stride_time) for name in names))


def least_px(fc: bool, num_streams: int = 1) -> int:
    """The side of the smallest frame of which conv5 has a cell, or 7x7 of them for fc6."""
    cells = _FC_CELLS if fc else 1
    pools = 3 if num_streams == 1 else 2
    responses = cells * 2**pools  # of the first convolution, (px - 1) // 3 + 1 with its padding of 5
    return num_streams * (3 * (responses - 1) + 1)


def dense(ins: int, outs: int, side: int) -> nn.Sequential:
    """A fully connected layer over a map of so many cells on a side, as a convolution, with dropout 0.5."""
    layer = convolution(ins, outs, (1, side, side), (1, 1, 1), padding=0)
    return nn.Sequential(layer, nn.ReLU(inplace=True), nn.Dropout(0.5))


def convolution(
    ins: int, outs: int, kernel: tuple[int, int, int], stride: tuple[int, int, int], padding: int | None = None
) -> nn.Conv3d:
    """A convolution that pads space, by ``padding`` or so that only its stride makes maps smaller, and time not at all."""
    pad = kernel[1] // 2 if padding is None else padding
    layer = nn.Conv3d(ins, outs, kernel, stride, (0, pad, pad))
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def check_options(name: str, norm: str, fc: bool) -> None:
    """Raise RecipeError where an option of these networks is not legal."""
    check_option(name, "norm", norm, NORMS)
    if not isinstance(fc, bool):
        raise RecipeError(f"backbone {name}: fc ({fc!r}) must be true or false.")
