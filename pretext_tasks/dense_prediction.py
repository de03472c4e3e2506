"""Which features, of all places and moments to come, were predicted for here?

Video Representation Learning by Dense Predictive Coding (Han, Xie, Zisserman, ICCV Workshops 2019, arXiv 1909.04656), "DPC". The
sources of each number are in ``docs/tasks/dense_prediction.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.bounds import AtLeast, Between, Share, check_options
from ssvid.orders import pool_to_grid
from ssvid.pictures import row, sheet, tiles
from ssvid.tasks import BatchRandom, PretextTask, register_task
from ssvid.transforms import Cut, CutFirst, Cuts, center_square, flip_at_random, random_square, square
from ssvid.transforms.color import jitter_clip, random_jitter
from ssvid.types import ClipPlan, TaskOutput, VideoInfo
from ssvid.video.sampling import spaced_frames

SAME, SPATIAL, TEMPORAL, EASY = 0, 1, 2, 3  # what a target is to a prediction
_PICTURES, _TILE_PX, _GAP_PX, _DOT_SHARE = 3, 96, 2, 0.3
_RIGHT, _STEP, _WRONG = (60, 200, 90), (240, 200, 40), (230, 60, 50)


@dataclass(frozen=True)
class DensePredictionConfig:
    """Options of the task.

    num_blocks: pieces of a clip, one after the other; the last num_predicted of them are predicted. block_frames: of each.
    sample_fps: frames per second that are taken; 0 takes the video's own. Where a video is too short, its frames are taken
        closer together.
    frame_px: side of the square that a worker cuts out. crop_scale: its least side relative to the short side of the video.
        flip: mirror half of the samples.
    channel_prob: so likely a frame shows one of its channels in place of all three, each frame by itself. jitter: strengths
        of brightness, contrast, saturation and hue, one draw for all frames of a clip.
    embed_channels: width of what is predicted. grid: the map is averaged to so many cells to a side where it has more; 0 leaves
        it as it is.
    gru_kernel: side of the kernels that sum up the past.
    spatial, temporal, easy: which targets a prediction is told from besides its own: other places of the same clip; other blocks
        at the same place; other clips of the batch.
    stage: backbone stage that the head sits on; "" is the last.
    """

    num_blocks: Annotated[int, AtLeast(2)] = 8
    num_predicted: Annotated[int, AtLeast(1)] = 3
    block_frames: Annotated[int, AtLeast(1)] = 5
    sample_fps: Annotated[float, AtLeast(0)] = 8.0
    frame_px: Annotated[int, AtLeast(1)] = 128
    crop_scale: Annotated[float, Share] = 0.7
    flip: bool = True
    channel_prob: Annotated[float, Between(0, 1)] = 0.5
    jitter: Annotated[tuple[float, float, float, float], AtLeast(0)] = (0.5, 0.5, 0.5, 0.25)
    embed_channels: Annotated[int, AtLeast(1)] = 256
    grid: Annotated[int, AtLeast(0)] = 4
    gru_kernel: Annotated[int, AtLeast(1)] = 1
    spatial: bool = True
    temporal: bool = True
    easy: bool = True
    stage: str = ""


class BlockClips(CutFirst):
    """Worker side: one clip, its frames evenly spaced, cut into blocks of the past and of the future."""

    def __init__(self, config: DensePredictionConfig, training: bool) -> None:
        self.config, self.training = config, training

    @property
    def min_frames(self) -> int:
        """Those of all blocks."""
        return self.config.num_blocks * self.config.block_frames

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """Evenly spaced frames anywhere in the video."""
        return ClipPlan((spaced_frames(rng, video, self.min_frames, self.config.sample_fps),))

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """``past`` and ``future`` uint8 (V, T, C, frame_px, frame_px), V blocks of T frames; one square for all frames."""
        c = self.config
        box = random_square(height, width, rng, c.crop_scale) if self.training else center_square(height, width)
        return Cuts((Cut(0, (square(box),), c.frame_px),), self._sample)

    def _sample(self, cuts_TCHW: tuple[Tensor, ...]) -> dict[str, Tensor]:
        c = self.config
        blocks_VTCHW = cuts_TCHW[0].unflatten(0, (c.num_blocks, c.block_frames))
        past_VTCHW, future_VTCHW = blocks_VTCHW.tensor_split((c.num_blocks - c.num_predicted,))
        return {"past": past_VTCHW.contiguous(), "future": future_VTCHW.contiguous()}


# ---- summing up the past ---------------------------------------------------------------------------------------------


class ConvGRU(nn.Module):
    """A gated recurrent unit with a state at every cell (Ballas et al., ICLR 2016, as DPC has it).

    z = s(W_z [x, h]), r = s(W_r [x, h]), n = tanh(W_n [x, r h]), h' = (1 - z) h + z n. W are convolutions with bias, orthogonal
    at the start.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 2 * channels, kernel, padding=kernel // 2)
        self.candidate = nn.Conv2d(2 * channels, channels, kernel, padding=kernel // 2)
        for weight in (*self.gates.weight.data.chunk(2), self.candidate.weight.data):
            nn.init.orthogonal_(weight)
        for bias in (self.gates.bias, self.candidate.bias):
            nn.init.zeros_(bias)  # type: ignore[arg-type]

    def forward(self, x_BDHW: Tensor, state_BDHW: Tensor) -> Tensor:
        """The next state, (B, D, H, W)."""
        update_BDHW, reset_BDHW = self.gates(torch.cat([x_BDHW, state_BDHW], dim=1)).sigmoid().chunk(2, dim=1)
        new_BDHW = self.candidate(torch.cat([x_BDHW, reset_BDHW * state_BDHW], dim=1)).tanh()
        return (1 - update_BDHW) * state_BDHW + update_BDHW * new_BDHW


def predict(past_BVDHW: Tensor, num_steps: int, gru: nn.Module, head: nn.Module) -> Tensor:
    """The maps of the next blocks, (B, P, D, H, W), each from the past and from what was predicted before it.

    c_t = g(c_t-1, relu(z_t)), then z'_t+1 = f(c_t), c_t+1 = g(c_t, relu(z'_t+1)), ... (Han 2019, equations 1 to 3).
    """
    state_BDHW = torch.zeros_like(past_BVDHW[:, 0])
    for map_BDHW in past_BVDHW.unbind(dim=1):
        state_BDHW = gru(map_BDHW.relu(), state_BDHW)
    predicted = []
    for step in range(num_steps):
        predicted.append(head(state_BDHW))
        if step < num_steps - 1:
            state_BDHW = gru(predicted[-1].relu(), state_BDHW)
    return torch.stack(predicted, dim=1)


# ---- the loss --------------------------------------------------------------------------------------------------------


def kinds_of_targets(num_clips: int, num_steps: int, num_cells: int, device: torch.device | None = None) -> Tensor:
    """What each target is to each prediction, int64 (M, M) with M = clips * steps * cells, clip by clip and step by step.

    ``SAME``: its own. ``TEMPORAL``: another block at the same place of the clip. ``SPATIAL``: any other place of the clip.
    ``EASY``: of another clip.
    """
    number_M = torch.arange(num_clips * num_steps * num_cells, device=device)
    clip_M, step_M, cell_M = (
        number_M // (num_steps * num_cells),
        number_M // num_cells % num_steps,
        number_M % num_cells,
    )
    same_clip, same_step, same_cell = (x[:, None] == x for x in (clip_M, step_M, cell_M))
    kinds_MM = torch.full(same_clip.shape, EASY, device=device)
    kinds_MM[same_clip] = SPATIAL
    kinds_MM[same_clip & same_cell] = TEMPORAL
    kinds_MM[same_clip & same_cell & same_step] = SAME
    return kinds_MM


def contrast_loss(scores_MM: Tensor, kinds_MM: Tensor, against: Iterable[int]) -> Tensor:
    """Mean negative log probability of each prediction's own target, among it and those of the kinds ``against``.

    L = -mean_m log( exp(s_mm) / sum_n exp(s_mn) ), s the inner products (Han 2019, equation 5).
    """
    told_from_MM = torch.isin(kinds_MM, torch.tensor([SAME, *against], device=kinds_MM.device))
    own_M = torch.arange(len(scores_MM), device=scores_MM.device)
    return F.cross_entropy(scores_MM.masked_fill(~told_from_MM, -torch.inf), own_M)


def right_among(scores_BMM: Tensor, num_cells: int) -> dict[str, Tensor]:
    """Whether the own target has the highest score, of each prediction of a clip (B, P, N) bool, by what it is told from.

    ``clip``: from all targets of the clip. ``place``: from those of its own step. ``step``: from those at its own place. A tie counts
    for none, so that targets that are all alike are told from nothing.

    Args:
        scores_BMM: of each clip's predictions (rows) with its own targets; M = steps * cells, step by step.
    """
    scores_BPNPN = scores_BMM.unflatten(2, (-1, num_cells)).unflatten(1, (-1, num_cells))
    own_BPN = scores_BMM.diagonal(dim1=1, dim2=2).unflatten(1, (-1, num_cells))
    of_step_BPNN = torch.einsum("bpnpm->bpnm", scores_BPNPN)
    of_place_BPNQ = torch.einsum("bpnqn->bpnq", scores_BPNPN)
    told = {"clip": scores_BPNPN.flatten(3), "place": of_step_BPNN, "step": of_place_BPNQ}
    return {name: (among >= own_BPN[..., None]).sum(dim=-1) == 1 for name, among in told.items()}


@register_task("dense_prediction")
class DensePrediction(PretextTask):
    """Predict features of what comes next, and tell them from all others (DPC, Han et al., ICCV Workshops 2019)

    The placebo has each sample predict the future of another video.

    Differs: a 1 x 1 convolution takes the place of a last layer without ReLU; the map is averaged to ``grid`` cells; colors
    are jittered once for a clip.
    """

    Config = DensePredictionConfig
    targets = ("future",)
    # Noise of the past tells nothing of that to come, but where one is: a network that knows its place is told by it.
    must_fall = ("noise",)
    must_hold = ("reencoded",)

    def __init__(self, config: DensePredictionConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_options("dense_prediction", config, _problems(config, backbone))
        self.stage = config.stage or None
        D = config.embed_channels
        self.project = nn.Conv2d(backbone.stage(self.stage).channels, D, 1)
        self.gru = ConvGRU(D, config.gru_kernel)
        self.head = nn.Sequential(nn.Conv2d(D, D, 1), nn.ReLU(), nn.Conv2d(D, D, 1))
        for name, parameter in self.head.named_parameters():
            (nn.init.orthogonal_ if name.endswith("weight") else nn.init.zeros_)(parameter)
        self.against = [
            k for k, on in ((SPATIAL, config.spatial), (TEMPORAL, config.temporal), (EASY, config.easy)) if on
        ]

    @property
    def map_side(self) -> int:
        """Cells of the map to a side."""
        stride = self.backbone_info.stage(self.stage).stride_space
        return _cells(self.config, stride)

    def chance(self) -> Mapping[str, float]:
        """Any of the targets of the clip; of those of the block; of those at the place. Whoever knows the place alone has the last
        in the place of the first."""
        steps, cells = self.config.num_predicted, self.map_side**2
        chances = {"accuracy": 1 / (steps * cells), "accuracy_place": 1 / cells, "accuracy_step": 1 / steps}
        return {name: chance for name, chance in chances.items() if chance < 1}

    def clip_maker(self, training: bool) -> BlockClips:
        return BlockClips(self.config, training)

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """Flips, colors and single channels, alike for ``past`` and ``future``, which become float (B, V, C, T, H, W)."""
        c, num_past = self.config, self.config.num_blocks - self.config.num_predicted
        blocks_BVTCHW = torch.cat([batch["past"], batch["future"]], dim=1).float().div_(255)
        clips_BCTHW = blocks_BVTCHW.flatten(1, 2).transpose(1, 2)
        if self.training:
            if c.flip:
                clips_BCTHW = flip_at_random(clips_BCTHW, rng.samples)
            clips_BCTHW = split_channels(clips_BCTHW, rng.samples, c.channel_prob)
            draws = [random_jitter(c.jitter, 1.0, r) for r in rng.samples]
            clips_BCTHW = torch.stack([jitter_clip(clip, draw) for clip, draw in zip(clips_BCTHW, draws, strict=True)])
        blocks_BVCTHW = clips_BCTHW.unflatten(2, (-1, c.block_frames)).transpose(1, 2).contiguous()
        past, future = blocks_BVCTHW.tensor_split((num_past,), dim=1)
        return {**batch, "past": past.contiguous(), "future": future.contiguous()}

    def embed(self, blocks_BVCTHW: Tensor, backbone: Backbone) -> Tensor:
        """The map of each block, its mean over time, before a ReLU: (B, V, D, H, W)."""
        map_NDTHW = backbone(blocks_BVCTHW.flatten(0, 1), self.stage)
        cells_NDHW = pool_to_grid(map_NDTHW, self.map_side).unflatten(1, (-1, self.map_side, self.map_side))
        return self.project(cells_NDHW).unflatten(0, blocks_BVCTHW.shape[:2])

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        num_past = batch["past"].shape[1]
        maps_BVDHW = self.embed(torch.cat([batch["past"], batch["future"]], dim=1), backbone)
        past_BVDHW, future_BPDHW = maps_BVDHW.tensor_split((num_past,), dim=1)
        predicted_BPDHW = predict(past_BVDHW, future_BPDHW.shape[1], self.gru, self.head)
        rows_BMD, targets_BMD = (x.float().movedim(2, 4).flatten(1, 3) for x in (predicted_BPDHW, future_BPDHW))
        B, P, _, H, W = future_BPDHW.shape
        with torch.autocast(rows_BMD.device.type, enabled=False):
            scores_MM = rows_BMD.flatten(0, 1) @ targets_BMD.flatten(0, 1).T
            kinds_MM = kinds_of_targets(B, P, H * W, scores_MM.device)
            loss = contrast_loss(scores_MM, kinds_MM, self.against)
            right = right_among(torch.einsum("bmd,bnd->bmn", rows_BMD, targets_BMD).detach(), H * W)
        metrics = {"accuracy": right["clip"], "accuracy_place": right["place"], "accuracy_step": right["step"]}
        own_M = torch.arange(len(scores_MM), device=scores_MM.device)
        metrics["accuracy_batch"] = (scores_MM.detach().argmax(dim=1) == own_M).view(B, P, H * W)
        if not self.training:  # training has no use for it
            metrics["accuracy_step_of_drift"] = drift(*self.colors(batch))
        shares = {name: hits_BPN.float().mean(dim=(1, 2)) for name, hits_BPN in metrics.items()}
        return TaskOutput(loss=loss, metrics=shares, extras={"right": right["clip"], "place": right["place"]})

    def colors(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The mean color of each cell of the last past block, (B, N, C), and of the future blocks, (B, P, N, C)."""
        means = [blocks_BVCTHW.mean(dim=3) for blocks_BVCTHW in (batch["past"][:, -1:], batch["future"])]
        last_B1NC, future_BPNC = (
            F.adaptive_avg_pool2d(x.flatten(0, 1), self.map_side).flatten(2).transpose(1, 2).unflatten(0, x.shape[:2])
            for x in means
        )
        return last_B1NC[:, 0], future_BPNC

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """Up to three samples, a row each: the middle frame of every block, those of the past first. The dot in a cell
        of the future is green where it was told from all others of the clip, yellow where only its place was right, else red."""
        rows = []
        for b in range(min(_PICTURES, len(batch["past"]))):
            middle = self.config.block_frames // 2
            past, future = (tiles(batch[name][b, :, :, middle], _TILE_PX) for name in ("past", "future"))
            right_PN, place_PN = (output.extras[name][b].cpu().numpy() for name in ("right", "place"))
            told = [_dotted(*one) for one in zip(future, right_PN, place_PN, strict=True)]
            rows.append(row([*past, *told], _GAP_PX))
        return {"blocks": sheet(rows)}


def split_channels(clips_BCTHW: Tensor, draws: Sequence[np.random.Generator], prob: float) -> Tensor:
    """Each frame by itself, with a probability, shows one of its channels, drawn at random, in place of all three."""
    T = clips_BCTHW.shape[2]
    alone_BT = torch.from_numpy(np.stack([r.random(T) < prob for r in draws])).to(clips_BCTHW.device)
    channel_BT = torch.from_numpy(np.stack([r.integers(3, size=T) for r in draws])).to(clips_BCTHW.device)
    index_B1T11 = channel_BT[:, None, :, None, None].expand(-1, 1, -1, *clips_BCTHW.shape[3:])
    return torch.where(alone_BT[:, None, :, None, None], clips_BCTHW.gather(1, index_B1T11), clips_BCTHW)


def drift(last_BNC: Tensor, future_BPNC: Tensor) -> Tensor:
    """A guess without a network, that colors drift away: at each place the block whose colors are k-th nearest to those of the last
    past block is the k-th. Whether that is so, bool (B, P, N); a tie counts for none."""
    apart_BPN = (future_BPNC - last_BNC[:, None]).norm(dim=-1)
    nearer_BPN = (apart_BPN[:, None] < apart_BPN[:, :, None]).sum(dim=2)
    as_near_BPN = (apart_BPN[:, None] <= apart_BPN[:, :, None]).sum(dim=2)
    step_P1 = torch.arange(apart_BPN.shape[1], device=apart_BPN.device)[:, None]
    return (nearer_BPN == step_P1) & (as_near_BPN == step_P1 + 1)


def _dotted(tile: np.ndarray, right_N: np.ndarray, place_N: np.ndarray) -> np.ndarray:
    """A frame's picture with a dot in each cell, in the color of how it was told."""
    side = round(len(right_N) ** 0.5)
    colors_N3 = np.where(right_N[:, None], _RIGHT, np.where(place_N[:, None], _STEP, _WRONG))
    place_T = (np.arange(len(tile)) + 0.5) * side / len(tile)
    cell_T = place_T.astype(int)
    inner_T = np.abs(place_T - cell_T - 0.5) < _DOT_SHARE / 2
    colors_HW3 = colors_N3.reshape(side, side, 3)[cell_T][:, cell_T]
    return np.where((inner_T[:, None] & inner_T)[..., None], colors_HW3, tile).astype(np.uint8)


def _cells(c: DensePredictionConfig, stride_space: int) -> int:
    """Cells to a side of what is predicted."""
    there = -(-c.frame_px // stride_space)
    return min(c.grid or there, there)


def _problems(c: DensePredictionConfig, backbone: BackboneInfo) -> Iterable[str]:
    """A loss that compares with nothing, no past, and what the network does not take."""
    if c.num_predicted >= c.num_blocks:
        yield f"num_predicted ({c.num_predicted}) must be below num_blocks ({c.num_blocks}), or there is no past"
    if c.gru_kernel % 2 == 0:
        yield f"gru_kernel ({c.gru_kernel}) must be odd"
    if c.num_predicted < 2 and _cells(c, backbone.stage(c.stage or None).stride_space) < 2:
        yield f"num_predicted ({c.num_predicted}) must be at least 2 where the map has a single cell, or nothing is to be told apart"
    if not (c.spatial or c.temporal or c.easy):
        yield f"easy ({c.easy}) must be true, or spatial, or temporal: a prediction has to be told from something"
    if c.block_frames < backbone.min_frames:
        yield f"block_frames ({c.block_frames}) must be at least {backbone.min_frames}, which backbone {backbone.name} needs"
    if backbone.max_frames is not None and c.block_frames > backbone.max_frames:
        yield f"block_frames ({c.block_frames}) must be at most {backbone.max_frames}, the most that backbone {backbone.name} takes"
    if c.frame_px < backbone.min_px:
        yield f"frame_px ({c.frame_px}) must be at least {backbone.min_px}, which backbone {backbone.name} needs"
