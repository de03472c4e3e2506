"""Do small and large views of one moment look alike, and all moments differ evenly?

LeVJEPA (arXiv 2608.27395), on the objective of LeJEPA (Balestriero, LeCun 2025, arXiv 2511.08544), written from the papers' formulas. The
sources of each number are in ``docs/tasks/sigreg_views.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from torch import Tensor

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.backbones.tokens import tokens_of_map
from ssvid.bounds import AtLeast, BelowOne, Between, OneOf, Pair, Positive, Rising, Share, check_options
from ssvid.contrast import ahead_of_others, collecting
from ssvid.data.one_clip import OneClip
from ssvid.errors import DataError
from ssvid.gaussianity import distance_of_normal, random_directions, sigreg
from ssvid.pictures import LIGHT, RIGHT, WRONG, row, sheet, tiles, words
from ssvid.projector import NORMS, Projector
from ssvid.ranks import num_training
from ssvid.tasks import BatchRandom, PretextTask, register_task, videos_of
from ssvid.token_masks import random_mask
from ssvid.transforms import Cut, Cuts, random_area
from ssvid.transforms.color import Jitter, jitter_clip, random_jitter
from ssvid.types import ClipPlan, TaskOutput

if TYPE_CHECKING:
    from torchmetrics import Metric

GRAY = Jitter(brightness=1.0, contrast=1.0, saturation=0.0, hue=0.0)
_PICTURES, _MOMENTS, _TILE_PX, _EDGE_PX = 4, 3, 80, 4


@dataclass(frozen=True)
class SigregViewsConfig:
    """Options of the task.

    num_frames, stride_frames: of the clip that all views of a sample are cut from, and from one of its frames to the next.
    num_globals, num_locals: views of a sample. frame_px, local_px: sides of the squares that they are brought to. global_areas,
        local_areas: least and greatest share of the frame that is cut out for one.
    vary: which views are mirrored and change colors: ``local`` (LeVJEPA), or ``all`` of them (LeJEPA). flip: half of these are mirrored.
        jitter: how far brightness, contrast, saturation and hue change. jitter_prob: how often they do. gray_prob: how often a view is gray.
    token_drop: share of the tokens of each view that training leaves out; only for networks of tokens.
    hidden, width: of the projector: of its hidden layers, and of the embeddings. norm: within it: ``batch`` over the clips of all devices,
        or ``layer`` within each clip.
    sigreg_weight: lambda. combine: ``add``: invariance + lambda SIGReg (LeVJEPA); ``mix``: (1 - lambda) invariance + lambda SIGReg (LeJEPA).
    num_directions: on which SIGReg projects, new ones in each step. num_knots, t_max: of its integral over [-t_max, t_max].
    scale_by_n: whether SIGReg has the factor N, the number of clips of a step.
    stage: backbone stage that the projector sits on; "" is the last.
    """

    num_frames: Annotated[int, AtLeast(1)] = 16
    stride_frames: Annotated[int, AtLeast(1)] = 4
    num_globals: Annotated[int, AtLeast(1)] = 1
    num_locals: Annotated[int, AtLeast(1)] = 4
    frame_px: Annotated[int, AtLeast(1)] = 224
    local_px: Annotated[int, AtLeast(1)] = 96
    global_areas: Annotated[tuple[float, ...], Share, Pair, Rising] = (0.8, 1.0)
    local_areas: Annotated[tuple[float, ...], Share, Pair, Rising] = (0.05, 0.4)
    vary: Annotated[str, OneOf("local", "all")] = "local"
    flip: bool = True
    jitter: Annotated[tuple[float, float, float, float], Between(0, 1)] = (0.4, 0.4, 0.2, 0.1)
    jitter_prob: Annotated[float, Between(0, 1)] = 0.8
    gray_prob: Annotated[float, Between(0, 1)] = 0.2
    token_drop: Annotated[float, BelowOne] = 0.0
    hidden: Annotated[tuple[int, ...], AtLeast(1)] = (2048,)
    width: Annotated[int, AtLeast(1)] = 256
    norm: Annotated[str, OneOf(*NORMS)] = "batch"
    sigreg_weight: Annotated[float, AtLeast(0)] = 0.02
    combine: Annotated[str, OneOf("add", "mix")] = "add"
    num_directions: Annotated[int, AtLeast(1)] = 1024
    num_knots: Annotated[int, AtLeast(2)] = 17
    t_max: Annotated[float, Positive] = 3.0
    scale_by_n: bool = True
    stage: str = ""


class Views(OneClip):
    """Worker side: one clip, and rectangles of it: all views share it."""

    def __init__(self, config: SigregViewsConfig) -> None:
        super().__init__(config.num_frames, config.stride_frames)
        self.config = config

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """``globals`` uint8 (V, T, C, frame_px, frame_px), ``locals`` likewise of local_px; one rectangle for all frames of a view."""
        c = self.config
        sizes = [(c.global_areas, c.frame_px)] * c.num_globals + [(c.local_areas, c.local_px)] * c.num_locals
        wanted = []
        for (least, most), size_px in sizes:
            rectangle = random_area(height, width, rng, min_area=least, max_area=most)
            wanted.append(Cut(0, (rectangle,), size_px))

        def finish(cuts_TCHW: tuple[Tensor, ...]) -> dict[str, Tensor]:
            large, small = cuts_TCHW[: c.num_globals], cuts_TCHW[c.num_globals :]
            return {"globals": torch.stack(large), "locals": torch.stack(small)}

        return Cuts(tuple(wanted), finish)


# ---- the loss and what needs no network ------------------------------------------------------------------------------


def invariance(globals_BGD: Tensor, locals_BVD: Tensor) -> Tensor:
    """(z_v - m)^2, mean over all views v and dimensions, for each sample, (B,); m is the mean of its global views (arXiv 2511.08544, section 5).

    Nothing is detached. With one global view z_0 it is the mean over views of (z_0 - z_v)^2, that of z_0 included (arXiv 2608.27395).
    """
    views_BVD = torch.cat([globals_BGD, locals_BVD], dim=1)
    return (views_BVD - globals_BGD.mean(dim=1, keepdim=True)).square().mean(dim=(1, 2))


def strangers_in_turn(videos_B: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """So many permutations of the samples, int64 (count, B): at each place all of them, and the sample itself, are of different videos.

    Samples are lined up video by video, in random order; each permutation takes those that stand further on by another multiple of a step.

    Raises:
        DataError: one video has more than a share of 1 / (count + 1) of the samples.
    """
    _, video_B, counts = np.unique(videos_B, return_inverse=True, return_counts=True)
    total, most = len(videos_B), int(counts.max())
    step = total // (count + 1)
    if step < most:
        raise DataError(
            f"a placebo shows views of {count + 1} videos as one, and {most} of {total} samples that one device sees at a time are of one "
            f"video: at most {'half' if count == 1 else f'1 in {count + 1}'} may be. Raise loader.global_batch, lower loader.clips_per_video, "
            "or add videos."
        )
    line_B = np.lexsort((rng.random(total), rng.permutation(len(counts))[video_B]))
    orders = np.empty((count, total), dtype=np.int64)
    for number in range(count):
        orders[number, line_B] = np.roll(line_B, -step * (number + 1))
    return orders


def mean_colors(clips_BVCTHW: Tensor) -> Tensor:
    """Of each view, float (B, V, C)."""
    return clips_BVCTHW.mean(dim=(3, 4, 5)).float()


def nearer_to_own(locals_ND: Tensor, globals_ND: Tensor, videos_N: Tensor) -> float:
    """How often a local view is nearer to the global one of its own clip than to that of another video, over all pairs; chance 1/2."""
    return ahead_of_others(-_distances(locals_ND, globals_ND), videos_N)


def finds_own(locals_BVD: Tensor, globals_BD: Tensor, videos_B: Tensor) -> Tensor:
    """Whether the global view of its own clip is the nearest to a local one, of all that are of other videos: 0 or 1, (B, V)."""
    distance_BVB = _distances(locals_BVD.flatten(0, 1), globals_BD).unflatten(0, locals_BVD.shape[:2])
    own_BV1 = distance_BVB.diagonal(dim1=0, dim2=2).T.unsqueeze(2)
    is_other_B1B = (videos_B.unsqueeze(1) != videos_B).unsqueeze(1)
    return (~((distance_BVB <= own_BV1) & is_other_B1B).any(dim=2)).float()


def _distances(one_ND: Tensor, other_MD: Tensor) -> Tensor:
    """(N, M), by differences: what is alike has the same distance to all."""
    return torch.cdist(one_ND, other_MD, compute_mode="donot_use_mm_for_euclid_dist")


# ---- the task --------------------------------------------------------------------------------------------------------


@register_task("sigreg_views")
class SigregViews(PretextTask):
    """Do small and large views of one moment look alike, and all moments differ evenly? (LeVJEPA; LeJEPA)

    No teacher, no predictor, no stopped gradient. The loss compares a whole batch with a distribution. A placebo gives every sample the
    local views of another video, and every further global view of yet another one: each view stays in its batch.

    Differs: without a class token the mean over the tokens that are kept; attention in both directions of time; the projector sees
    all views of a step together.
    """

    Config = SigregViewsConfig
    must_fall = ("noise",)
    must_hold = ("reencoded",)
    needs_whole_batch = True

    def __init__(self, config: SigregViewsConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_options("sigreg_views", config, _problems(config, backbone))
        self.stage = config.stage or None
        channels = backbone.stage(self.stage).channels
        self.projector = Projector(channels, config.hidden, config.width, config.norm)

    def chance(self) -> Mapping[str, float]:
        """Any two views are as near."""
        return {"nearer_to_own": 0.5}

    def clip_maker(self, training: bool) -> Views:
        """Validation cuts views as training does, so that it asks the same."""
        return Views(self.config)

    def setup(self, backbone: Backbone) -> None:
        if self.config.token_drop and not backbone.drops_tokens:
            check_options("sigreg_views", self.config, [_no_tokens(self.config, backbone.info)])

    # ---- the step

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """Views become float (B, V, C, T, H, W), mirrored and recolored each by itself; in training also which tokens are kept, bool
        (B, V, N); ``directions`` (D, M), the same on all devices.
        """
        c = self.config
        changed = dict(batch)
        for name in ("globals", "locals"):
            clips_BVCTHW = batch[name].transpose(2, 3).float().div_(255)
            if name == "locals" or c.vary == "all":
                varied = [
                    torch.stack([self._vary(v, r) for v in clips])
                    for clips, r in zip(clips_BVCTHW, rng.samples, strict=True)
                ]
                clips_BVCTHW = torch.stack(varied)
            changed[name] = clips_BVCTHW.contiguous()
            if self.training and c.token_drop:
                changed[f"keep_{name}"] = self._draw_kept(clips_BVCTHW, rng.samples)
        directions_DM = random_directions(c.width, c.num_directions, rng.shared)
        return changed | {"directions": directions_DM.to(changed["locals"].device)}

    def _vary(self, clip_CTHW: Tensor, rng: np.random.Generator) -> Tensor:
        c = self.config
        if c.flip and rng.integers(2):
            clip_CTHW = clip_CTHW.flip(-1)
        clip_CTHW = jitter_clip(clip_CTHW, random_jitter(c.jitter, c.jitter_prob, rng))
        return jitter_clip(clip_CTHW, GRAY) if rng.random() < c.gray_prob else clip_CTHW

    def _draw_kept(self, clips_BVCTHW: Tensor, draws: Iterable[np.random.Generator]) -> Tensor:
        """Which tokens of each view are kept, drawn for each by itself."""
        B, V, _, *size = clips_BVCTHW.shape
        grid = _grid(size, self.backbone_info)
        dropped = [random_mask(grid, self.config.token_drop, draw) for draw in draws for _ in range(V)]
        return ~torch.from_numpy(np.stack(dropped)).to(clips_BVCTHW.device).unflatten(0, (B, V))

    def placebo(self, batch: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Local views of another video, each further global view of yet another one."""
        global_BVCTHW = batch["globals"]
        videos_B = videos_of(batch, len(global_BVCTHW))
        orders = torch.from_numpy(strangers_in_turn(videos_B, self.config.num_globals, rng))
        orders = orders.to(global_BVCTHW.device)
        further = [global_BVCTHW[order, v] for v, order in enumerate(orders[1:], start=1)]
        together = torch.stack([global_BVCTHW[:, 0], *further], dim=1)
        return {**batch, "globals": together, "locals": batch["locals"][orders[0]]}

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        c = self.config
        pooled = [self._pool(batch[name], batch.get(f"keep_{name}"), backbone) for name in ("globals", "locals")]
        views_BVD = torch.cat(pooled, dim=1)
        z_BVD = self.projector(views_BVD.flatten(0, 1)).unflatten(0, views_BVD.shape[:2]).float()
        globals_BGD, locals_BVD = z_BVD[:, : c.num_globals], z_BVD[:, c.num_globals :]
        invariance_B = invariance(globals_BGD, locals_BVD)
        statistic = sigreg(
            z_BVD.transpose(0, 1), batch["directions"], c.num_knots, c.t_max, c.scale_by_n, self.training
        )
        kept = 1 - c.sigreg_weight if c.combine == "mix" else 1.0
        metrics = {"invariance": invariance_B} | self._of_batch(z_BVD, statistic)
        scores: dict[str, tuple[Tensor, ...]] = {}
        extras: dict[str, Any] = {"sigreg": metrics["sigreg"][:1]}
        if not self.training:
            videos_B = torch.from_numpy(videos_of(batch, len(z_BVD))).to(z_BVD.device)
            found_BV = finds_own(locals_BVD, globals_BGD.mean(dim=1), videos_B)
            metrics["finds_own"] = found_BV.mean(dim=1)
            color_BV3 = [mean_colors(batch[name]) for name in ("globals", "locals")]
            scores["nearer_to_own"] = (locals_BVD[:, 0], globals_BGD.mean(dim=1), videos_B)
            scores["nearer_by_color"] = (color_BV3[1][:, 0], color_BV3[0].mean(dim=1), videos_B)
            extras["found"] = found_BV
        detached = {name: value_B.detach() for name, value_B in metrics.items()}
        return TaskOutput(kept * invariance_B.mean() + c.sigreg_weight * statistic, detached, scores, extras)

    def _pool(self, clips_BVCTHW: Tensor, keep_BVN: Tensor | None, backbone: Backbone) -> Tensor:
        """The mean of the map over the cells that are kept, (B, V, D)."""
        clips_BCTHW, views = clips_BVCTHW.flatten(0, 1), clips_BVCTHW.shape[:2]
        if keep_BVN is None:
            return backbone(clips_BCTHW, self.stage).mean(dim=(2, 3, 4)).unflatten(0, views)
        keep_BN = keep_BVN.flatten(0, 1)
        map_BCTHW = backbone(clips_BCTHW, self.stage, keep_BN=keep_BN)
        return tokens_of_map(map_BCTHW, keep_BN).mean(dim=1).unflatten(0, views)

    @torch.no_grad()
    def _of_batch(self, z_BVD: Tensor, statistic: Tensor) -> dict[str, Tensor]:
        """What is one number for the whole batch, handed to each of its samples: SIGReg with the factor N, without it, and how far the
        embeddings of this device spread.
        """
        num_clips = len(z_BVD) * (num_training() if self.training else 1)
        with_n = statistic if self.config.scale_by_n else statistic * num_clips
        spread = z_BVD.std(dim=0, correction=0).mean()
        values = {"sigreg": with_n, "sigreg_per_clip": with_n / num_clips, "embedding_std": spread}
        return {name: value.detach().expand(len(z_BVD)) for name, value in values.items()}

    def epoch_metrics(self) -> Mapping[str, Metric]:
        """How often the own global view is nearer than that of another video: by embeddings, and by mean colors without a network."""
        return {"nearer_to_own": _nearer_metric(), "nearer_by_color": _nearer_metric()}

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """Up to four samples: moments of the first global view, then the first frame of each local one, with a green edge where the own
        global view is the nearest of the batch, else a red one; in training without an edge.
        """
        rows = []
        told = f"SIGReg {float(output.extras['sigreg']):.2f}"
        normal = distance_of_normal(self.config.num_knots, self.config.t_max)
        for b in range(min(_PICTURES, len(batch["globals"]))):
            whole_CTHW, local_VCTHW = batch["globals"][b, 0], batch["locals"][b]
            picked = np.linspace(0, whole_CTHW.shape[1] - 1, min(_MOMENTS, whole_CTHW.shape[1])).round().astype(int)
            large = tiles(whole_CTHW[:, picked].transpose(0, 1), _TILE_PX)
            small = tiles(local_VCTHW[:, :, 0], _TILE_PX)
            if "found" in output.extras:
                found_V = output.extras["found"][b].tolist()
                small = [_edged(tile, RIGHT if found else WRONG) for tile, found in zip(small, found_V, strict=True)]
            lines = [("global | local", LIGHT)] + ([(told, LIGHT), (f"normal {normal:.2f}", LIGHT)] if b == 0 else [])
            gap = np.zeros((_TILE_PX, 8, 3), dtype=np.uint8)
            rows.append(row([words(lines, 120, _TILE_PX), *large, gap, *small], 2))
        return {"views": sheet(rows)}


