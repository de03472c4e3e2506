"""Which earlier pixels should lend this gray frame their colors?

Tracking Emerges by Colorizing Videos (Vondrick et al., ECCV 2018, arXiv 1806.09594). No official code exists; the sources
of each number are in ``docs/tasks/colorization.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.bounds import AtLeast, Between, Inside, Positive, Share, check_options
from ssvid.errors import DataError
from ssvid.pictures import row, sheet, tiles
from ssvid.tasks import BatchRandom, PretextTask, map_problems, one_by_one, register_task
from ssvid.transforms import Cut, CutFirst, Cuts, center_square, coins, flip_some, frame_squares
from ssvid.transforms.correspondence import copied_probs, pointer_logits
from ssvid.transforms.lab import lab_to_rgb, rgb_to_lab, to_gray
from ssvid.types import ClipPlan, TaskOutput, VideoInfo
from ssvid.video.sampling import spaced_frames

if TYPE_CHECKING:
    from torchmetrics import Metric

PALETTE_SEED = 0
PIXELS_PER_SAMPLE = 256  # neighboring pixels are alike: more of one clip would say little
_WHEEL_RADIUS = 20.0
_PICTURES, _TILE_PX, _GAP_PX = 4, 96, 2


@dataclass(frozen=True)
class ColorizationConfig:
    """Options of the task.

    num_references: earlier frames whose colors may be copied; the frame after them is the target.
    sample_fps: frames per second that are taken of the video; 0 takes every frame. Where a video is too short, its frames
        are taken closer together, evenly.
    num_colors: size of the palette. palette_samples: clips that it is measured on before training, up to 256 pixels each.
    temperature: of the pointer's softmax.
    smoothing: share of the copied probabilities that is spread evenly over the palette, so that a color which no reference
        holds costs a finite loss.
    embed_channels: width of what the pointer compares.
    coordinates: tell the head where on the map it is, x and y in [-1, 1] (the paper does).
    temporal_layers: layers of 3-D convolutions over all frames between backbone and pointer (the paper has 5).
        head_channels: their width.
    together: give the frames to the network as one clip, where its map keeps every frame; otherwise each frame by itself.
    frame_px: side of the square that a worker cuts out and sends, a multiple of the stage's stride. crop_scale: its least
        side relative to the short side of the video. flip: mirror half of the samples.
    frame_shift: in training each frame gets a square of its own, this share smaller and anywhere within the common one, so
        that its own place tells a cell nothing of where it was; 0 is off.
    stage: backbone stage that the head sits on; "" is the last. Its stride is that of the color maps: 8 in the paper.
    """

    num_references: Annotated[int, AtLeast(1)] = 3
    sample_fps: Annotated[float, AtLeast(0)] = 6.0
    num_colors: Annotated[int, AtLeast(2)] = 16
    palette_samples: Annotated[int, AtLeast(1)] = 500
    temperature: Annotated[float, Positive] = 1.0
    smoothing: Annotated[float, Inside] = 0.001
    embed_channels: Annotated[int, AtLeast(1)] = 64
    coordinates: bool = False
    temporal_layers: Annotated[int, AtLeast(0)] = 0
    head_channels: Annotated[int, AtLeast(1)] = 256
    together: bool = False
    frame_px: Annotated[int, AtLeast(1)] = 256
    crop_scale: Annotated[float, Share] = 1.0
    flip: bool = True
    frame_shift: Annotated[float, Between(0, 0.5)] = 0.0
    stage: str = ""


# ---- color -----------------------------------------------------------------------------------------------------------


def nearest_colors(ab: Tensor, palette_K2: Tensor) -> Tensor:
    """Index of the nearest palette color, Euclidean in the ab plane: (..., 2, H, W) -> int64 (..., H, W)."""
    pixels_N2 = ab.movedim(-3, -1).reshape(-1, 2)
    nearest_N = torch.cdist(pixels_N2, palette_K2, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)
    return nearest_N.view(ab.shape[:-3] + ab.shape[-2:])


def color_wheel(num_colors: int) -> Tensor:
    """(K, 2) hues at even angles: the palette until one is measured."""
    angles = torch.arange(num_colors) * (2 * math.pi / num_colors)
    return _WHEEL_RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)


def fit_palette(ab_N2: np.ndarray, num_colors: int) -> np.ndarray:
    """Centers of k-means in the ab plane, seeded, sorted by a and then b: float32 (K, 2).

    Raises:
        DataError: there are fewer different colors than centers, as in gray videos.
    """
    from sklearn.cluster import KMeans  # here: importing it takes seconds

    distinct = len(np.unique(ab_N2.round(1), axis=0))
    if distinct < num_colors:
        raise DataError(
            f"task colorization: the {len(ab_N2)} pixels measured for the palette hold {distinct} different colors; "
            f"num_colors ({num_colors}) needs at least as many. Gray videos cannot be colorized: use color videos, or set "
            "task.options.num_colors or task.options.palette_samples."
        )
    centers = KMeans(num_colors, n_init=3, random_state=PALETTE_SEED).fit(ab_N2.astype(np.float64)).cluster_centers_
    return centers[np.lexsort((centers[:, 1], centers[:, 0]))].astype(np.float32)


# ---- sampling: pure index arithmetic ---------------------------------------------------------------------------------


class ColorizationClips(CutFirst):
    """Worker side: some frames of a video, cut to one square, and the same square once more, small, for its colors."""

    def __init__(self, config: ColorizationConfig, map_px: int, training: bool) -> None:
        self.config, self.map_px, self.training = config, map_px, training

    @property
    def min_frames(self) -> int:
        """The references and the target."""
        return self.config.num_references + 1

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """Evenly spaced frames anywhere in the video, the target last. Its colors are targets that no plan can know."""
        return ClipPlan((spaced_frames(rng, video, self.min_frames, self.config.sample_fps),))

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """``frames`` (T, 3, frame_px, frame_px), ``reference_colors`` (T - 1, 3, h, w), ``target_colors`` (3, h, w): uint8."""
        c = self.config
        boxes = [center_square(height, width)]
        if self.training:
            boxes = frame_squares(height, width, rng, self.min_frames, min_scale=c.crop_scale, shift=c.frame_shift)
        return Cuts((Cut.squares(0, boxes, self.map_px), Cut.squares(0, boxes, c.frame_px)), self._sample)

    def _sample(self, cuts_TCHW: tuple[Tensor, ...]) -> dict[str, Tensor]:
        colors_TCHW, frames_TCHW = cuts_TCHW
        return {
            "frames": frames_TCHW,
            "reference_colors": colors_TCHW[:-1].contiguous(),
            "target_colors": colors_TCHW[-1].contiguous(),
        }


# ---- the pointer and its loss ----------------------------------------------------------------------------------------


def copied_nll(logits_BNM: Tensor, source_BN: Tensor, query_BM: Tensor, *, num_colors: int, smoothing: float) -> Tensor:
    """Negative log probability of each query's own color, copied by the pointer: (B, M), in nats.

    L_j = -log((1 - s) y_j + s / K) with y_j the sum of A_ij over the sources i that have the color of j. All in log space:
    the logarithm of a sum of exponentials over those sources, less that over all.
    """
    other_BNM = source_BN[:, :, None] != query_BM[:, None, :]
    # Finite: where no source has the color, the gradient of an infinite one would not be a number.
    least = torch.finfo(logits_BNM.dtype).min / 4
    own_BM = logits_BNM.masked_fill(other_BNM, least).logsumexp(dim=1)
    log_copied_BM = own_BM - logits_BNM.logsumexp(dim=1)
    even = logits_BNM.new_tensor(math.log(smoothing / num_colors))
    return -torch.logaddexp(log_copied_BM + math.log1p(-smoothing), even)


def color_shares(colors_BN: Tensor, num_colors: int) -> Tensor:
    """How much of the references each color covers: float32 (B, K), rows sum to 1."""
    return F.one_hot(colors_BN, num_colors).float().mean(dim=1)


def blind_guesses(references_BRHW: Tensor, num_colors: int) -> dict[str, Tensor]:
    """Class probabilities (B, K, M) of two guesses that look at no gray pixel.

    common: every cell gets the references' own shares of the colors, the most common color first.
    place: every cell gets the color that the last reference has in the same place.
    """
    shares_BK1 = color_shares(references_BRHW.flatten(1), num_colors).unsqueeze(-1)
    place_BKM = F.one_hot(references_BRHW[:, -1].flatten(1), num_colors).float().transpose(1, 2)
    return {"common": shares_BK1.expand(place_BKM.shape), "place": place_BKM}


def score_guess(probs_BKM: Tensor, query_BM: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Share of right colors and mean negative log probability (smoothed as the loss is), each (B,)."""
    num_colors = probs_BKM.shape[1]
    right_B = (probs_BKM.argmax(dim=1) == query_BM).float().mean(dim=1)
    own_BM = probs_BKM.gather(1, query_BM.unsqueeze(1)).squeeze(1)
    return right_B, -torch.log((1 - smoothing) * own_BM + smoothing / num_colors).mean(dim=1)


