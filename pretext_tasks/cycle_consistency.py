"""Can a patch be followed back in time and forward again, to where it came from?

Learning Correspondence from the Cycle-Consistency of Time (Wang, Jabri, Efros, CVPR 2019, arXiv 1903.07593), "TimeCycle". The
sources of each number are in ``docs/tasks/cycle_consistency.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.bounds import AtLeast, Between, OneOf, Share, check_options
from ssvid.errors import DataError
from ssvid.pictures import Color, outlined, row, sheet, tiles
from ssvid.tasks import BatchRandom, PretextTask, map_problems, one_by_one, permute_targets, register_task
from ssvid.transforms import Cut, CutFirst, Cuts, center_square, flip_some, frame_squares
from ssvid.transforms.correspondence import affinity, cut_patch, mean_dot, soft_inliers
from ssvid.transforms.moving import pick_window, window_motion
from ssvid.transforms.warp import (
    alignment_loss,
    cells_apart,
    crop_frames,
    degrees_apart,
    fit_square,
    keep_inside,
    make_placement,
    placed_points,
    square_side,
)
from ssvid.types import ClipPlan, TaskOutput, VideoInfo
from ssvid.video.sampling import window_weights

if TYPE_CHECKING:
    from torchmetrics import Metric

_PICTURES, _TILE_PX, _GAP_PX = 3, 112, 2
_TRUTH, _FOUND, _END = (60, 200, 90), (240, 200, 40), (230, 60, 50)

Walks = Sequence[Sequence[Tensor]]  # the placements (B, 2, 3) of each cycle, one after the other
Locate = Callable[[Tensor, Tensor], Tensor]  # (patch_BDM, frame_BDN) -> placement (B, 2, 3)


@dataclass(frozen=True)
class CycleConsistencyConfig:
    """Options of the task.

    num_past: earlier frames, the length of the longest cycle. frame_gap: from one of them to the next; target_gap: from
        the last of them to the target frame, which the patch is taken from; both in frames of sample_fps.
    sample_fps: frames per second that gaps are counted in; 0 counts the video's own frames. Where a video is too short,
        its frames are taken closer together.
    motion_power: windows of time are drawn in proportion to this power of their mean optical flow; 0 draws all alike.
        Above 0 it needs ``ssvid data index ROOT --motion`` once.
    motion_windows: the patch is taken from one of so many places of the target frame at which most changes until the
        next frame, among motion_grid x motion_grid; 0 takes it from anywhere.
    place_jitter: how far the place is then moved, to either side, as a share of the way that there is.
    max_angle: the patch is turned by up to so many degrees to either side. It never reaches beyond the frame.
    frame_px: side of the square that a worker cuts out. crop_scale: its least side relative to the short side of the
        video. flip: mirror half of the samples. frame_shift: in training each frame gets a square of its own, this share
        smaller and anywhere within the common one, so that its place tells nothing of where it was; 0 is off.
    patch_scale: side of the patch relative to the frame, rounded to whole cells of the map.
    embed_channels: width of what is compared. temperature: of the affinity's softmax; 0 is 1 / sqrt(embed_channels).
    localizer: ``convolutions`` reads a place and an angle off the affinity (the paper); ``fit`` fits them to where the
        affinity expects each cell, by least squares, with nothing to be learned.
    cut_from: what a patch is cut out of on its way: ``normalized``, maps of which each cell has length 1 already; ``raw``, the maps
        before that (the authors' code). Its cells have length 1 afterwards, either way.
    similarity: of a patch and what was found in one jump: ``inliers``, how much of the affinity falls on the place found
        (the authors' code), or ``dot``, the mean inner product (the paper).
    sim_weight, skip_weight, long_weight: of the losses. sum_cycles: add the losses of all cycles up instead of taking
        their mean. The defaults are those of the authors' code; the paper has sum_cycles=true and weights 1, 0.1, 0.1.
    freeze_steps: so long only the head is trained. curriculum_steps: meanwhile the longest cycle grows from 1 to
        num_past; 0 has all lengths from the start.
    stage: backbone stage that the head sits on; "" is the last. Its stride is 8 in the paper.
    """

    num_past: Annotated[int, AtLeast(1)] = 4
    frame_gap: Annotated[int, AtLeast(1)] = 2
    target_gap: Annotated[int, AtLeast(1)] = 9
    sample_fps: Annotated[float, AtLeast(0)] = 12.0
    motion_power: Annotated[float, AtLeast(0)] = 0.0
    motion_windows: Annotated[int, AtLeast(0)] = 10
    motion_grid: Annotated[int, AtLeast(1)] = 7
    place_jitter: Annotated[float, AtLeast(0)] = 1 / 12
    max_angle: Annotated[float, AtLeast(0)] = 45.0
    frame_px: Annotated[int, AtLeast(1)] = 240
    crop_scale: Annotated[float, Share] = 1.0
    flip: bool = True
    frame_shift: Annotated[float, Between(0, 0.5)] = 0.0
    patch_scale: Annotated[float, Share] = 1 / 3
    embed_channels: Annotated[int, AtLeast(1)] = 512
    temperature: Annotated[float, AtLeast(0)] = 0.0
    localizer: Annotated[str, OneOf("convolutions", "fit")] = "convolutions"
    cut_from: Annotated[str, OneOf("normalized", "raw")] = "normalized"
    similarity: Annotated[str, OneOf("inliers", "dot")] = "inliers"
    sim_weight: Annotated[float, AtLeast(0)] = 1.0
    skip_weight: Annotated[float, AtLeast(0)] = 0.1
    long_weight: Annotated[float, AtLeast(0)] = 0.02
    sum_cycles: bool = False
    freeze_steps: Annotated[int, AtLeast(0)] = 0
    curriculum_steps: Annotated[int, AtLeast(0)] = 0
    stage: str = ""


# ---- sampling: pure index arithmetic ---------------------------------------------------------------------------------


def frame_offsets(config: CycleConsistencyConfig, fps: float, num_frames: int) -> np.ndarray:
    """The frames of a window from its first: the past, the target, and one more where motion is looked for. int64, rising.

    In a video too short for the gaps they shrink in proportion, to one frame at least.
    """
    c = config
    steps = [*range(0, c.num_past * c.frame_gap, c.frame_gap)]
    steps.append(steps[-1] + c.target_gap)
    if c.motion_windows:
        steps.append(steps[-1] + c.frame_gap)
    scale = fps / c.sample_fps if c.sample_fps > 0 else 1.0
    scale = min(scale, (num_frames - 1) / steps[-1])
    order = np.arange(len(steps))
    apart = np.maximum.accumulate(np.rint(np.array(steps) * scale).astype(np.int64) - order) + order
    return np.minimum(apart, num_frames - len(steps) + order)


class CycleClips(CutFirst):
    """Worker side: some frames of a video, the target last, and how much changes in each part of the target."""

    def __init__(self, config: CycleConsistencyConfig, patch_px: int, training: bool) -> None:
        self.config, self.patch_px, self.training = config, patch_px, training

    @property
    def min_frames(self) -> int:
        """The past frames, the target, and one more where motion is looked for."""
        return self.config.num_past + 1 + (self.config.motion_windows > 0)

    @property
    def signals(self) -> tuple[str, ...]:
        """The per-frame measurements that the options need."""
        return ("motion",) if self.config.motion_power else ()

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """One window anywhere in the video, or where it moves. The true place is born later, on the device."""
        offsets = frame_offsets(self.config, video.fps, video.num_frames)
        room = video.num_frames - int(offsets[-1])
        if not self.config.motion_power:
            return ClipPlan((offsets + int(rng.integers(room)),))
        if "motion" not in video.signals:
            raise DataError(
                f"cycle_consistency plans from the motion of each video, which is not there for {video.path}. Measure it"
                " with: ssvid data index ROOT --motion. Or set task.options.motion_power=0."
            )
        weights = window_weights(video.signals["motion"], int(offsets[-1]) + 1, self.config.motion_power)
        return ClipPlan((offsets + int(rng.choice(len(weights), p=weights)),))

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """``frames`` uint8 (T, 3, px, px), the target last; ``motion`` float (grid, grid), zeros where it is not used."""
        c = self.config
        boxes = [center_square(height, width)]
        if self.training:  # a frame behind the target's, for its motion, is cut as the target is
            boxes = frame_squares(height, width, rng, c.num_past + 1, min_scale=c.crop_scale, shift=c.frame_shift)
        return Cuts((Cut.squares(0, boxes, c.frame_px),), self._sample)

    def _sample(self, cuts_TCHW: tuple[Tensor, ...]) -> dict[str, Tensor]:
        c, (frames_TCHW,) = self.config, cuts_TCHW
        motion = torch.zeros(c.motion_grid, c.motion_grid)
        if c.motion_windows:
            motion = window_motion(frames_TCHW[-2], frames_TCHW[-1], self.patch_px, c.motion_grid)
        return {"frames": frames_TCHW[: c.num_past + 1].contiguous(), "motion": motion}


# ---- the tracker -----------------------------------------------------------------------------------------------------


class ConvLocalizer(nn.Module):
    """Place and angle of a patch, read off its affinity with a frame by two convolutions and a linear layer.

    The affinity is a map of the patch with a channel for each cell of the frame. Kernels are 4 x 4, as in the paper,
    where the patch has 7 x 7 cells or more, else smaller.
    """

    def __init__(self, frame_side: int, patch_side: int) -> None:
        super().__init__()
        kernel = max(1, min(4, (patch_side + 1) // 2))
        self.conv1 = nn.Conv2d(frame_side**2, 128, kernel, bias=False)
        self.conv2 = nn.Conv2d(128, 64, kernel, bias=False)
        self.place = nn.Linear(64 * (patch_side - 2 * (kernel - 1)) ** 2, 3)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, a=0.1, mode="fan_out", nonlinearity="leaky_relu")
        nn.init.normal_(self.place.weight, std=0.01)
        nn.init.zeros_(self.place.bias)

    def forward(self, affinity_BNM: Tensor) -> tuple[Tensor, Tensor]:
        """Center (B, 2) and angle (B,) in radians."""
        side = square_side(affinity_BNM.shape[2])
        map_BNPP = affinity_BNM.unflatten(2, (side, side))
        hidden = F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(map_BNPP), 0.1)), 0.1)
        found_B3 = self.place(hidden.flatten(1))
        return found_B3[:, :2], found_B3[:, 2]


def long_cycles(patch_BDM: Tensor, past: Sequence[Tensor], target_BDN: Tensor, locate: Locate) -> list[list[Tensor]]:
    """For each length c from 1: the places found on the way back through c past frames, forth again, and in the target.

    Args:
        past: maps (B, D, N) of the past frames, the latest first.

    Returns:
        2 c placements (B, 2, 3) for length c; the last is where the cycle ends.
    """
    side = square_side(patch_BDM.shape[2])
    here_BDM, back, held = patch_BDM, [], []
    for frame_BDN in past:
        back.append(locate(here_BDM, frame_BDN))
        here_BDM = cut_patch(frame_BDN, back[-1], side)
        held.append(here_BDM)
    walks = []
    for length in range(1, len(past) + 1):
        here_BDM, walk = held[length - 1], back[:length]
        for frame_BDN in reversed(past[: length - 1]):
            walk.append(locate(here_BDM, frame_BDN))
            here_BDM = cut_patch(frame_BDN, walk[-1], side)
        walks.append([*walk, locate(here_BDM, target_BDN)])
    return walks


def skip_cycles(patch_BDM: Tensor, past: Sequence[Tensor], target_BDN: Tensor, locate: Locate) -> list[list[Tensor]]:
    """For each past frame: the place found there in one jump, and from there in the target."""
    side = square_side(patch_BDM.shape[2])
    walks = []
    for frame_BDN in past:
        there_B23 = locate(patch_BDM, frame_BDN)
        walks.append([there_B23, locate(cut_patch(frame_BDN, there_B23, side), target_BDN)])
    return walks


# ---- the losses ------------------------------------------------------------------------------------------------------


@register_task("cycle_consistency")
class CycleConsistency(PretextTask):
    """Follow a patch back in time and forward again, to where it came from (TimeCycle, Wang et al., CVPR 2019)

    The placebo hands every sample the patch of another video, with that one's true place: there is nothing to be found,
    and frames, patches, places and losses are what they were.

    Differs: the turned patch always lies within the frame, and what a crop takes from beyond a map is its border, so that
    no padding tells where a patch is; windows that move are scored on the frames as they are shown, mirrored or not; on its
    way a patch is cut from maps of which each cell has length 1 already (``cut_from=raw``: as the authors' code does).
    """

    Config = CycleConsistencyConfig
    # A patch that occurs in no other frame, or in nothing but noise, cannot be followed home.
    must_fall = ("foreign", "noise")
    # Where nothing moves every cycle closes; where a frame was cut does not matter to who looks at what is in it.
    must_hold = ("static", "shifted", "reencoded")
    smaller_is_better = ("*error*",)
    steps_done: Tensor

    def __init__(self, config: CycleConsistencyConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_options("cycle_consistency", config, _problems(config, backbone))
        self.stage = config.stage or None
        stage = backbone.stage(self.stage)
        self.frame_side = config.frame_px // stage.stride_space
        self.patch_side = patch_cells(config, self.frame_side)
        self.patch_px = self.patch_side * stage.stride_space
        self.scale = self.patch_side / self.frame_side
        self.temperature = config.temperature or config.embed_channels**-0.5
        self.project = nn.Conv2d(stage.channels, config.embed_channels, 1)
        if config.localizer == "convolutions":
            self.localizer = ConvLocalizer(self.frame_side, self.patch_side)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    def chance(self) -> Mapping[str, float]:
        """Whoever always says "in the middle" gains nothing over the middle. How far off that is stands beside it."""
        return {"gain_over_center": 0.0, "relative_error": 1.0}

    def clip_maker(self, training: bool) -> CycleClips:
        return CycleClips(self.config, self.patch_px, training)

    def after_step(self, backbone: Backbone, global_step: int) -> None:
        """Steps are counted in a buffer: the schedules of a resumed run go on where they were."""
        self.steps_done.add_(1)

    @property
    def longest(self) -> int:
        """Length of the longest cycle that is trained now; in validation all are."""
        c = self.config
        if not (self.training and c.curriculum_steps):
            return c.num_past
        return min(c.num_past, 1 + int(self.steps_done) * c.num_past // c.curriculum_steps)

    # ---- the patch

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """Flips; then the patch is cut out of the target frame: ``patch`` (B, 3, px, px), ``placement`` (B, 2, 3).

        ``frames`` become float (B, 3, T, H, W).
        """
        frames_BTCHW, motion_BGG = batch["frames"].float().div_(255), batch["motion"]
        draws = torch.from_numpy(np.stack([r.random(6) for r in rng.samples])).float().to(frames_BTCHW.device)
        if self.training and self.config.flip:
            flipped_B = draws[:, 5] < 0.5
            frames_BTCHW, motion_BGG = flip_some(frames_BTCHW, flipped_B), flip_some(motion_BGG, flipped_B)
        placement_B23 = self.draw_placement(motion_BGG, draws)
        return {
            **batch,
            "frames": frames_BTCHW.transpose(1, 2).contiguous(),
            "motion": motion_BGG,
            "placement": placement_B23,
            "patch": crop_frames(frames_BTCHW[:, -1], placement_B23, self.patch_px),
        }

    def draw_placement(self, motion_BGG: Tensor, draws_BK: Tensor) -> Tensor:
        """Where each patch is cut out, from at least five draws in [0, 1): (B, 2, 3)."""
        c = self.config
        share_B2 = draws_BK[:, :2]  # of the way from the leftmost, topmost place to the last
        if c.motion_windows:
            chosen_B = pick_window(motion_BGG.flatten(1), draws_BK[:, 0], c.motion_windows)
            grid = motion_BGG.shape[-1]
            share_B2 = torch.stack([chosen_B % grid, chosen_B // grid], dim=1) / max(grid - 1, 1)
            share_B2 = (share_B2 + c.place_jitter * (2 * draws_BK[:, 2:4] - 1)).clamp(0, 1)
        angle_B = math.radians(c.max_angle) * (2 * draws_BK[:, 4] - 1)
        center_B2 = keep_inside((1 - self.scale) * (2 * share_B2 - 1), angle_B, self.scale)
        return make_placement(center_B2, angle_B, self.scale)

    def placebo(self, batch: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Every sample gets the patch of another video, with that one's true place."""
        return permute_targets(batch, ("patch", "placement"), rng)

    # ---- the step

    def embed(self, frames_BCTHW: Tensor, backbone: Backbone) -> Tensor:
        """What patches are cut from, in every cell of every frame: float32 (B, T, D, N); of length 1 unless ``raw``."""
        map_BCHW = one_by_one(frames_BCTHW, backbone, self.stage)
        if self.training and self.config.freeze_steps and int(self.steps_done) < self.config.freeze_steps:
            # Gradients of zero instead of none: training on many GPUs waits for one of every parameter.
            map_BCHW = map_BCHW.detach() + 0 * map_BCHW
        mapped_BDN = F.relu(self.project(map_BCHW)).float().flatten(2)
        if self.config.cut_from == "normalized":
            mapped_BDN = F.normalize(mapped_BDN, dim=1)
        return mapped_BDN.unflatten(0, (-1, frames_BCTHW.shape[2]))

    def compared(self, map_BDN: Tensor) -> Tensor:
        """What affinities compare, of length 1 in every cell."""
        return map_BDN if self.config.cut_from == "normalized" else F.normalize(map_BDN, dim=1)

    def locate(self, patch_BDM: Tensor, frame_BDN: Tensor) -> Tensor:
        """One step of the tracker: the placement (B, 2, 3) of a patch in a frame."""
        affinity_BNM = affinity(self.compared(frame_BDN), patch_BDM, self.temperature)
        if self.config.localizer == "convolutions":
            center_B2, angle_B = self.localizer(affinity_BNM)
        else:
            center_B2, angle_B = fit_square(affinity_BNM, self.scale)
        return make_placement(center_B2, angle_B, self.scale)

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        *earlier, target_BDN = self.embed(batch["frames"], backbone).unbind(dim=1)
        past = earlier[::-1][: self.longest]
        patch_BDM = self.compared(self.embed(batch["patch"].unsqueeze(2), backbone)[:, 0])
        with torch.autocast(patch_BDM.device.type, enabled=False):
            long = long_cycles(patch_BDM, past, target_BDN, self.locate)
            skip = skip_cycles(patch_BDM, past, target_BDN, self.locate)
            alike = [self.similarity(patch_BDM, frame_BDN, w[0]) for frame_BDN, w in zip(past, skip, strict=True)]
            similarity_BK = torch.stack(alike, dim=1)
            loss = self.loss(long, skip, similarity_BK, batch["placement"])
        walks = {"long": [walk[-1].detach() for walk in long], "skip": [walk[-1].detach() for walk in skip]}
        metrics = self.measures(walks, batch["placement"]) | {"similarity": similarity_BK.detach().mean(dim=1)}
        jumps = torch.stack([torch.stack(walk, 1) for walk in skip], 1)
        extras = {"long": torch.stack(long[-1], 1).detach(), "skip": jumps.detach()}
        return TaskOutput(loss=loss, metrics=metrics, scores=relative_scores(metrics), extras=extras)

    def similarity(self, patch_BDM: Tensor, frame_BDN: Tensor, placement_B23: Tensor) -> Tensor:
        """How alike the patch is to what one jump found, (B,)."""
        if self.config.similarity == "dot":
            return mean_dot(patch_BDM, frame_BDN, placement_B23)
        return soft_inliers(patch_BDM, self.compared(frame_BDN), placement_B23, self.temperature)

    def loss(self, long: Walks, skip: Walks, similarity_BK: Tensor, truth_B23: Tensor) -> Tensor:
        """L = sum or mean over cycles of: -w_sim similarity + w_skip alignment (skip) + w_long alignment (long)."""
        c = self.config
        skip_BK, long_BK = (torch.stack([alignment_loss(w[-1], truth_B23) for w in ws], 1) for ws in (skip, long))
        each_BK = c.skip_weight * skip_BK + c.long_weight * long_BK - c.sim_weight * similarity_BK
        return (each_BK.sum(dim=1) if c.sum_cycles else each_BK.mean(dim=1)).mean()

    def measures(self, ends: Mapping[str, Sequence[Tensor]], truth_B23: Tensor) -> dict[str, Tensor]:
        """Per sample: errors in cells and shares of closed cycles, by kind and length and over all lengths."""
        metrics: dict[str, Tensor] = {}
        for kind, placements in ends.items():
            errors = [cells_apart(end, truth_B23, self.frame_side) for end in placements]
            by_length = {f"error_{kind}{n}": error for n, error in enumerate(errors, start=1)}
            closed = {name.replace("error", "closed"): (error <= 1).float() for name, error in by_length.items()}
            metrics |= by_length | closed
            metrics[f"error_{kind}"] = torch.stack(errors).mean(dim=0)
            metrics[f"closed_{kind}"] = torch.stack([*closed.values()]).mean(dim=0)
            metrics[f"angle_error_{kind}"] = torch.stack([degrees_apart(end, truth_B23) for end in placements]).mean(0)
        middle_B23 = torch.cat([truth_B23[:, :, :2], torch.zeros_like(truth_B23[:, :, 2:])], dim=2)
        metrics["error_of_center"] = cells_apart(middle_B23, truth_B23, self.frame_side)
        metrics["closed_of_center"] = (metrics["error_of_center"] <= 1).float()
        return metrics

    def epoch_metrics(self) -> Mapping[str, Metric]:
        """The mean error as a share of that of always saying "in the middle": of all cycles, long ones, skip cycles."""
        return {name: _ratio_metric(is_gain=name == "gain_over_center") for name in RELATIVE}

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """Up to three samples, two rows each: the longest cycle, and the jumps to each past frame with where they end.

        At the left the patch. Green is the truth, yellow what was found on the way, red where a cycle ends.
        """
        rows = []
        for b in range(min(_PICTURES, len(batch["frames"]))):
            *earlier, target = tiles(batch["frames"][b].transpose(0, 1), _TILE_PX)
            truth_23, past = batch["placement"][b], earlier[::-1]
            walk_S23, jumps_K223 = output.extras["long"][b], output.extras["skip"][b]
            length = len(walk_S23) // 2
            way = [*past[:length], *reversed(past[: length - 1])]
            goal = _marked(target, _TRUTH, truth_23)
            start = [*tiles(batch["patch"][b][None], _TILE_PX), goal]
            found = [_marked(frame, _FOUND, place_23) for frame, place_23 in zip(way, walk_S23, strict=False)]
            rows.append(row([*start, *found, _marked(goal, _END, walk_S23[-1])], _GAP_PX))
            found = [_marked(frame, _FOUND, jump_223[0]) for frame, jump_223 in zip(past, jumps_K223, strict=False)]
            rows.append(row([*start, *found, _marked(goal, _END, *jumps_K223[:, 1])], _GAP_PX))
        return {"cycles": sheet(rows)}


def _marked(tile: np.ndarray, color: Color, *placements_23: Tensor) -> np.ndarray:
    """A frame's picture with the outlines of placed squares, a dot at their first corner."""
    corners_42 = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    for placement_23 in placements_23:
        at_42 = placed_points(placement_23.detach().float().cpu()[None], corners_42)[0]
        tile = outlined(tile, ((at_42 + 1) * len(tile) / 2).tolist(), color)
    return tile


# ---- measures over an epoch ------------------------------------------------------------------------------------------

# Epoch metric -> the per-sample errors that it is the mean of.
RELATIVE: Mapping[str, tuple[str, ...]] = {
    "gain_over_center": ("error_long", "error_skip"),
    "relative_error": ("error_long", "error_skip"),
    "relative_error_long": ("error_long",),
    "relative_error_skip": ("error_skip",),
}


def relative_scores(metrics: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """For each epoch metric: each sample's error, and that of the middle."""
    errors = {name: torch.stack([metrics[kind] for kind in kinds]).mean(dim=0) for name, kinds in RELATIVE.items()}
    return {name: (error_B, metrics["error_of_center"]) for name, error_B in errors.items()}


def _ratio_metric(*, is_gain: bool) -> Metric:
    from torchmetrics import Metric  # here: importing it takes seconds

    class OfCenter(Metric):
        """Sum of errors over sum of the middle's errors, or what is missing to 1."""

        sums_2: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.add_state("sums_2", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

        def update(self, error_B: Tensor, center_B: Tensor) -> None:
            self.sums_2 = self.sums_2 + torch.stack([error_B.double().sum(), center_B.double().sum()])

        def compute(self) -> Tensor:
            ratio = self.sums_2[0] / self.sums_2[1]
            return 1 - ratio if is_gain else ratio

    return OfCenter()


def patch_cells(config: CycleConsistencyConfig, frame_side: int) -> int:
    """Cells of the patch's map to a side."""
    return max(1, round(config.patch_scale * frame_side))


def _problems(config: CycleConsistencyConfig, backbone: BackboneInfo) -> Iterable[str]:
    """What the network's maps do not allow, and a loss without a cycle."""
    if config.skip_weight == config.long_weight == 0:
        yield "skip_weight and long_weight (0) must not both be 0, or no cycle is trained to close"
    stride = backbone.stage(config.stage or None).stride_space
    yield from map_problems(config.frame_px, config.stage or None, backbone, "patches")
    patch_px = patch_cells(config, config.frame_px // stride) * stride
    if patch_px < backbone.min_px:
        yield f"patch_scale ({config.patch_scale:g}) gives patches of {patch_px} px, and {backbone.name} needs {backbone.min_px}"
    if backbone.min_frames > 1:
        yield f"frames are shown one by one, and backbone {backbone.name} needs {backbone.min_frames}; take another input"
