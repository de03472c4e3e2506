"""CaffeNet with batch normalization, the network of Shuffle and Learn (Misra 2016, arXiv:1603.08561), frame by frame."""

from __future__ import annotations

from torch import nn

from ssvid.backbones.contract import BackboneInfo, StageInfo, check_option, input_of, register_backbone
from ssvid.backbones.per_frame import IMAGENET_MEAN, IMAGENET_STD, PerFrameBackbone
from ssvid.errors import RecipeError

NORMS = ("lrn", "batch")
FC_CHANNELS = 4096


@register_backbone("caffenet")
class CaffeNet(PerFrameBackbone):
    """CaffeNet (Krizhevsky 2012, in one column) on each frame by itself, with batch normalization after conv3 to fc7.

    Layers and groups are those of the public training network of Shuffle and Learn: 227 px, no padding in conv1, two
    groups in conv2, conv4 and conv5. The stages conv1 and conv2 end with their pooling and normalization.

    Args:
        norm: of conv1 and conv2: "lrn", local response normalization after pooling (Shuffle and Learn); or "batch",
            batch normalization there too.
        fc: whether there are the stages fc6 and fc7, 4096 channels each, with dropout 0.5 (Shuffle and Learn classifies
            on fc7). They are convolutions of 6x6 and 1x1 cells, so that larger frames give maps of more than one cell;
            frames of at least 227 px are needed then.
        in_channels: 3 for pictures, 2 for optical flow (u, v).

    Differs: batch normalization has scale and shift; its layers have no bias of their own; weights start from Kaiming's
    fan-out initialization, not from N(0, 0.01), because pixels come in normalized and not in 0 to 255; channels are RGB.
    """

    def __init__(self, *, norm: str = "lrn", fc: bool = False, in_channels: int = 3) -> None:
        check_option("caffenet", "norm", norm, NORMS)
        if not isinstance(fc, bool):
            raise RecipeError(f"backbone caffenet: fc ({fc!r}) must be true or false.")
        super().__init__(_info(norm, fc, in_channels))
        batch = norm == "batch"
        self.conv1 = nn.Sequential(*_conv(in_channels, 96, 11, stride=4, batch=batch), *_pool_and_norm(batch))
        self.conv2 = nn.Sequential(*_conv(96, 256, 5, padding=2, groups=2, batch=batch), *_pool_and_norm(batch))
        self.conv3 = nn.Sequential(*_conv(256, 384, 3, padding=1))
        self.conv4 = nn.Sequential(*_conv(384, 384, 3, padding=1, groups=2))
        self.conv5 = nn.Sequential(*_conv(384, 256, 3, padding=1, groups=2))
        if fc:
            self.fc6 = nn.Sequential(nn.MaxPool2d(3, 2), *_conv(256, FC_CHANNELS, 6), nn.Dropout(0.5))
            self.fc7 = nn.Sequential(*_conv(FC_CHANNELS, FC_CHANNELS, 1), nn.Dropout(0.5))


def _info(norm: str, fc: bool, in_channels: int) -> BackboneInfo:
    stages = [("conv1", 96, 8), ("conv2", 256, 16), ("conv3", 384, 16), ("conv4", 384, 16), ("conv5", 256, 16)]
    stages += [("fc6", FC_CHANNELS, 32), ("fc7", FC_CHANNELS, 32)] if fc else []
    return BackboneInfo(
        "caffenet",
        tuple(StageInfo(name, channels, space, 1) for name, channels, space in stages),
        # The least with one cell left: 11 + 4 * (7 - 1) = 35 for conv5, 11 + 4 * (55 - 1) = 227 for fc6.
        min_px=227 if fc else 35,
        size=227,
        **input_of("caffenet", in_channels, IMAGENET_MEAN, IMAGENET_STD),
        full_maps=False,
        options={"norm": norm, "fc": fc, "in_channels": in_channels},
    )


def _conv(
    ins: int, outs: int, kernel: int, *, stride: int = 1, padding: int = 0, groups: int = 1, batch: bool = True
) -> list[nn.Module]:
    convolution = nn.Conv2d(ins, outs, kernel, stride, padding, groups=groups, bias=not batch)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return [convolution, *([nn.BatchNorm2d(outs)] if batch else []), nn.ReLU(inplace=True)]


def _pool_and_norm(batch: bool) -> list[nn.Module]:
    return [nn.MaxPool2d(3, 2), *([] if batch else [nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)])]
