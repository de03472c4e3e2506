"""Which clip is of the same video as this one?

A Large-Scale Study on Unsupervised Spatiotemporal Representation Learning (Feichtenhofer et al., CVPR 2021, arXiv 2104.14558), with
the law of gaps of Spatiotemporal Contrastive Video Representation Learning (CVRL, Qian et al., CVPR 2021, arXiv 2008.03800). The
sources of each number are in ``docs/tasks/clip_contrast.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.bounds import AtLeast, BelowOne, Between, OneOf, Positive, Share, check_options
from ssvid.contrast import KeyQueue, collecting, info_nce, nearer_than_others, nt_xent
from ssvid.errors import DataError
from ssvid.momentum import MomentumCopy
from ssvid.pictures import GRAY, LIGHT, RIGHT, WRONG, row, sheet, tiles, words
from ssvid.ranks import rows_of_all
from ssvid.tasks import BatchRandom, PretextTask, register_task, videos_of
from ssvid.transforms import Cut, CutFirst, Cuts, random_area
from ssvid.transforms.color import jitter_clip, random_jitter
from ssvid.types import ClipPlan, TaskOutput, VideoInfo
from ssvid.video.sampling import clip_indices, clip_span

if TYPE_CHECKING:
    from torchmetrics import Metric

_BLUR_PX, _BLUR_OF_PX = (0.1, 2.0), 224  # standard deviations, in pixels of a frame of this side
_LEVELS = 4  # of each channel, in a histogram of colors
_TILE_PX, _MOST_TILES, _PICTURES, _WORDS_PX = 64, 4, 4, 170
_NORMS = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


@dataclass(frozen=True)
class ClipContrastConfig:
    """Options of the task.

    method: what makes clips of one video alike. ``moco``: told from a queue of keys of other videos; ``simclr``: told from the clips
        of the other videos of the global batch; ``byol``: each predicts what a slower network says of the others, and nothing is
        told apart.
    num_clips: clips of each video. num_frames, stride_frames: frames T of each, and steps between them.
    gap: when the clips begin. ``independent``: each anywhere; of two clips, ``decreasing``: the smaller the gap the likelier (CVRL),
        ``even``: every gap alike.
    frame_px: side of the clips. min_area, max_area, max_aspect: of the rectangle cut out, as a share of the frame, and its longest
        shape.
    flip: mirror half of the clips. jitter: how far brightness, contrast, saturation and hue change; jitter_prob, gray_prob,
        blur_prob: how often colors change, vanish, and how often a clip is blurred.
    head_layers, head_width, head_norm: of the perceptron that makes the embedding, and what normalizes its hidden layers: ``none``,
        ``batch`` or ``layer``. embed_channels: width of the embedding. predictor_width: of the predictor's hidden layer (byol).
    temperature: divisor of cosines. queue: keys of other videos that are kept (moco).
    momentum: how much of the slower network is kept at each step (moco, byol). momentum_steps: it rises to 1 over so many steps, as a
        cosine; 0 leaves it as it is.
    space_pool: ``mean`` or ``max`` over space, before the mean over time.
    stage: backbone stage that the head sits on; "" is the last.
    """

    method: Annotated[str, OneOf("moco", "simclr", "byol")] = "moco"
    num_clips: Annotated[int, AtLeast(2)] = 2
    num_frames: Annotated[int, AtLeast(1)] = 8
    stride_frames: Annotated[int, AtLeast(1)] = 8
    gap: Annotated[str, OneOf("independent", "decreasing", "even")] = "independent"
    frame_px: Annotated[int, AtLeast(1)] = 224
    min_area: Annotated[float, Share] = 0.2
    max_area: Annotated[float, Share] = 0.766
    max_aspect: Annotated[float, AtLeast(1)] = 4 / 3
    flip: bool = True
    jitter: Annotated[tuple[float, float, float, float], Between(0, 1)] = (0.6, 0.6, 0.6, 0.15)
    jitter_prob: Annotated[float, Between(0, 1)] = 0.8
    gray_prob: Annotated[float, Between(0, 1)] = 0.2
    blur_prob: Annotated[float, Between(0, 1)] = 0.5
    head_layers: Annotated[int, AtLeast(1)] = 3
    head_width: Annotated[int, AtLeast(1)] = 2048
    head_norm: Annotated[str, OneOf("none", "batch", "layer")] = "none"
    embed_channels: Annotated[int, AtLeast(1)] = 128
    predictor_width: Annotated[int, AtLeast(1)] = 4096
    temperature: Annotated[float, Positive] = 0.1
    queue: Annotated[int, AtLeast(1)] = 65536
    momentum: Annotated[float, BelowOne] = 0.994
    momentum_steps: Annotated[int, AtLeast(0)] = 0
    space_pool: Annotated[str, OneOf("mean", "max")] = "mean"
    stage: str = ""


# ---- sampling: pure index arithmetic ---------------------------------------------------------------------------------


def draw_starts(num_places: int, num_clips: int, gap: str, rng: np.random.Generator) -> list[int]:
    """The first frames of the clips of a video, each one of ``num_places``, in random order.

    ``independent``: each uniform. Of two clips also ``decreasing``, the gap g of density 2 (1 - g / G) / G with G places
    (g = G (1 - sqrt(1 - u)), CVRL section 3.2), or ``even``, g uniform; rounded down, and the earlier clip is uniform over where
    both fit.
    """
    if gap == "independent":
        return [int(start) for start in rng.integers(num_places, size=num_clips)]
    share = float(rng.random())
    between = int(num_places * (1 - math.sqrt(1 - share) if gap == "decreasing" else share))
    early = int(rng.integers(num_places - between))
    return [early, early + between] if rng.integers(2) else [early + between, early]


class ContrastClips(CutFirst):
    """Worker side: several clips of one video, each with a rectangle of its own; in validation as in training."""

    def __init__(self, config: ClipContrastConfig) -> None:
        self.config = config

    @property
    def min_frames(self) -> int:
        """Those of one clip."""
        return clip_span(self.config.num_frames, self.config.stride_frames)

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """Views: the clips, in random order."""
        c = self.config
        starts = draw_starts(video.num_frames - self.min_frames + 1, c.num_clips, c.gap, rng)
        return ClipPlan(tuple(clip_indices(start, c.num_frames, c.stride_frames) for start in starts))

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """``query`` uint8 (T, C, frame_px, frame_px), the first clip; ``keys`` (V - 1, T, C, frame_px, frame_px), the others."""
        c = self.config
        area = {"min_area": c.min_area, "max_area": c.max_area, "max_aspect": c.max_aspect}
        wanted = tuple(
            Cut(view, (random_area(height, width, rng, **area),), c.frame_px) for view in range(len(plan.views))
        )
        return Cuts(wanted, lambda clips_TCHW: {"query": clips_TCHW[0], "keys": torch.stack(clips_TCHW[1:])})


def vary_clip(clip_CTHW: Tensor, c: ClipContrastConfig, rng: np.random.Generator) -> Tensor:
    """Mirror, change colors, take them away, blur: one draw for all frames. clip: float in [0, 1]."""
    from torchvision.transforms.v2 import functional as pixels  # here: importing it takes seconds

    if c.flip and rng.integers(2):
        clip_CTHW = clip_CTHW.flip(-1)
    clip_CTHW = jitter_clip(clip_CTHW, random_jitter(c.jitter, c.jitter_prob, rng))
    frames_TCHW = clip_CTHW.transpose(0, 1)
    if rng.random() < c.gray_prob:
        frames_TCHW = pixels.rgb_to_grayscale(frames_TCHW, num_output_channels=3)
    if rng.random() < c.blur_prob:
        deviation_px = float(rng.uniform(*_BLUR_PX)) * c.frame_px / _BLUR_OF_PX
        reach_px = min(math.ceil(3 * deviation_px), c.frame_px - 1)
        frames_TCHW = pixels.gaussian_blur(frames_TCHW, [2 * reach_px + 1] * 2, [deviation_px] * 2)
    return frames_TCHW.transpose(0, 1)


# ---- the losses and what needs no network ----------------------------------------------------------------------------


def pairs_loss(embedded_BVD: Tensor, videos_B: Tensor, temperature: float) -> Tensor:
    """The mean of ``nt_xent`` over all pairs of a video's clips."""
    pairs = list(combinations(embedded_BVD.unbind(dim=1), 2))
    return torch.stack([nt_xent(one_BD, two_BD, videos_B, temperature) for one_BD, two_BD in pairs]).mean()


