"""What do the cubes of a clip look like that are hidden?

VideoMAE (Tong, Song, Wang, Wang, NeurIPS 2022, arXiv 2203.12602), with the decoder's mask of VideoMAE v2 (Wang et al.,
CVPR 2023, arXiv 2303.16727) and the mask of MAE-ST (Feichtenhofer, Fan, Li, He, NeurIPS 2022, arXiv 2205.09113) as
options. The sources of each number are in ``docs/tasks/masked_pixels.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.backbones.attention import Variant
from ssvid.backbones.tokens import kept_places, take_tokens, tokens_of_map
from ssvid.bounds import AtLeast, Inside, OneOf, Share, check_options
from ssvid.data.one_clip import OneClip
from ssvid.pictures import LIGHT, row, sheet, tiles, words
from ssvid.tasks import BatchRandom, PretextTask, permute_targets, register_task
from ssvid.token_decoder import TokenDecoder, explained, heads_of
from ssvid.token_masks import no_tokens, part_cubes, random_mask, running_cells, tube_mask
from ssvid.transforms import Box, Cut, Cuts, center_square, flip_at_random
from ssvid.types import ClipPlan, TaskOutput

_EPSILON = 1e-6  # added to the standard deviation of a cube
MASKS = {"tube": tube_mask, "random": random_mask}
_HEAD_WIDTH, _ASKED_STD = 64, 0.02  # of the decoder's attention; spread of the token that stands for a hidden cube
_PICTURES, _MOMENTS, _TILE_PX, _GRAY = 2, 4, 80, 0.5


@dataclass(frozen=True)
class MaskedPixelsConfig:
    """Options of the task.

    num_frames, stride_frames: of a clip, and from one of its frames to the next. frame_px: side of the square that is
        cut out and the network sees. crop_scales: its side as a share of the short side of the video, one of them at
        random in training. flip: mirror half of the clips. clips_per_decode: squares that are cut from the same decoded
        frames, each with a mask of its own.
    mask: ``tube``: the same cells at all times (VideoMAE); ``random``: any cells (MAE-ST). ratio: share that is hidden.
    decode: ``hidden``: all hidden cubes are reconstructed; ``running``: those among half of all cells, which changes
        from moment to moment (VideoMAE v2). target_frames: ``all`` of a cube, or its ``first`` (MAE-ST).
    decoder_width, decoder_depth: of the transformer that reconstructs; width 0 is half of the network's, in steps of 8.
    decoder_start: ``random``: positions by the number of the cell and small random weights (VideoMAE); ``near``:
        positions by three axes, and attention that begins with what lies near, for short training.
    """

    num_frames: Annotated[int, AtLeast(1)] = 16
    stride_frames: Annotated[int, AtLeast(1)] = 4
    frame_px: Annotated[int, AtLeast(1)] = 224
    crop_scales: Annotated[tuple[float, ...], Share] = (1.0, 0.875, 0.75, 0.66)
    flip: bool = False
    clips_per_decode: Annotated[int, AtLeast(1)] = 1
    mask: Annotated[str, OneOf(*MASKS)] = "tube"
    ratio: Annotated[float, Inside] = 0.9
    decode: Annotated[str, OneOf("hidden", "running")] = "hidden"
    target_frames: Annotated[str, OneOf("all", "first")] = "all"
    decoder_width: Annotated[int, AtLeast(0)] = 0
    decoder_depth: Annotated[int, AtLeast(1)] = 4
    decoder_start: Annotated[str, OneOf("random", "near")] = "random"


class MaskedClips(OneClip):
    """Worker side: one clip, and squares of it."""

    def __init__(self, config: MaskedPixelsConfig, training: bool) -> None:
        super().__init__(config.num_frames, config.stride_frames)
        self.config, self.training = config, training

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """``clips`` uint8 (V, T, C, frame_px, frame_px), V = clips_per_decode; one square for all frames of a clip."""
        c = self.config
        boxes = [self._box(height, width, rng) for _ in range(c.clips_per_decode)]
        wanted = tuple(Cut.squares(0, [box], c.frame_px) for box in boxes)
        return Cuts(wanted, lambda cuts_TCHW: {"clips": torch.stack(cuts_TCHW)})

    def _box(self, height: int, width: int, rng: np.random.Generator) -> Box:
        if not self.training:
            return center_square(height, width)
        side = max(1, round(min(height, width) * float(rng.choice(self.config.crop_scales))))
        top, left = (int(rng.integers(free + 1)) for free in (height - side, width - side))
        return top, left, side


# ---- what is to be reconstructed -------------------------------------------------------------------------------------


def cubes_of(clips_BCTHW: Tensor, cube: Sequence[int]) -> Tensor:
    """The pixels of each cube of ``cube`` = (frames, px, px), cells T'H'W' with W' fastest: (B, N, pixels, C)."""
    t, h, w = cube
    B, C, T, H, W = clips_BCTHW.shape
    cut = clips_BCTHW.reshape(B, C, T // t, t, H // h, h, W // w, w)
    return cut.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(B, -1, t * h * w, C)


def clips_of(cubes_BNPC: Tensor, cube: Sequence[int], grid: Sequence[int]) -> Tensor:
    """The inverse of ``cubes_of``."""
    (t, h, w), (T, H, W) = cube, grid
    parts = cubes_BNPC.reshape(len(cubes_BNPC), T, H, W, t, h, w, -1)
    return parts.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(len(cubes_BNPC), -1, T * t, H * h, W * w)


def normalized(cubes_BNPC: Tensor) -> Tensor:
    """x -> (x - mean) / (s + 1e-6) of each cube and channel, P - 1 in the denominator of s (Tong et al. 2022, 4.1)."""
    centered = cubes_BNPC - cubes_BNPC.mean(dim=2, keepdim=True)
    return centered / (cubes_BNPC.std(dim=2, keepdim=True) + _EPSILON)


def mean_squared_errors(said_BMD: Tensor, target_BMD: Tensor, counts_BM: Tensor) -> Tensor:
    """Mean of (said - target)^2 over all numbers of the cubes that count, clip by clip, (B,); in float32."""
    errors_BM = (said_BMD.float() - target_BMD.float()).square().mean(dim=2)
    return (errors_BM * counts_BM).sum(dim=1) / counts_BM.sum(dim=1).clamp_min(1)


def nearest_seen(grid: Sequence[int], mask_BN: Tensor) -> Tensor:
    """For each cell the one nearest to it, in cells, that is not hidden, the first of several: int64 (B, N)."""
    axes = torch.meshgrid(*(torch.arange(cells, device=mask_BN.device) for cells in grid), indexing="ij")
    at_N3 = torch.stack([axis.flatten() for axis in axes], dim=1)
    distance_NN = (at_N3[:, None] - at_N3[None]).square().sum(dim=2)
    far = int(distance_NN.max()) + 1
    return (distance_NN[None] + far * mask_BN[:, None]).argmin(dim=2)


# ---- the task --------------------------------------------------------------------------------------------------------


@register_task("masked_pixels")
class MaskedPixels(PretextTask):
    """What do the cubes of a clip look like that are hidden? (VideoMAE, Tong et al., NeurIPS 2022)

    Hidden cubes enter the network in no way. The placebo asks for the cubes of another video's clip, at these places.

    Differs: the cubes that are asked for stand behind those that were seen, each with its own position, so that the
    order in the decoder means nothing; the decoder's heads are as near to 64 wide as its width allows.
    """

    Config = MaskedPixelsConfig
    must_fall = ("noise",)
    must_hold = ("reencoded",)
    example_backbone = "vit"

    def __init__(self, config: MaskedPixelsConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_options("masked_pixels", config, _problems(config, backbone))
        last = backbone.stage()
        self.cube = (last.stride_time, last.stride_space, last.stride_space)
        side = config.frame_px // last.stride_space
        self.grid = (config.num_frames // last.stride_time, side, side)
        target_frames = last.stride_time if config.target_frames == "all" else 1
        width = config.decoder_width or max(8, last.channels // 16 * 8)
        variant = Variant(width, config.decoder_depth, heads_of(width, _HEAD_WIDTH))
        num_values = target_frames * last.stride_space**2 * 3
        kind: dict[str, Any] = {
            "asked_std": _ASKED_STD,
            "bias": False,
            "positions": "near" if config.decoder_start == "near" else "flat",
        }
        self.decoder = TokenDecoder(last.channels, num_values, self.grid, variant, **kind)

    def chance(self) -> Mapping[str, float]:
        """Nothing is explained by the answer 0, the mean of every cube."""
        return {"explained": 0.0}

    def clip_maker(self, training: bool) -> MaskedClips:
        return MaskedClips(self.config, training)

    def setup(self, backbone: Backbone) -> None:
        if not backbone.drops_tokens:
            check_options("masked_pixels", self.config, [no_tokens("cubes", backbone.info)])

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """``clips`` become float (B, V, C, T, H, W), ``target`` is the same; ``mask`` bool (B, V, N), ``cells`` those
        that the decoder is asked for, likewise.
        """
        c = self.config
        clips_BVCTHW = batch["clips"].transpose(2, 3).float().div_(255)
        if self.training and c.flip:
            clips_BVCTHW = flip_at_random(clips_BVCTHW, rng.samples)
        masks, cells = [], []
        for draw in rng.samples:
            for _ in range(c.clips_per_decode):
                masks.append(MASKS[c.mask](self.grid, c.ratio, draw))
                cells.append(running_cells(self.grid, draw) if self._runs else masks[-1])
        mask_BVN, cells_BVN = (
            torch.from_numpy(np.stack(one)).to(clips_BVCTHW.device).unflatten(0, (-1, c.clips_per_decode))
            for one in (masks, cells)
        )
        clips_BVCTHW = clips_BVCTHW.contiguous()
        return {**batch, "clips": clips_BVCTHW, "target": clips_BVCTHW, "mask": mask_BVN, "cells": cells_BVN}

    @property
    def _runs(self) -> bool:
        """Validation asks for all that is hidden."""
        return self.training and self.config.decode == "running"

    def placebo(self, batch: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The pixels that are asked for are those of another video; what is seen, and which cells, stays."""
        return permute_targets(batch, ("target",), rng)

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        clips_BCTHW, mask_BN, cells_BN = (batch[name].flatten(0, 1) for name in ("clips", "mask", "cells"))
        map_BCTHW = backbone(clips_BCTHW, None, keep_BN=~mask_BN)
        seen_BK = kept_places(~mask_BN, len(mask_BN), self.grid)
        wanted_BM = kept_places(cells_BN, len(cells_BN), self.grid)
        said_BMD = self.decoder(tokens_of_map(map_BCTHW, ~mask_BN), seen_BK, wanted_BM)
        target_BND = self._targets(batch["target"].flatten(0, 1))
        target_BMD, counts_BM = take_tokens(target_BND, wanted_BM), mask_BN.gather(1, wanted_BM).float()
        errors_B = mean_squared_errors(said_BMD, target_BMD, counts_BM)
        of_nothing_B = mean_squared_errors(torch.zeros_like(target_BMD), target_BMD, counts_BM)
        metrics = {"explained": explained(errors_B, of_nothing_B)}
        extras: dict[str, Any] = {}
        if not self.training:  # training has no use for it
            nearest_BM = nearest_seen(self.grid, mask_BN).gather(1, wanted_BM)
            copied_B = mean_squared_errors(take_tokens(target_BND, nearest_BM), target_BMD, counts_BM)
            metrics["explained_by_nearest"] = explained(copied_B, of_nothing_B)
            extras = {"said": said_BMD[:_PICTURES].detach(), "wanted": wanted_BM[:_PICTURES]}
        views = self.config.clips_per_decode
        means = {name: value_B.detach().unflatten(0, (-1, views)).mean(dim=1) for name, value_B in metrics.items()}
        return TaskOutput(errors_B.mean(), means, extras=extras)

    def _targets(self, clips_BCTHW: Tensor) -> Tensor:
        """(B, N, values): of each cube its normalized pixels."""
        t, h, w = self.cube
        if self.config.target_frames == "first":
            return normalized(cubes_of(clips_BCTHW[:, :, ::t], (1, h, w))).flatten(2)
        return normalized(cubes_of(clips_BCTHW, self.cube)).flatten(2)

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """Up to two clips, four moments of each: what the network sees, with what it says of the rest, and the clip.
        Its answers are put back with the mean and spread of the true cubes.
        """
        if "said" not in output.extras:
            return {}
        rows = []
        said, wanted = output.extras["said"], output.extras["wanted"]
        clips, masks = batch["target"].flatten(0, 1), batch["mask"].flatten(0, 1)
        for said_MD, wanted_M, clip_CTHW, mask_N in zip(said, wanted, clips, masks, strict=False):
            shown = [*self._pictured(said_MD.float(), wanted_M, clip_CTHW, mask_N), clip_CTHW[:, :: self.cube[0]]]
            picked = np.linspace(0, self.grid[0] - 1, min(_MOMENTS, self.grid[0])).round().astype(int)
            for name, frames_CTHW in zip(("seen", "with what it says", "the clip"), shown, strict=True):
                told = words([(name, LIGHT)], 120, _TILE_PX)
                rows.append(row([told, *tiles(frames_CTHW[:, picked].transpose(0, 1), _TILE_PX)], 2))
        return {"cubes": sheet(rows)}

    def _pictured(self, said_MD: Tensor, wanted_M: Tensor, clip_CTHW: Tensor, mask_N: Tensor) -> tuple[Tensor, Tensor]:
        """The first frame of every cube (C, T', H, W): hidden ones gray, and as the decoder says they are."""
        t, h, w = self.cube
        cubes_NPC = cubes_of(clip_CTHW[None, :, ::t], (1, h, w))[0]
        whole_NPC = cubes_NPC if self.config.target_frames == "first" else cubes_of(clip_CTHW[None], self.cube)[0]
        seen_NPC = torch.where(mask_N[:, None, None], torch.full_like(cubes_NPC, _GRAY), cubes_NPC)
        true_MPC, said_MPC = whole_NPC[wanted_M], said_MD.reshape(len(wanted_M), -1, 3)[:, : h * w]
        back_MPC = said_MPC * true_MPC.std(dim=1, keepdim=True) + true_MPC.mean(dim=1, keepdim=True)
        told_NPC = seen_NPC.clone()
        told_NPC[wanted_M] = back_MPC.clamp(0, 1)
        seen, told = (clips_of(one[None], (1, h, w), self.grid)[0] for one in (seen_NPC, told_NPC))
        return seen, told


def _problems(config: MaskedPixelsConfig, backbone: BackboneInfo) -> Iterable[str]:
    last = backbone.stage()
    yield from part_cubes(config.num_frames, config.frame_px, backbone)
    side = config.frame_px // last.stride_space
    cells = side**2 * (1 if config.mask == "tube" else config.num_frames // last.stride_time)
    if cells and 0 < config.ratio < 1 and not 0 < int(config.ratio * cells) < cells:
        yield (
            f"ratio ({config.ratio:g}) must hide at least one and leave at least one of {cells} cells; raise frame_px, "
            "or take another ratio"
        )
    if config.decoder_width % 8:
        yield f"decoder_width ({config.decoder_width}) must be a multiple of 8"
