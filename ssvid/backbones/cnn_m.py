"""CNN-M-2048 (Chatfield 2014, arXiv:1405.3531), either stream of two-stream networks (Simonyan & Zisserman 2014, arXiv:1406.2199)."""

from __future__ import annotations

from torch import nn

from ssvid.backbones.contract import (
    Backbone,
    BackboneInfo,
    StageInfo,
    input_of,
    register_backbone,
    strided_stages,
    take_channels,
)
from ssvid.backbones.fusion import STAGES, check_options, convolution, dense
from ssvid.backbones.per_frame import IMAGENET_MEAN, IMAGENET_STD
from ssvid.errors import RecipeError

_CHANNELS, _KERNELS, _STRIDES, _PADDINGS = (96, 256, 512, 512, 512), (7, 5, 3, 3, 3), (2, 2, 1, 1, 1), (0, 1, 1, 1, 1)
_POOLED = (True, True, False, False, True)  # 3 x 3 cells at a stride of 2, sizes rounded up
_FC_CELLS, _FC6, _FC7 = 6, 4096, 2048


@register_backbone("cnn_m")
class CNNM(Backbone):
    """CNN-M-2048: five convolutions, the network of both streams of Simonyan & Zisserman 2014 (section 3, figure 1).

    With the defaults it is the spatial stream and sees each clip as one stack: one frame of three channels. With
    ``in_channels=2, num_frames=10`` it is the temporal stream: the first filters span 10 frames of flow, which are the 20
    channels of the paper. Maps have one cell in time. With ``fc=true`` there are 90.4 million parameters of the spatial
    stream before its last layer, 83.9 of them in fc6 and fc7.

    Args:
        num_frames: frames of a clip, all of which the first filters see; clips of another length are refused.
        in_channels: 3 for pictures, 2 for optical flow (u, v).
        norm: after conv1 and conv2: "lrn", local response normalization (paper), or "batch", after all five. The paper's
            temporal stream has none after conv2.
        fc: whether there are the stages fc6 (4096) and fc7 (2048) with dropout 0.5, as convolutions of 6x6 cells of conv5:
            frames of at least 201 px are needed then.

    Differs: dropout is 0.5; the paper trains with 0.9 where it has no other data. Weights start from Kaiming's fan-out
    initialization. Pixels are normalized by mean and standard deviation.
    """

    def __init__(self, *, num_frames: int = 1, in_channels: int = 3, norm: str = "lrn", fc: bool = False) -> None:
        if isinstance(num_frames, bool) or not isinstance(num_frames, int) or num_frames < 1:
            raise RecipeError(f"backbone cnn_m: num_frames ({num_frames!r}) must be a whole number of at least 1.")
        check_options("cnn_m", norm, fc)
        options: dict[str, int | str | bool] = {
            "num_frames": num_frames,
            "in_channels": in_channels,
            "norm": norm,
            "fc": fc,
        }
        super().__init__(_info(options))
        before = 3
        for i, name in enumerate(STAGES):
            time = num_frames if i == 0 else 1
            self.add_module(name, _stage(before, i, time, norm))
            before = _CHANNELS[i]
        if fc:
            self.fc6 = dense(before, _FC6, _FC_CELLS)
            self.fc7 = dense(_FC6, _FC7, 1)
        take_channels(self, in_channels)


def _info(options: dict[str, int | str | bool]) -> BackboneInfo:
    num_frames, fc = int(options["num_frames"]), bool(options["fc"])
    steps = [stride * (2 if pooled else 1) for stride, pooled in zip(_STRIDES, _POOLED, strict=True)]
    stages = strided_stages(STAGES, _CHANNELS, steps, (num_frames, 1, 1, 1, 1))
    last = stages[-1]
    if fc:
        stages += tuple(
            StageInfo(name, width, last.stride_space, num_frames) for name, width in (("fc6", _FC6), ("fc7", _FC7))
        )
    return BackboneInfo(
        "cnn_m",
        stages,
        min_frames=num_frames,
        max_frames=num_frames,
        min_px=least_px(_FC_CELLS if fc else 1),
        size=224,
        num_frames=num_frames,
        **input_of("cnn_m", int(options["in_channels"]), IMAGENET_MEAN, IMAGENET_STD),
        full_maps=False,
        options=options,
    )


def cells_of(side_px: int) -> int:
    """Cells on a side of the map of conv5; below 1 where the frame is too small."""
    for kernel, stride, padding, pooled in zip(_KERNELS, _STRIDES, _PADDINGS, _POOLED, strict=True):
        side_px = (side_px + 2 * padding - kernel) // stride + 1
        if pooled:
            side_px = -(-(side_px - 3) // 2) + 1 if side_px >= 1 else 0
    return side_px


def least_px(cells: int) -> int:
    """The side of the smallest frame whose map of conv5 has so many cells on a side."""
    return next(side for side in range(7, 1000) if cells_of(side) >= cells)


def _stage(ins: int, i: int, time: int, norm: str) -> nn.Sequential:
    kernel, stride = (time, _KERNELS[i], _KERNELS[i]), (time, _STRIDES[i], _STRIDES[i])
    layers: list[nn.Module] = [convolution(ins, _CHANNELS[i], kernel, stride, _PADDINGS[i])]
    if norm == "batch":
        layers.append(nn.BatchNorm3d(_CHANNELS[i]))
    layers.append(nn.ReLU(inplace=True))
    if norm == "lrn" and i < 2:
        layers.append(nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0))
    if _POOLED[i]:
        layers.append(nn.MaxPool3d((1, 3, 3), (1, 2, 2), ceil_mode=True))
    return nn.Sequential(*layers)