def prediction_loss(predicted_BVD: Tensor, keys_BVD: Tensor, temperature: float) -> Tensor:
    """-sum_i mean_j cos(p_i, k_j) / temperature, j over the other clips of the video; mean over videos (BYOL).

    Args:
        predicted_BVD: what is predicted from each clip. keys_BVD: what the slower network says of each.
    """
    cosine_BVV = F.normalize(predicted_BVD, dim=2) @ F.normalize(keys_BVD, dim=2).transpose(1, 2)
    num_clips = cosine_BVV.shape[1]
    of_others_B = cosine_BVV.sum(dim=(1, 2)) - cosine_BVV.diagonal(dim1=1, dim2=2).sum(dim=1)
    return -of_others_B.mean() / (num_clips - 1) / temperature


def momentum_at(step: int, first: float, num_steps: int) -> float:
    """m = 1 - (1 - m0) (cos(pi step / steps) + 1) / 2: from m0 to 1, where it stays; always m0 where ``num_steps`` is 0."""
    share = min(step / num_steps, 1.0) if num_steps else 0.0
    return 1 - (1 - first) * (math.cos(math.pi * share) + 1) / 2


def color_histograms(clips_NCTHW: Tensor) -> Tensor:
    """Of each clip the root of the share of pixels of each color, 4 levels to a channel: (N, 64), of length 1.

    The product of two is the Bhattacharyya coefficient.
    """
    levels_NCP = (clips_NCTHW.flatten(2) * _LEVELS).long().clamp(0, _LEVELS - 1)
    color_NP = (levels_NCP[:, 0] * _LEVELS + levels_NCP[:, 1]) * _LEVELS + levels_NCP[:, 2]
    counts_NK = torch.zeros(len(color_NP), _LEVELS**3, device=color_NP.device)
    counts_NK.scatter_add_(1, color_NP, torch.ones_like(color_NP, dtype=torch.float32))
    return (counts_NK / color_NP.shape[1]).sqrt()


