"""C3D: eight 3x3x3 convolutions and five poolings (Tran 2015, arXiv:1412.0767), as the paper and as pretext papers use it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ssvid.backbones.contract import (
    Backbone,
    BackboneInfo,
    StageInfo,
    check_option,
    input_of,
    register_backbone,
    spread_stride,
    strided_stages,
)
from ssvid.backbones.pooling import RoundUpMaxPool3d
from ssvid.backbones.resnet3d import KINETICS_MEAN, KINETICS_STD
from ssvid.errors import RecipeError

NORMS = ("batch", "none")
FC_CHANNELS = 4096
WIDTH = 64
# Convolutions of each stage, and how many times as many channels as conv1 they have.
_STAGES = {
    "conv1": (("1", 1),),
    "conv2": (("2", 2),),
    "conv3": (("3a", 4), ("3b", 4)),
    "conv4": (("4a", 8), ("4b", 8)),
    "conv5": (("5a", 8), ("5b", 8)),
}
# Of the pooling before each stage.
_TIME, _SPACE = (1, 1, 2, 2, 2), (1, 2, 2, 2, 2)
_FC_CELLS = (1, 4, 4)  # cells of pool5 that fc6 sees: what 16 frames of 112 px give


@register_backbone("c3d")
class C3D(Backbone):
    """C3D (Tran 2015, arXiv:1412.0767, sec. 3.3): all convolutions 3x3x3, the first pooling in space alone.

    ``norm="none", fc=True`` is the paper's network; the default is that of pretext papers (VCOP, Pace, RSPNet): batch
    normalization after each convolution and no fully connected layers, 27.7 million parameters. A stage begins with its
    pooling, so that ``conv5`` is the map before pool5. Keys are those of the usual PyTorch files (conv1, bn1, conv3a,
    ..., fc6, fc7), whose weights load as they are.

    Args:
        norm: "batch", or "none" as in the paper.
        fc: whether there are the stages fc6 and fc7 of 4096 channels with dropout 0.5. Their matrices are applied as
            convolutions of 1x4x4 cells of pool5, so that larger clips give more than one cell; clips of at least 9
            frames of 81 px are needed then, and native strides. The vectors for an SVM in the paper are those of fc6.
        stride_time: frames per cell of the map of conv5: 8 (paper), 4, 2 or 1.
        stride_space: pixels per cell of the map of conv5: 16 (paper), 8, 4, 2 or 1. Both remove poolings, the deepest
            first; the same weights load.
        in_channels: 3 for pictures, 2 for optical flow (u, v).
        width: channels of conv1, 64 in the paper; the others keep their ratio to it. Fewer are for small machines, and no
            public weights fit them.

    Differs: pools round sizes up, so that one frame is enough; sizes that are multiples of the strides give the same
    maps. Pixels are normalized by mean and standard deviation; the paper subtracts a mean picture, channels in BGR.
    Weights start from Kaiming's fan-out initialization.
    """

    def __init__(
        self,
        *,
        norm: str = "batch",
        fc: bool = False,
        stride_time: int = 8,
        stride_space: int = 16,
        in_channels: int = 3,
        width: int = WIDTH,
    ) -> None:
        check_option("c3d", "norm", norm, NORMS)
        check_option("c3d", "stride_time", stride_time, (1, 2, 4, 8))
        check_option("c3d", "stride_space", stride_space, (1, 2, 4, 8, 16))
        _check_fc(fc, stride_time, stride_space)
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise RecipeError(f"backbone c3d: width ({width!r}) must be a whole number of at least 1.")
        times, spaces = spread_stride(stride_time, _TIME), spread_stride(stride_space, _SPACE)
        super().__init__(_info(norm, fc, times, spaces, in_channels, width))
        before = in_channels
        for number, times_width in (pair for stage in _STAGES.values() for pair in stage):
            channels = times_width * width
            self.add_module(f"conv{number}", nn.Conv3d(before, channels, 3, padding=1))
            if norm == "batch":
                self.add_module(f"bn{number}", nn.BatchNorm3d(channels))
            self.add_module(f"relu{number}", nn.ReLU(inplace=True))
            before = channels
        for i, (time, space) in enumerate(zip(times, spaces, strict=True)):
            if (time, space) != (1, 1):
                self.add_module(f"pool{i}", RoundUpMaxPool3d((time, space, space)))
        if fc:
            self.pool5 = nn.MaxPool3d(2, 2, (0, 1, 1))
            self.fc6, self.fc7 = LinearOverCells(before, FC_CHANNELS, _FC_CELLS), LinearOverCells(4096, FC_CHANNELS)
            self.after6, self.after7 = (nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.5)) for _ in range(2))
        _initialize(self)

    def stage_modules(self, name: str) -> tuple[nn.Module, ...]:
        """The pooling before a stage where it has one, then its convolutions, each with what follows it."""
        if name in ("fc6", "fc7"):
            pools = (self.pool5,) if name == "fc6" else ()
            return (*pools, self.get_submodule(name), self.get_submodule(f"after{name[-1]}"))
        names = [f"pool{list(_STAGES).index(name)}"]
        for number, _ in _STAGES[name]:
            names += [f"conv{number}", f"bn{number}", f"relu{number}"]
        return tuple(self.get_submodule(n) for n in names if n in self._modules)


class LinearOverCells(nn.Linear):
    """A fully connected layer that slides over a map: its matrix sees ``cells`` of T, H, W at a time. BCTHW to BCTHW.

    Where the map has just so many cells it is the layer on the flattened map; the weight has that layer's shape.
    """

    def __init__(self, ins: int, outs: int, cells: tuple[int, int, int] = (1, 1, 1)) -> None:
        super().__init__(ins * cells[0] * cells[1] * cells[2], outs)
        self.kernel = (ins, *cells)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve."""
        return F.conv3d(input, self.weight.view(-1, *self.kernel), self.bias)


def _check_fc(fc: bool, stride_time: int, stride_space: int) -> None:
    if not isinstance(fc, bool):
        raise RecipeError(f"backbone c3d: fc ({fc!r}) must be true or false.")
    if fc and (stride_time, stride_space) != (8, 16):
        raise RecipeError(
            f"backbone c3d: fc (True) needs the strides of the paper, stride_time 8 and stride_space 16, and they are "
            f"{stride_time} and {stride_space}. Leave them out, or leave fc out: a map of other strides has no fc6."
        )


def _info(
    norm: str, fc: bool, times: Sequence[int], spaces: Sequence[int], in_channels: int, width: int
) -> BackboneInfo:
    stages = [*strided_stages(_STAGES, [layers[-1][1] * width for layers in _STAGES.values()], spaces, times)]
    options = {
        "norm": norm,
        "fc": fc,
        "stride_time": stages[-1].stride_time,
        "stride_space": stages[-1].stride_space,
        "in_channels": in_channels,
        "width": width,
    }
    if fc:
        stages += [StageInfo(name, FC_CHANNELS, 32, 16) for name in ("fc6", "fc7")]
    return BackboneInfo(
        "c3d",
        tuple(stages),
        # The least with 2 x 6 x 6 cells in conv5, which are 1 x 4 x 4 in pool5; 16 frames of 112 px give 2 x 7 x 7.
        min_frames=9 if fc else 1,
        min_px=81 if fc else 1,
        size=112,
        **input_of("c3d", in_channels, KINETICS_MEAN, KINETICS_STD),
        full_maps=not fc,
        options=options,
    )


def _initialize(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, (nn.Conv3d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