def _edged(tile: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    edged = np.full_like(tile, color)
    inner = slice(_EDGE_PX, -_EDGE_PX)
    edged[inner, inner] = tile[inner, inner]
    return edged


def _grid(size: Iterable[int], backbone: BackboneInfo) -> tuple[int, ...]:
    """Cells of the last map of a clip of T x H x W: what fills no cell is left out."""
    last = backbone.stage()
    strides = (last.stride_time, last.stride_space, last.stride_space)
    return tuple(length // stride for length, stride in zip(size, strides, strict=True))


def _no_tokens(config: SigregViewsConfig, backbone: BackboneInfo) -> str:
    return f"token_drop ({config.token_drop:g}) must be 0 for backbone {backbone.name}, which has no tokens to leave out; vit has"


def _problems(config: SigregViewsConfig, backbone: BackboneInfo) -> Iterable[str]:
    for name, low in (
        ("num_frames", backbone.min_frames),
        ("frame_px", backbone.min_px),
        ("local_px", backbone.min_px),
    ):
        if getattr(config, name) < low:
            yield f"{name} ({getattr(config, name)}) must be at least {low} for backbone {backbone.name}"
    if config.combine == "mix" and config.sigreg_weight > 1:
        yield f"sigreg_weight ({config.sigreg_weight:g}) must be at most 1 with combine=mix, which weights the invariance by what is left of 1"


def _nearer_metric() -> Metric:
    return collecting(nearer_to_own, ("locals", "globals", "videos"))