def own_first(anchor_ND: Tensor, keys_ND: Tensor, videos_N: Tensor) -> float:
    """How often the own key is nearer to an anchor than those of all other videos; a tie counts as wrong.

    Args:
        keys_ND: of length 1; anchors are brought to it.
    """
    similarity_NN = F.normalize(anchor_ND, dim=1) @ keys_ND.T
    is_own_NN = videos_N.unsqueeze(1) == videos_N
    return float(
        (similarity_NN.diagonal() > similarity_NN.masked_fill(is_own_NN, -torch.inf).amax(dim=1)).float().mean()
    )


# ---- the task --------------------------------------------------------------------------------------------------------


def perceptron(num_in: int, width: int, num_out: int, num_layers: int, norm: str) -> nn.Sequential:
    """Linear layers, with ``norm`` and a ReLU between them."""
    layers: list[nn.Module] = []
    for _ in range(num_layers - 1):
        layers += [nn.Linear(num_in, width), *([_NORMS[norm](width)] if norm in _NORMS else []), nn.ReLU()]
        num_in = width
    return nn.Sequential(*layers, nn.Linear(num_in, num_out))


class _Compared(NamedTuple):
    """loss: of the batch. query_BD, key_BD: what is compared of the first two clips of each video, not of one length."""

    loss: Tensor
    query_BD: Tensor
    key_BD: Tensor


