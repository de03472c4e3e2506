"""What every network looks like from outside: a clip in, the feature map of any stage out, no head.

Axis letters: B batch, C channels, T frames, H W pixels, D feature width, N positions (``docs/glossary.md``).
"""

from __future__ import annotations

import fnmatch
import inspect
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from operator import mul
from typing import Any, ClassVar, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssvid.errors import PluginError, RecipeError, SsvidError, did_you_mean
from ssvid.registry import Registry
from ssvid.types import FLOW_CHANNELS, NO_MOTION, POOLS, RGB_CHANNELS

backbones = Registry("backbone", "ssvid.backbones", shelf="ssvid.backbones")
register_backbone = backbones.register

# "max1x2x2" keeps the places: the map itself, coarser.


class BackboneInputError(SsvidError, ValueError):
    """A clip that the network cannot take: wrong type, axes, channels, length or size."""


@dataclass(frozen=True)
class StageInfo:
    """One depth at which a feature map can be taken.

    channels: width D of its map. stride_space, stride_time: input pixels or frames per cell of the map, from the input
    on (not from the stage before).
    """

    name: str
    channels: int
    stride_space: int
    stride_time: int


@dataclass(frozen=True)
class BackboneInfo:
    """What a task, an evaluation or an export must know of a network. Holds plain types only.

    stages: shallow to deep. min_frames, min_px: the least a clip must have. max_frames: the most; None is any number.
    num_frames, size: clip length in frames and side in pixels that the network is meant for; others work too.
    mean, std: per channel, for input in [0, 1]; the network applies them itself.
    full_maps: a map has one cell for every started stride of the clip, ceil(side / stride); False: fewer, as the network
    does not pad all its borders.
    options: what ``create_backbone`` was given, defaults included.
    """

    name: str
    stages: tuple[StageInfo, ...]
    in_channels: int = 3
    min_frames: int = 1
    max_frames: int | None = None
    min_px: int = 1
    size: int = 112
    num_frames: int = 16
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    full_maps: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of all stages, shallow to deep."""
        return tuple(stage.name for stage in self.stages)

    def stage(self, name: str | None = None) -> StageInfo:
        """The stage of that name; None is the last.

        Raises:
            RecipeError: no stage has that name.
        """
        return self.stages[-1 if name is None else self.depth(name)]

    def depth(self, name: str) -> int:
        """Position of a stage, 0 for the shallowest. Raises RecipeError where there is none of that name."""
        if name not in self.stage_names:
            raise RecipeError(f"backbone {self.name} has no stage {name!r}. {did_you_mean(name, self.stage_names)}")
        return self.stage_names.index(name)

    def to_dict(self) -> dict[str, Any]:
        """Plain types that JSON and a weights-only checkpoint can hold."""
        plain = asdict(self)
        return plain | {"stages": [asdict(s) for s in self.stages], "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> BackboneInfo:
        """The inverse of ``to_dict``. Keys of other versions are ignored."""
        known: dict[str, Any] = {key: value for key, value in plain.items() if key in cls.__dataclass_fields__}
        known["stages"] = tuple(StageInfo(**stage) for stage in plain["stages"])
        known |= {key: tuple(known[key]) for key in ("mean", "std") if key in known}
        return cls(**known)


class Backbone(nn.Module):
    """A network without a head. Subclass it, register it with ``@register_backbone(name)``.

    A subclass gives ``info`` to ``__init__`` and then owns one submodule per stage, named as the stage; or it
    overrides ``stage_modules``, where one stage is several submodules or bears another name. Every option is a keyword argument of its ``__init__`` with a default of plain type.
    ``forward`` is the only entry: compilation, sharding and hooks hang on it.

    Class attributes:
        torchvision: builder under ``torchvision.models`` whose state-dict keys are this network's ("video.r3d_18");
            "" where there is none. torchvision_head: prefix of the keys that only the builder has, its classifier.
        torchvision_setup: lines of Python by which torchvision's ``network`` returns this network's vectors BD
            (the model card shows them). torchvision_last: name of the module whose output is the last map.
        inflated_from: builder of the 2D network whose weights an inflated one takes ("resnet18"); "" for all others.
    """

    torchvision: ClassVar[str] = ""
    torchvision_head: ClassVar[str] = "fc."
    torchvision_setup: ClassVar[tuple[str, ...]] = ("network.fc = torch.nn.Identity()",)
    torchvision_last: ClassVar[str] = "layer4"
    inflated_from: ClassVar[str] = ""
    per_frame: ClassVar[bool] = False  # whether it sees each frame by itself
    drops_tokens: ClassVar[bool] = False  # whether forward takes keep_BN (ssvid.backbones.tokens)

    mean_C111: Tensor
    std_C111: Tensor
    provenance: Mapping[str, Any]  # where the weights come from; empty until somebody who knows fills it

    def __init__(self, info: BackboneInfo) -> None:
        super().__init__()
        self.info = info
        self.provenance = {}
        self._last_trained: str | None = None
        self._range_is_unseen = True
        # Not persistent: no key is added to the network's own, and the values travel in config.json.
        self.register_buffer("mean_C111", torch.tensor(info.mean).view(-1, 1, 1, 1), persistent=False)
        self.register_buffer("std_C111", torch.tensor(info.std).view(-1, 1, 1, 1), persistent=False)

    @overload
    def forward(self, clip_BCTHW: Tensor, stage: str | None = None) -> Tensor: ...

    @overload
    def forward(self, clip_BCTHW: Tensor, stage: list[str] | tuple[str, ...]) -> tuple[Tensor, ...]: ...

    def forward(
        self, clip_BCTHW: Tensor, stage: str | list[str] | tuple[str, ...] | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """The feature map BCTHW of a stage. Stages deeper than the one asked for are not computed.

        Args:
            clip_BCTHW: float in [0, 1], not normalized; of flow the levels (``ssvid.video.flow``) divided by 255.
            stage: name of a stage; None is the deepest one that is not frozen. A list or tuple of names returns a
                tuple of their maps, in the order asked, from one pass.

        Raises:
            BackboneInputError: the clip is not what the network takes.
            RecipeError: there is no such stage.
        """
        self._check_clip(clip_BCTHW)
        return self._as_asked(self.run_stages(self.normalize(clip_BCTHW), self._wanted(stage)), stage)

    def run_stages(self, x_BCTHW: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """The maps of the named stages from a normalized clip; nothing deeper is computed.

        Networks that hand more than a map from one stage to the next, such as tokens, override it.
        """
        maps: dict[str, Tensor] = {}
        for name in self.stages_down_to(names):
            x_BCTHW = self.run_stage(name, x_BCTHW)
            if name in names:
                maps[name] = x_BCTHW
        return maps

    def stages_down_to(self, names: Sequence[str]) -> tuple[str, ...]:
        """All stages from the shallowest to the deepest of the named ones. Raises RecipeError for an unknown name."""
        return self.info.stage_names[: max(self.info.depth(name) for name in names) + 1]

    def _wanted(self, stage: str | list[str] | tuple[str, ...] | None) -> list[str]:
        return [stage or self.default_stage] if stage is None or isinstance(stage, str) else list(stage)

    def _as_asked(
        self, maps: Mapping[str, Tensor], stage: str | list[str] | tuple[str, ...] | None
    ) -> Tensor | tuple[Tensor, ...]:
        wanted = self._wanted(stage)
        return maps[wanted[0]] if stage is None or isinstance(stage, str) else tuple(maps[name] for name in wanted)

    def normalize(self, clip_BCTHW: Tensor) -> Tensor:
        """From float in [0, 1] to what the first stage takes. Any fixed first layer belongs here."""
        return (clip_BCTHW - self.mean_C111) / self.std_C111

    def run_stage(self, name: str, x_BCTHW: Tensor) -> Tensor:
        """Compute one stage from the map of the stage before it."""
        for module in self.stage_modules(name):
            x_BCTHW = module(x_BCTHW)
        return x_BCTHW

    def stage_modules(self, name: str) -> tuple[nn.Module, ...]:
        """The submodules that a stage is made of, in the order in which they run."""
        return (self.get_submodule(name),)

    def embed(self, clip_BCTHW: Tensor, stage: str | None = None, pool: str = "avg") -> Tensor:
        """One vector per clip, BD: mean over T, H, W ("avg"), or as ``pool_map`` says."""
        return pool_map(self(clip_BCTHW, stage), pool)

    def embed_stages(
        self, clip_BCTHW: Tensor, stages: Sequence[str] | None = None, pool: str = "avgmax"
    ) -> dict[str, Tensor]:
        """One vector BD per clip and stage, from one pass. ``stages`` None takes all down to the default stage."""
        names = self.info.stage_names[: self.info.depth(self.default_stage) + 1] if stages is None else tuple(stages)
        return {name: pool_map(map_, pool) for name, map_ in zip(names, self(clip_BCTHW, names), strict=True)}

    def rename_public_keys(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
        """The tensors of another program's file under this network's keys, and in words what was done; "" for nothing.

        Networks whose public files name the same tensors otherwise override it. Prefixes stay, and so does the name of
        whatever is no part of the network: the loader finds the one and reports the other.
        """
        return dict(state), ""

    @property
    def default_stage(self) -> str:
        """The stage that ``stage=None`` means: the last, or the one given to ``freeze_after``."""
        return self._last_trained or self.info.stages[-1].name

    def freeze_after(self, stage: str | None) -> None:
        """Freeze every stage deeper than this one; None freezes nothing.

        Frozen stages get no gradient and keep their batch statistics; ``stage=None`` then means this stage, so they
        are not run unless asked for by name.
        """
        self._last_trained = None if stage is None else self.info.stage(stage).name
        for module in self._frozen_stages():
            module.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Backbone:
        """Switch between training and evaluation; frozen stages stay in evaluation."""
        super().train(mode)
        for module in self._frozen_stages():
            module.eval()
        return self

    def _frozen_stages(self) -> Iterator[nn.Module]:
        for name in self.info.stage_names[self.info.depth(self.default_stage) + 1 :]:
            yield from self.stage_modules(name)

    def _check_clip(self, clip_BCTHW: Tensor) -> None:
        """Refuse what the network cannot take, and warn once where the pixels are plainly of another range."""
        self._check_input(clip_BCTHW)
        if self._range_is_unseen and not torch.compiler.is_compiling():
            self._range_is_unseen = False  # once: on a graphics card it waits for the values
            _warn_of_range(clip_BCTHW, self.info.name)

    def _check_input(self, clip: Tensor) -> None:
        info = self.info
        shape = tuple(clip.shape)
        if clip.ndim != 5:
            raise BackboneInputError(
                f"clip has shape {shape}; {info.name} takes five axes (B, C, T, H, W). "
                "Add a batch axis with clip[None] to a single clip, a time axis with x[:, :, None] to still pictures."
            )
        if not clip.is_floating_point():
            raise BackboneInputError(
                f"clip has dtype {clip.dtype}; {info.name} takes float in [0, 1]. Pass clip.float() / 255 for uint8 pixels."
            )
        if clip.shape[1] != info.in_channels:
            raise BackboneInputError(
                f"clip has {shape[1]} channels (shape {shape}, axes B, C, T, H, W); {info.name} takes {info.in_channels}. "
                "Decoded frames are TCHW: move their axes with permute before passing them. Flow has 2 channels, pictures 3."
            )
        if clip.shape[2] < info.min_frames:
            raise BackboneInputError(
                f"clip has {shape[2]} frames; {info.name} needs at least {info.min_frames}. Use longer clips."
            )
        if info.max_frames is not None and clip.shape[2] > info.max_frames:
            rebuild = f", or build it with num_frames={clip.shape[2]}" if "num_frames" in info.options else ""
            raise BackboneInputError(
                f"clip has {clip.shape[2]} frames; {info.name} takes at most {info.max_frames}. Use shorter clips{rebuild}."
            )
        if min(clip.shape[3], clip.shape[4]) < info.min_px:
            raise BackboneInputError(
                f"clip is {shape[3]} x {shape[4]} pixels; {info.name} needs at least {info.min_px} on each side. "
                "Use a larger resize or crop."
            )


def _warn_of_range(clip_BCTHW: Tensor, name: str) -> None:
    """Warn where the pixels are plainly not in [0, 1]; a resize may well overshoot it a little."""
    if clip_BCTHW.is_meta or not clip_BCTHW.numel():
        return
    low, high = (value.item() for value in clip_BCTHW.detach().aminmax())
    if low < -0.5 or high > 1.5:
        hint = "divide pixels by 255" if low >= 0 else "do not normalize them: the network does"
        warnings.warn(
            f"clip has values from {low:.3g} to {high:.3g}; {name} takes float in [0, 1]. Give it such pixels ({hint}), or "
            "its features mean nothing. This is said once.",
            stacklevel=3,
        )


def pool_map(map_BCTHW: Tensor, pool: str = "avg") -> Tensor:
    """A vector BD of a feature map.

    Args:
        pool: "avg" is the mean over T, H, W; "avgmax" mean and maximum side by side (2D wide); "max1x2x2" the maxima of
            blocks of 1 x 2 x 2 cells (T, H, W), flattened, which keeps where and when. What is left over at the far
            border of an uneven map is dropped, as in VCOP (Xu et al., CVPR 2019), whose vectors for retrieval these are:
            512 channels of 2 x 7 x 7 cells give 9,216 values. "frames" is the mean over H, W alone: T vectors of D, one after
            the other.
    """
    if pool not in POOLS:
        raise RecipeError(f"pool ({pool!r}) is unknown. {did_you_mean(str(pool), POOLS)}")
    if pool == "max1x2x2":
        block = (1, min(2, map_BCTHW.shape[3]), min(2, map_BCTHW.shape[4]))
        return F.max_pool3d(map_BCTHW, block).flatten(1)
    if pool == "frames":
        return map_BCTHW.mean(dim=(3, 4)).transpose(1, 2).flatten(1)
    mean_BD = map_BCTHW.mean(dim=(2, 3, 4))
    return mean_BD if pool == "avg" else torch.cat([mean_BD, map_BCTHW.amax(dim=(2, 3, 4))], dim=1)


def convert_to_channels_last_3d(module: nn.Module) -> nn.Module:
    """Lay the 5-D parameters out channels-last, in place: faster 3-D convolutions.

    ``module.to(memory_format=torch.channels_last_3d)`` raises where a module also holds a 2-D convolution.
    """
    for parameter in module.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return module


def create_backbone(name: str, **options: Any) -> Backbone:
    """Build a registered network with fresh weights, drawn from torch's global generator.

    Raises:
        PluginError: no backbone has that name.
        RecipeError: the backbone has no such option, or not with such a value.
    """
    factory = backbones.get(name)
    legal = inspect.signature(factory).parameters
    unknown = [f"unknown option {option!r}. {did_you_mean(option, legal)}" for option in options if option not in legal]
    if unknown:
        raise RecipeError(f"backbone {name}: {' '.join(unknown)}")
    backbone = factory(**options)
    if not isinstance(backbone, Backbone):
        raise PluginError(f"backbone {name!r} ({factory.__module__}) made a {type(backbone).__name__}, not a Backbone.")
    return backbone


def without_weights(name: str, **options: Any) -> Backbone:
    """A registered network that knows the shapes of its maps and holds no weights (torch's meta device). Errors as ``create_backbone``."""
    with torch.device("meta"):
        return create_backbone(name, **options)


def initialize_backbone(name: str, options: Mapping[str, Any] | None = None, *, seed: int = 0) -> Backbone:
    """The network that this seed gives, whatever was drawn before; torch's global generator is left as it was.

    Training starts from it and the random row of every evaluation is it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_backbone(name, **(options or {}))


def list_backbones(pattern: str = "*") -> list[str]:
    """Names of the registered networks that match a shell pattern, sorted."""
    return fnmatch.filter(backbones.names(), pattern)


def check_option(backbone: str, option: str, value: Any, legal: Sequence[Any]) -> Any:
    """The value of an option if it is one of the legal ones.

    Raises:
        RecipeError: it is not; the text lists those that are.
    """
    if isinstance(value, bool) or value not in legal:
        listing = ", ".join(str(v) for v in legal)
        raise RecipeError(f"backbone {backbone}: {option} ({value!r}) must be one of {listing}.")
    return value


def input_of(backbone: str, in_channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    """What ``BackboneInfo`` says of clips of pictures, whose mean and std are given, or of flow: no motion becomes 0, the
    longest that there is 1 or -1, as I3D's flow stream has it (Carreira & Zisserman 2017, section 3).

    Raises:
        RecipeError: the option ``in_channels`` is neither 3 nor 2.
    """
    check_option(backbone, "in_channels", in_channels, (RGB_CHANNELS, FLOW_CHANNELS))
    if in_channels == FLOW_CHANNELS:
        mean, std = (NO_MOTION / 255,) * FLOW_CHANNELS, ((NO_MOTION - 1) / 255,) * FLOW_CHANNELS
    return {"in_channels": in_channels, "mean": mean, "std": std}


def take_channels(network: nn.Module, in_channels: int) -> None:
    """Have the first convolution of a network for pictures take so many channels; where that is 3 nothing is done or drawn.

    It starts as it does in all networks here: Kaiming, fan-out.
    """
    if in_channels == RGB_CHANNELS:
        return
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Conv3d))
    first.in_channels = in_channels
    first.weight = nn.Parameter(first.weight.new_empty(first.out_channels, in_channels, *first.kernel_size))
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")


def spread_stride(total: int, per_stage: Sequence[int]) -> tuple[int, ...]:
    """Strides per stage whose product is ``total``: the shallow stages keep theirs, the deep ones lose them.

    >>> spread_stride(4, (2, 1, 2, 2, 2))
    (2, 1, 2, 1, 1)
    """
    strides: list[int] = []
    left = total
    for native in per_stage:
        strides.append(native if left >= native else 1)
        left //= strides[-1]
    return tuple(strides)


def strided_stages(
    names: Iterable[str], channels: Iterable[int], spaces: Iterable[int], times: Iterable[int]
) -> tuple[StageInfo, ...]:
    """The stages of a network by the strides of each in space and time, which multiply up from the input on."""
    totals = zip(names, channels, accumulate(spaces, mul), accumulate(times, mul), strict=True)
    return tuple(StageInfo(*stage) for stage in totals)