def right_where_moved(predicted_BHW: Tensor, references_BRHW: Tensor, target_BHW: Tensor) -> Tensor:
    """Share of the cells (B,) that are right and for which the same place of the last reference is wrong.

    At most 1 - copy_place; 0 for whoever points at the same place there.
    """
    moved_BHW = references_BRHW[:, -1] != target_BHW
    return (moved_BHW & (predicted_BHW == target_BHW)).float().mean(dim=(1, 2))


class ColorHead(nn.Module):
    """From maps (B, D, T, H, W) to what the pointer compares: optional coordinates, optional 3-D convolutions, one linear map.

    A layer is a 3x3 convolution over space (dilated by 1, 2, 4, 8, 16 from layer to layer) and one of 3 frames over time,
    each with batch normalization and ReLU.
    """

    def __init__(self, config: ColorizationConfig, channels: int) -> None:
        super().__init__()
        self.coordinates = config.coordinates
        channels += 2 * config.coordinates
        layers: list[nn.Module] = []
        for i in range(config.temporal_layers):
            layers += _temporal_layer(channels, config.head_channels, dilation=2 ** min(i, 4))
            channels = config.head_channels
        self.layers = nn.Sequential(*layers)
        self.embed = nn.Conv3d(channels, config.embed_channels, 1)

    def forward(self, map_BDTHW: Tensor) -> Tensor:
        """Embeddings (B, embed_channels, T, H, W)."""
        if self.coordinates:
            map_BDTHW = torch.cat([map_BDTHW, coordinate_map(map_BDTHW)], dim=1)
        embedded: Tensor = self.embed(self.layers(map_BDTHW))
        return embedded