@register_task("clip_contrast")
class ClipContrast(PretextTask):
    """Which clip is of the same video as this one? (Feichtenhofer et al., CVPR 2021)

    The placebo hands every video the other clips of another one.

    Differs: the slower network normalizes by running statistics that follow those of the trained network, so that a key depends on its
    own clip alone, where the authors shuffle clips between GPUs or synchronize statistics; clips of the own video are never negatives,
    in the batch or the queue; with byol a clip does not predict itself; with simclr more than two clips are compared two by two; the
    slower network's momentum follows steps that the recipe names.
    """

    Config = ClipContrastConfig
    targets = ("keys",)
    must_fall = ("noise",)
    must_hold = ("reencoded", "border")
    slower: MomentumCopy

    def __init__(self, config: ClipContrastConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_options("clip_contrast", config, _problems(config, backbone))
        c, self.stage = config, config.stage or None
        channels, width = backbone.stage(self.stage).channels, c.embed_channels
        self.head = perceptron(channels, c.head_width, width, c.head_layers, c.head_norm)
        if c.method == "byol":
            self.predictor = perceptron(width, c.predictor_width, width, 2, c.head_norm)
        if c.method == "moco":
            self.queue = KeyQueue(c.queue, width)

    def chance(self) -> Mapping[str, float]:
        """The own video is nearer or it is not."""
        return {"accuracy": 0.5}

    def clip_maker(self, training: bool) -> ContrastClips:
        return ContrastClips(self.config)

    # ---- the slower network

    def setup(self, backbone: Backbone) -> None:
        """The slower network: a copy of network and head that follows them, and gets no gradient."""
        if self.config.method != "simclr":
            self.slower = MomentumCopy(self._followed(backbone))

    def _followed(self, backbone: Backbone) -> dict[str, nn.Module]:
        return {"backbone": backbone, "head": self.head}

    def after_step(self, backbone: Backbone, global_step: int) -> None:
        """The slower network moves."""
        if "slower" in self._modules:
            momentum = momentum_at(global_step, self.config.momentum, self.config.momentum_steps)
            self.slower.follow(self._followed(backbone), momentum)

    def embed(self, clips_BVCTHW: Tensor, backbone: Backbone, head: nn.Module) -> Tensor:
        """The embedding of each clip, float32 (B, V, D): the head on its pooled map.

        Raises:
            DataError: a single clip is to be normalized by the statistics of its batch.
        """
        if head.training and self.config.head_norm == "batch" and clips_BVCTHW.shape[:2].numel() == 1:
            raise DataError(
                "head_norm (batch) must see two or more clips at a time, and a device has one. Raise loader.global_batch, lower "
                "trainer.accumulate, or set task.options.head_norm=layer."
            )
        map_NDTHW = backbone(clips_BVCTHW.flatten(0, 1), self.stage)
        map_NDT = map_NDTHW.amax(dim=(3, 4)) if self.config.space_pool == "max" else map_NDTHW.mean(dim=(3, 4))
        return cast(Tensor, head(map_NDT.mean(dim=2))).float().unflatten(0, clips_BVCTHW.shape[:2])

    @torch.no_grad()
    def keys(self, clips_BVCTHW: Tensor) -> Tensor:
        """What the slower network says of each clip, (B, V, D), of length 1."""
        embedded_BVD = self.embed(clips_BVCTHW, cast(Backbone, self.slower["backbone"]), self.slower["head"])
        return F.normalize(embedded_BVD, dim=2)

    # ---- the step

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """Every clip by a draw of its own; ``query`` becomes float (B, C, T, H, W), ``keys`` (B, V - 1, C, T, H, W)."""
        clips_BVTCHW = torch.cat([batch["query"].unsqueeze(1), batch["keys"]], dim=1).float().div_(255)
        varied = [
            torch.stack([vary_clip(clip_CTHW, self.config, draws) for clip_CTHW in clips_VCTHW])
            for clips_VCTHW, draws in zip(clips_BVTCHW.transpose(2, 3), rng.samples, strict=True)
        ]
        clips_BVCTHW = torch.stack(varied).contiguous()
        return {**batch, "query": clips_BVCTHW[:, 0].contiguous(), "keys": clips_BVCTHW[:, 1:].contiguous()}

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        query_BCTHW, keys_BVCTHW = batch["query"], batch["keys"]
        videos_B = torch.from_numpy(videos_of(batch, len(query_BCTHW))).to(query_BCTHW.device)
        compare = {"moco": self._moco, "simclr": self._simclr, "byol": self._byol}[self.config.method]
        loss, query_BD, key_BD = compare(query_BCTHW.unsqueeze(1), keys_BVCTHW, videos_B, backbone)
        query_BD, key_BD = (F.normalize(x.detach(), dim=1) for x in (query_BD, key_BD))
        with torch.autocast(query_BD.device.type, enabled=False):
            cosine_BB = query_BD @ key_BD.T
        scores: dict[str, tuple[Tensor, ...]] = {}
        if not self.training:  # training has no use for it
            colors = color_histograms(query_BCTHW), color_histograms(keys_BVCTHW[:, 0])
            scores = dict.fromkeys(("accuracy", "top1"), (query_BD, key_BD, videos_B))
            scores |= dict.fromkeys(("color_accuracy", "color_top1"), (*colors, videos_B))
        extras = {"cosine": cosine_BB, "videos": videos_B}
        return TaskOutput(loss=loss, metrics={"cosine": cosine_BB.diagonal()}, scores=scores, extras=extras)

    def _moco(self, query_B1CTHW: Tensor, keys_BVCTHW: Tensor, videos_B: Tensor, backbone: Backbone) -> _Compared:
        """The query is told from the queue, once for each key."""
        query_BD = self.embed(query_B1CTHW, backbone, self.head)[:, 0]
        keys_BVD = self.keys(keys_BVCTHW)
        with torch.autocast(query_BD.device.type, enabled=False):
            unit_BD = F.normalize(query_BD, dim=1)
            to_own_BV = torch.einsum("bd,bvd->bv", unit_BD, keys_BVD) / self.config.temperature
            to_queue_BN = self.queue.similarity(unit_BD) / self.config.temperature
            loss = info_nce(to_own_BV, to_queue_BN, self.queue.of_others(videos_B)) / to_own_BV.shape[1]
        if self.training and torch.is_grad_enabled():
            self.queue.enqueue(keys_BVD.flatten(0, 1), videos_B.repeat_interleave(keys_BVD.shape[1]))
        return _Compared(loss, query_BD, keys_BVD[:, 0])

    def _simclr(self, query_B1CTHW: Tensor, keys_BVCTHW: Tensor, videos_B: Tensor, backbone: Backbone) -> _Compared:
        """Each clip is told from those of the other videos of the global batch.

        Raises:
            DataError: there are no others.
        """
        if self.training and len(rows_of_all(videos_B)) == 1:
            raise DataError(
                "method (simclr) must see two or more videos at a time, to tell them apart, and all devices together have one. "
                "Raise loader.global_batch, lower trainer.accumulate, or set task.options.method=moco."
            )
        embedded_BVD = self.embed(torch.cat([query_B1CTHW, keys_BVCTHW], dim=1), backbone, self.head)
        with torch.autocast(embedded_BVD.device.type, enabled=False):
            loss = pairs_loss(embedded_BVD, videos_B, self.config.temperature)
        return _Compared(loss, embedded_BVD[:, 0], embedded_BVD[:, 1])

    def _byol(self, query_B1CTHW: Tensor, keys_BVCTHW: Tensor, videos_B: Tensor, backbone: Backbone) -> _Compared:
        """From each clip it is predicted what the slower network says of the others."""
        clips_BVCTHW = torch.cat([query_B1CTHW, keys_BVCTHW], dim=1)
        embedded_BVD = self.embed(clips_BVCTHW, backbone, self.head)
        predicted_BVD = self.predictor(embedded_BVD.flatten(0, 1)).float().unflatten(0, embedded_BVD.shape[:2])
        keys_BVD = self.keys(clips_BVCTHW)
        with torch.autocast(keys_BVD.device.type, enabled=False):
            loss = prediction_loss(predicted_BVD, keys_BVD, self.config.temperature)
        return _Compared(loss, predicted_BVD[:, 0], keys_BVD[:, 1])

    def epoch_metrics(self) -> Mapping[str, Metric]:
        """How often the own video is nearer than another one, and than all others; the same by colors alone."""
        names, measures = ("queries", "keys", "videos"), {"accuracy": nearer_than_others, "top1": own_first}
        return {
            f"{by}{name}": collecting(measure, names) for by in ("", "color_") for name, measure in measures.items()
        }

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """Up to four videos: frames of a clip, its cosines with another one of the video and with those of others, that clip."""
        rows = []
        for b in range(min(_PICTURES, len(batch["query"]))):
            told = words(
                _told(b, output.extras["cosine"].float().cpu(), output.extras["videos"].cpu()), _WORDS_PX, _TILE_PX
            )
            one, two = (row(_shown(clip_CTHW)) for clip_CTHW in (batch["query"][b], batch["keys"][b, 0]))
            rows += [row([one, told, two]), np.zeros((6, 1, 3), dtype=np.uint8)]
        return {"clips": sheet(rows)}


def _shown(clip_CTHW: Tensor) -> list[np.ndarray]:
    step = -(-clip_CTHW.shape[1] // _MOST_TILES)
    return tiles(clip_CTHW[:, ::step].transpose(0, 1), _TILE_PX)


def _told(b: int, cosine_BB: Tensor, videos_B: Tensor) -> list[tuple[str, tuple[int, int, int]]]:
    """What stands between the two clips of a video."""
    own, others_N = float(cosine_BB[b, b]), cosine_BB[b, videos_B != videos_B[b]]
    if not len(others_N):
        return [(f"cosine {own:.2f}", LIGHT)]
    nearest = float(others_N.max())
    color = RIGHT if own > nearest else WRONG
    return [
        (f"<- cosine {own:.2f} ->", color),
        (f"nearest other {nearest:.2f}", LIGHT),
        (f"others, mean  {float(others_N.mean()):.2f}", GRAY),
    ]


def _problems(c: ClipContrastConfig, backbone: BackboneInfo) -> Iterable[str]:
    """A law of pairs for more than two clips, rectangles that there are none of, and what the network does not take."""
    if c.gap != "independent" and c.num_clips != 2:
        yield f"num_clips ({c.num_clips}) must be 2 where gap is {c.gap}, a law of two clips; set gap=independent for more"
    if c.min_area > c.max_area:
        yield f"min_area ({c.min_area}) must be at most max_area ({c.max_area})"
    for name, low in {"num_frames": backbone.min_frames, "frame_px": backbone.min_px}.items():
        if getattr(c, name) < low:
            yield f"{name} ({getattr(c, name)}) must be at least {low} for backbone {backbone.name}"
    if backbone.max_frames is not None and c.num_frames > backbone.max_frames:
        yield f"num_frames ({c.num_frames}) must be at most {backbone.max_frames} for backbone {backbone.name}"