def coordinate_map(map_BDTHW: Tensor) -> Tensor:
    """x and y of each cell in [-1, 1], from the left and from above: (B, 2, T, H, W)."""
    B, _, T, H, W = map_BDTHW.shape
    y_HW, x_HW = torch.meshgrid(
        *(torch.linspace(-1, 1, side, device=map_BDTHW.device, dtype=map_BDTHW.dtype) for side in (H, W)), indexing="ij"
    )
    return torch.stack([x_HW, y_HW])[None, :, None].expand(B, 2, T, H, W)


def _temporal_layer(ins: int, outs: int, dilation: int) -> list[nn.Module]:
    space = nn.Conv3d(
        ins, outs, (1, 3, 3), padding=(0, dilation, dilation), dilation=(1, dilation, dilation), bias=False
    )
    time = nn.Conv3d(outs, outs, (3, 1, 1), padding=(1, 0, 0), bias=False)
    return [space, nn.BatchNorm3d(outs), nn.ReLU(inplace=True), time, nn.BatchNorm3d(outs), nn.ReLU(inplace=True)]


@register_task("colorization")
class Colorization(PretextTask):
    """Copy the colors of earlier frames into a gray one: to know from where, follow things (Vondrick et al., ECCV 2018)

    The placebo gives every sample the target frame's colors of another video; what can be copied stays in its place.

    Differs: the copied probabilities are smoothed (``smoothing``), because a color that no reference holds would cost an
    infinite loss.
    """

    Config = ColorizationConfig
    targets = ("target_colors",)
    smaller_is_better = ("perplexity*",)
    # Without color there is one class, which every guess gets right; frames of independent noise share nothing.
    must_fall = ("gray", "noise")
    # Not "reencoded": strong compression changes the colors from frame to frame, and they are the answers.
    must_hold = ("resized",)
    palette_K2: Tensor

    def __init__(self, config: ColorizationConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_options("colorization", config, _network_problems(config, backbone))
        self.stage = config.stage or None
        stage = backbone.stage(self.stage)
        self.map_px = config.frame_px // stage.stride_space
        self.head = ColorHead(config, stage.channels)
        self.register_buffer("palette_K2", color_wheel(config.num_colors))

    def chance(self) -> Mapping[str, float]:
        """Accuracy depends on how colorful a video is, so it stands beside a guess measured on the same pixels.

        ``gain_over_common`` is accuracy less that of giving every cell the references' most common color: 0 for whoever
        knows those colors and does not look at the frame. ``gain_over_place`` compares with the color in the same place.
        """
        return {"gain_over_common": 0.0, "gain_over_place": 0.0}

    def clip_maker(self, training: bool) -> ColorizationClips:
        return ColorizationClips(self.config, self.map_px, training)

    def prepare(self, samples: Iterable[Mapping[str, Tensor]]) -> None:
        """Measure the palette on the first ``palette_samples`` training clips."""
        pixels = []
        for index, sample in zip(range(self.config.palette_samples), samples, strict=False):
            colors_TCHW = torch.cat([sample["reference_colors"], sample["target_colors"][None]])
            ab_N2 = rgb_to_lab(colors_TCHW.float() / 255)[:, 1:].movedim(1, -1).reshape(-1, 2).numpy()
            order = np.random.default_rng([PALETTE_SEED, index]).permutation(len(ab_N2))
            pixels.append(ab_N2[order[:PIXELS_PER_SAMPLE]])
        palette = fit_palette(np.concatenate(pixels or [np.zeros((0, 2))]), self.config.num_colors)
        self.palette_K2.copy_(torch.from_numpy(palette))

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """Flips; colors become indices of the palette; ``frames`` become gray, float (B, 3, T, H, W). In this order."""
        images = {name: batch[name] for name in ("frames", "reference_colors", "target_colors")}
        if self.training and self.config.flip:
            flipped = coins(rng.samples, images["frames"].device)
            images = {name: flip_some(x, flipped) for name, x in images.items()}
        colors = {name: self.color_indices(x) for name, x in images.items() if name != "frames"}
        gray_BTCHW = to_gray(images["frames"].float().div_(255)).clamp(0, 1)
        return {**batch, **colors, "frames": gray_BTCHW.transpose(1, 2).contiguous()}

    def color_indices(self, rgb: Tensor) -> Tensor:
        """Index of the nearest palette color of uint8 pixels (..., 3, H, W): int64 (..., H, W)."""
        return nearest_colors(rgb_to_lab(rgb.float() / 255)[..., 1:, :, :], self.palette_K2)

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        embedded_BDTHW = self.head(self._frame_maps(batch["frames"], backbone))
        references_BRHW, target_BHW = batch["reference_colors"], batch["target_colors"]
        source_BN, query_BM = references_BRHW.flatten(1), target_BHW.flatten(1)
        c = self.config
        logits_BNM = pointer_logits(
            embedded_BDTHW[:, :, :-1].flatten(2), embedded_BDTHW[:, :, -1].flatten(2), c.temperature
        )
        nll_BM = copied_nll(logits_BNM, source_BN, query_BM, num_colors=c.num_colors, smoothing=c.smoothing)
        probs_BKM = copied_probs(logits_BNM.detach(), source_BN, c.num_colors)
        metrics, nlls = self._scores({"": probs_BKM, **blind_guesses(references_BRHW, c.num_colors)}, query_BM)
        predicted_BHW = probs_BKM.argmax(dim=1).view(target_BHW.shape)
        metrics["moved_right"] = right_where_moved(predicted_BHW, references_BRHW, target_BHW)
        return TaskOutput(
            loss=nll_BM.mean(),
            metrics=metrics,
            scores={name: (nll_B,) for name, nll_B in nlls.items()},
            extras={"predicted": predicted_BHW},
        )

    def _frame_maps(self, frames_BCTHW: Tensor, backbone: Backbone) -> Tensor:
        """The stage's map of every frame, (B, D, T, h, w)."""
        if self.config.together:
            return backbone(frames_BCTHW, self.stage)
        maps = one_by_one(frames_BCTHW, backbone, self.stage)
        return maps.unflatten(0, (-1, frames_BCTHW.shape[2])).transpose(1, 2)

    def _scores(self, guesses: Mapping[str, Tensor], query_BM: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Per-sample accuracies and negative log probabilities of the network ("") and of the blind guesses."""
        scored = {name: score_guess(probs, query_BM, self.config.smoothing) for name, probs in guesses.items()}
        accuracy = scored[""][0]
        metrics = {"accuracy": accuracy}
        for name in ("common", "place"):
            metrics |= {f"copy_{name}": scored[name][0], f"gain_over_{name}": accuracy - scored[name][0]}
        nlls = {"perplexity" + (name and f"_copy_{name}"): nll for name, (_, nll) in scored.items()}
        return metrics, nlls

    def epoch_metrics(self) -> Mapping[str, Metric]:
        """Perplexities, the exponential of the mean negative log probability over all target pixels of an epoch."""
        from torchmetrics import MeanMetric  # here: importing it takes seconds

        class Perplexity(MeanMetric):
            def compute(self) -> Tensor:
                return super().compute().exp()

        return {name: Perplexity() for name in ("perplexity", "perplexity_copy_common", "perplexity_copy_place")}

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """A row for each of up to four samples: the references, the gray target, its predicted and its true colors.

        Colors are those of the palette, one to a cell, laid over the gray frame.
        """
        palette_K2 = self.palette_K2.float().cpu()
        rows = []
        for b in range(min(_PICTURES, len(batch["frames"]))):
            gray_TCHW = batch["frames"][b].transpose(0, 1).float().cpu()
            shown = [*batch["reference_colors"][b], output.extras["predicted"][b], batch["target_colors"][b]]
            under = [*gray_TCHW, gray_TCHW[-1]]
            painted = [paint(gray, colors.cpu(), palette_K2) for gray, colors in zip(under, shown, strict=True)]
            tiled = tiles(torch.stack([*painted[:-2], gray_TCHW[-1], *painted[-2:]]), _TILE_PX)
            rows.append(row(tiled, _GAP_PX))
        return {"colors": sheet(rows)}


def paint(gray_CHW: Tensor, colors_HW: Tensor, palette_K2: Tensor) -> Tensor:
    """Lay palette colors over a gray picture: its lightness, their a and b. Float RGB (3, H, W) in [0, 1]."""
    ab_2HW = palette_K2[colors_HW].movedim(-1, 0)
    ab_2HW = F.interpolate(ab_2HW[None], size=gray_CHW.shape[-2:], mode="nearest")[0]
    return lab_to_rgb(torch.cat([rgb_to_lab(gray_CHW)[:1], ab_2HW]))


# ---- what cannot work ------------------------------------------------------------------------------------------------


def _network_problems(config: ColorizationConfig, backbone: BackboneInfo) -> Iterable[str]:
    """What the network does not allow of maps of colors, and of frames that are shown together, or one by one."""
    yield from map_problems(config.frame_px, config.stage or None, backbone, "colors")
    stage, T = backbone.stage(config.stage or None), config.num_references + 1
    if config.together and stage.stride_time != 1:
        way = "set backbone.options.stride_time=1 where the network has it, or together=false"
        yield f"together (true) needs a map that keeps every frame, and {stage.name} keeps one of {stage.stride_time}; {way}"
    if config.together and T < backbone.min_frames:
        yield f"num_references ({config.num_references}) must be at least {backbone.min_frames - 1} for {backbone.name}"
    if not config.together and backbone.min_frames > 1:
        need = f"backbone {backbone.name} needs {backbone.min_frames}"
        yield f"together (false) gives single frames, and {need}; set together=true, or another backbone or input"
