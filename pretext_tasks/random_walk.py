"""Does a walk from patch to patch through time and back end where it began?

Space-Time Correspondence as a Contrastive Random Walk (Jabri, Owens, Efros, NeurIPS 2020, arXiv 2006.14613). The sources of each
number are in ``docs/tasks/random_walk.md``.
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
from ssvid.bounds import AtLeast, BelowOne, Between, OneOf, Positive, Rising, Share, check_options
from ssvid.pictures import Color, outlined, row, sheet, tiles
from ssvid.tasks import BatchRandom, PretextTask, map_problems, one_by_one, register_task
from ssvid.transforms import (
    Cut,
    CutFirst,
    Cuts,
    Rectangle,
    center_square,
    random_area,
    random_square,
    shifted_boxes,
    square,
)
from ssvid.transforms.correspondence import pointer_logits
from ssvid.transforms.warp import crop_squares_of, make_placement
from ssvid.types import ClipPlan, TaskOutput, VideoInfo
from ssvid.video.sampling import spaced_frames

EPSILON = 1e-20  # added to a probability before its logarithm (the authors' code)
DROPPED = -1e20  # the logit of an edge that is left out
NOWHERE = -1  # the number of a node that is out of sight
_PICTURES, _TILE_PX, _GAP_PX, _SMALL_PX = 3, 112, 2, 6
_WALKERS: tuple[Color, ...] = ((240, 200, 40), (70, 170, 250), (240, 90, 200))


@dataclass(frozen=True)
class RandomWalkConfig:
    """Options of the task.

    num_frames: of a walk there. sample_fps: frames per second that are taken; 0 takes the video's own. Where a video is too
        short, its frames are taken closer together.
    frame_px: side of the square that a worker cuts out. crop_scale: least side, relative to the short side of the video,
        of the square that the frames of a clip have in common in training. frame_area, max_aspect: within it each frame is a
        rectangle of its own, of such a share of its area and of an aspect ratio of up to so much; 1 and 1 switch that off.
    eval_shift: in validation each frame is a square of its own within the middle one, this share smaller.
    nodes: of the walk: ``patches``, each seen by the network alone, or ``cells`` of the map of the whole frame.
    patch_scale: side of a patch relative to the frame. patch_step: from a patch to the next, relative to its side.
    patch_area: of each patch a square is shown, of such a share of its area, anywhere within it.
    embed_channels: width of what is compared. temperature: of the softmax over the nodes of the next frame.
    edge_dropout: share of the edges that are left out in training. dropout_inherited: on the way back those that were left out
        on the way there are left out, too (the authors' code).
    shortest: frames ahead in the shortest walk of the loss; 2 leaves out the walk to the next frame and back (the authors' code).
    stage: backbone stage that the head sits on; "" is the last. For cells its stride is 8 in the paper.
    """

    num_frames: Annotated[int, AtLeast(2)] = 4
    sample_fps: Annotated[float, AtLeast(0)] = 8.0
    frame_px: Annotated[int, AtLeast(1)] = 256
    crop_scale: Annotated[float, Share] = 1.0
    frame_area: Annotated[tuple[float, float], Share, Rising] = (0.8, 0.95)
    max_aspect: Annotated[float, AtLeast(1)] = 4 / 3
    eval_shift: Annotated[float, Between(0, 1 / 3)] = 1 / 3
    nodes: Annotated[str, OneOf("patches", "cells")] = "patches"
    patch_scale: Annotated[float, Share] = 0.25
    patch_step: Annotated[float, Share] = 0.5
    patch_area: Annotated[tuple[float, float], Share, Rising] = (0.7, 0.9)
    embed_channels: Annotated[int, AtLeast(1)] = 128
    temperature: Annotated[float, Positive] = 0.05
    edge_dropout: Annotated[float, BelowOne] = 0.1
    dropout_inherited: bool = True
    shortest: Annotated[int, AtLeast(1)] = 2
    stage: str = ""


# ---- nodes: where they lie -------------------------------------------------------------------------------------------


def node_centers(config: RandomWalkConfig, stride_space: int) -> np.ndarray:
    """Where the nodes of one row lie, as shares of the frame's side: float (G,), the grid is in the middle of the frame."""
    side_px, step_px = node_px(config, stride_space)
    count = (config.frame_px - side_px) // step_px + 1
    first_px = (config.frame_px - side_px - step_px * (count - 1)) / 2 + side_px / 2
    return (first_px + step_px * np.arange(count)) / config.frame_px


def node_px(config: RandomWalkConfig, stride_space: int) -> tuple[int, int]:
    """Side of a node, and from one to the next, in pixels of the frame."""
    if config.nodes == "cells":
        return stride_space, stride_space
    side_px = max(1, round(config.patch_scale * config.frame_px))
    return side_px, max(1, round(config.patch_step * side_px))


def nodes_again(first: Rectangle, last: Rectangle, centers_G: np.ndarray) -> np.ndarray:
    """For each node of one frame the nearest node of another, from where both were cut out: int64 (N,), row by row.

    ``NOWHERE`` where the node's center lies more than half a step beyond the outermost centers of the other.

    Args:
        first, last: (top, left, height, width) of the two frames, in the pixels of what does not move between them.
    """
    lines = []
    half_step = (centers_G[1] - centers_G[0]) / 2
    for corner, side in ((0, 2), (1, 3)):
        place_G = (first[corner] + first[side] * centers_G - last[corner]) / last[side]
        away_GG = np.abs(place_G[:, None] - centers_G)
        lines.append(np.where(away_GG.min(axis=1) <= half_step + 1e-9, away_GG.argmin(axis=1), NOWHERE))
    down_G1, across_1G = lines[0][:, None], lines[1][None]
    known = (down_G1 != NOWHERE) & (across_1G != NOWHERE)
    return np.where(known, down_G1 * len(centers_G) + across_1G, NOWHERE).astype(np.int64).ravel()


class WalkClips(CutFirst):
    """Worker side: some frames of a video, each cut out by itself; in validation the first one once more, at the end."""

    def __init__(self, config: RandomWalkConfig, centers_G: np.ndarray, training: bool) -> None:
        self.config, self.centers_G, self.training = config, centers_G, training

    @property
    def min_frames(self) -> int:
        """Those of the way there."""
        return self.config.num_frames

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """Evenly spaced frames anywhere in the video."""
        frames = spaced_frames(rng, video, self.config.num_frames, self.config.sample_fps)
        return ClipPlan((frames if self.training else np.append(frames, frames[0]),))

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """``frames`` uint8 (T, 3, px, px); ``home`` int64 (N,), each node's own number. In validation ``again`` int64 (N,), the
        number of the same place in the last frame."""
        rectangles = self._rectangles(height, width, len(plan.views[0]), rng)
        known = {"home": torch.arange(len(self.centers_G) ** 2)}
        if not self.training:
            known["again"] = torch.from_numpy(nodes_again(rectangles[0], rectangles[-1], self.centers_G))
        return Cuts((Cut(0, rectangles, self.config.frame_px),), lambda cuts_TCHW: {"frames": cuts_TCHW[0], **known})

    def _rectangles(self, height: int, width: int, count: int, rng: np.random.Generator) -> tuple[Rectangle, ...]:
        c = self.config
        if not self.training:
            boxes = shifted_boxes(center_square(height, width), c.eval_shift, count, rng)
            return tuple(square(box) for box in boxes)
        top, left, side = random_square(height, width, rng, c.crop_scale)
        low, high = c.frame_area
        areas = [
            random_area(side, side, rng, min_area=low, max_area=high, max_aspect=c.max_aspect) for _ in range(count)
        ]
        return tuple((top + down, left + across, high_px, wide_px) for down, across, high_px, wide_px in areas)


# ---- the walk --------------------------------------------------------------------------------------------------------
# A step (B, M, N) says for each of N nodes how likely it goes to each of M: its columns sum to 1.


def walk_steps(
    nodes_BTDN: Tensor, temperature: float, dropped_BT2NN: Tensor | None = None, *, inherited: bool = True
) -> tuple[list[Tensor], list[Tensor]]:
    """From each frame to the next, and from the next back: two lists of T - 1 steps.

    P(j, i) = exp(x_t+1(j) . x_t(i) / t) / sum over j, and back the same with the frames exchanged (Jabri 2020, equation 1).

    Args:
        nodes_BTDN: of length 1. dropped_BT2NN: edges that are left out, there and back, bool (B, T - 1, 2, N, N); what
            remains is the softmax over the others. inherited: back, those are left out, too, that were left out there.
    """
    there, back = [], []
    for t, (here_BDN, next_BDN) in enumerate(zip(nodes_BTDN.unbind(1)[:-1], nodes_BTDN.unbind(1)[1:], strict=True)):
        logits_BNN = pointer_logits(next_BDN, here_BDN, temperature)
        pair = [logits_BNN, logits_BNN.transpose(1, 2)]
        if dropped_BT2NN is not None:
            out_BNN, back_out_BNN = dropped_BT2NN[:, t].unbind(1)
            if inherited:
                back_out_BNN = back_out_BNN | out_BNN.transpose(1, 2)
            pair = [pair[0].masked_fill(out_BNN, DROPPED), pair[1].masked_fill(back_out_BNN, DROPPED)]
        there.append(pair[0].softmax(dim=1))
        back.append(pair[1].softmax(dim=1))
    return there, back


def palindromes(there: Sequence[Tensor], back: Sequence[Tensor]) -> list[Tensor]:
    """For each number of steps k from 1: the walk of k steps there and k back, (B, N, N).

    A_k = P_1>0 ... P_k>k-1 P_k-1>k ... P_0>1 (Jabri 2020, section 3.2).
    """
    walks = []
    out_BNN, home_BNN = there[0], back[0]
    for k in range(len(there)):
        if k:
            out_BNN, home_BNN = there[k] @ out_BNN, home_BNN @ back[k]
        walks.append(home_BNN @ out_BNN)
    return walks


def walk_nll(walk_BNN: Tensor, home_BN: Tensor) -> Tensor:
    """Negative log probability of ending at home, in nats, for the walker of each node: (B, N).

    L = -log(A(home(i), i) + 1e-20) (Jabri 2020, equation 3).
    """
    return -(walk_BNN.gather(1, home_BN.unsqueeze(1)).squeeze(1) + EPSILON).log()


def share_at(ends_BN: Tensor, truth_BN: Tensor) -> Tensor:
    """Share of walkers that end where they should, (B,), among those of which it is known; 0 where it is of none."""
    known_BN = truth_BN != NOWHERE
    return ((ends_BN == truth_BN) & known_BN).sum(dim=1) / known_BN.sum(dim=1).clamp(min=1)


def nearest_walk(colors_BTNC: Tensor) -> Tensor:
    """Where a walker ends that always goes to the node of the nearest color, there through all frames but the last, back
    through all but the first, and to the last: int64 (B, N)."""
    *way, last_BNC = colors_BTNC.unbind(dim=1)
    stops = [*way, *way[-2:0:-1], last_BNC]
    ends_BN = torch.arange(last_BNC.shape[1], device=last_BNC.device).expand(len(last_BNC), -1)
    for here_BNC, next_BNC in zip(stops[:-1], stops[1:], strict=True):
        ends_BN = torch.cdist(here_BNC, next_BNC).argmin(dim=2).gather(1, ends_BN)
    return ends_BN


@register_task("random_walk")
class RandomWalk(PretextTask):
    """Walk from patch to patch through time and back to the start (contrastive random walk, Jabri et al., NeurIPS 2020)

    In validation the walk ends in the first frame as it looks when it is cut out elsewhere: whoever only remembers his way, or
    his place, does not get there. The placebo sends each walker to a node that is drawn at random.

    Differs: rectangles of frames are cut out of a square of the video, and squares of patches without a change of shape.
    """

    Config = RandomWalkConfig
    targets = ("home",)
    # A walk through another video, or through noise, does not lead back to a place of one's own.
    must_fall = ("foreign", "noise")
    # Where nothing moves there is no further to go, and compression is no cue.
    must_hold = ("static", "reencoded")

    def __init__(self, config: RandomWalkConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_options("random_walk", config, _problems(config, backbone))
        self.stage = config.stage or None
        stage = backbone.stage(self.stage)
        self.centers_G = node_centers(config, stage.stride_space)
        self.num_nodes = self.num_classes = len(self.centers_G) ** 2
        self.project = nn.Linear(stage.channels, config.embed_channels)

    def chance(self) -> Mapping[str, float]:
        """Any of the nodes."""
        return {"accuracy": 1 / self.num_nodes}

    def clip_maker(self, training: bool) -> WalkClips:
        return WalkClips(self.config, self.centers_G, training)

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """``frames`` become float (B, 3, T, H, W); ``patches`` (B, 3, T * N, px, px) are cut out of them, where those are the
        nodes; in training ``dropped`` bool (B, T - 1, 2, N, N) says which edges are left out."""
        c, N = self.config, self.num_nodes
        frames_BTCHW = batch["frames"].float().div_(255)
        T = frames_BTCHW.shape[1]
        changed = {**batch, "frames": frames_BTCHW.transpose(1, 2).contiguous()}
        if c.nodes == "patches":
            draws_BTN3 = torch.full((len(frames_BTCHW), T, N, 3), 0.5)
            if self.training:
                draws_BTN3 = torch.from_numpy(np.stack([r.random((T, N, 3), np.float32) for r in rng.samples]))
            changed["patches"] = self.cut_patches(frames_BTCHW, draws_BTN3.to(frames_BTCHW.device))
        if self.training and c.edge_dropout:
            edges = np.stack([r.random((T - 1, 2, N, N), np.float32) < c.edge_dropout for r in rng.samples])
            changed["dropped"] = torch.from_numpy(edges).to(frames_BTCHW.device)
        return changed

    def cut_patches(self, frames_BTCHW: Tensor, draws_BTN3: Tensor) -> Tensor:
        """Of every node the square that three draws in [0, 1) say, its area and its place: (B, 3, T * N, px, px)."""
        low, high = self.config.patch_area
        side_px, _ = node_px(self.config, 1)
        share_BTN1 = (low + (high - low) * draws_BTN3[..., :1]).sqrt()
        centers_G = torch.from_numpy(self.centers_G).to(draws_BTN3)
        y_GG, x_GG = torch.meshgrid(centers_G, centers_G, indexing="ij")
        middle_N2 = 2 * torch.stack([x_GG, y_GG], dim=-1).flatten(0, 1) - 1
        scale = side_px / self.config.frame_px
        center_BTN2 = middle_N2 + scale * (1 - share_BTN1) * (2 * draws_BTN3[..., 1:] - 1)
        placed = make_placement(center_BTN2.flatten(0, 2), center_BTN2.new_zeros(()), scale * share_BTN1.flatten())
        placement_KN23 = placed.unflatten(0, (-1, self.num_nodes))
        cut_KCNPP = crop_squares_of(frames_BTCHW.flatten(0, 1), placement_KN23, side_px)
        return cut_KCNPP.unflatten(0, frames_BTCHW.shape[:2]).transpose(1, 2).flatten(2, 3)

    def embed(self, batch: Mapping[str, Any], backbone: Backbone) -> Tensor:
        """What is compared, of length 1 at every node of every frame: float32 (B, T, D, N)."""
        frames_BCTHW = batch["frames"]
        shown = batch["patches"] if self.config.nodes == "patches" else frames_BCTHW
        map_KDhw = one_by_one(shown, backbone, self.stage)
        if self.config.nodes == "patches":
            vectors_KND = map_KDhw.mean(dim=(2, 3)).unflatten(0, (-1, self.num_nodes))
        else:
            vectors_KND = map_KDhw.flatten(2).transpose(1, 2)
        embedded_KND = F.normalize(self.project(vectors_KND).float(), dim=2)
        return embedded_KND.unflatten(0, (-1, frames_BCTHW.shape[2])).transpose(2, 3)

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        c, home_BN = self.config, batch["home"]
        nodes_BTDN = self.embed(batch, backbone)
        way_BTDN = nodes_BTDN if self.training else nodes_BTDN[:, :-1]
        with torch.autocast(way_BTDN.device.type, enabled=False):
            steps = walk_steps(way_BTDN, c.temperature, batch.get("dropped"), inherited=c.dropout_inherited)
            walks = palindromes(*steps)
            loss = torch.stack([walk_nll(walk, home_BN) for walk in walks[c.shortest - 1 :]]).mean()
            metrics = {"returned": share_at(walks[-1].detach().argmax(dim=1), home_BN)}
            if self.training:
                return TaskOutput(loss=loss, metrics=metrics, extras={"there": steps[0], "end": walks[-1]})
            ends = self.walks_again(nodes_BTDN, *steps)
        metrics |= {f"accuracy{k}": share_at(end.argmax(dim=1), batch["again"]) for k, end in enumerate(ends)}
        metrics |= {"accuracy": metrics[f"accuracy{len(ends) - 1}"]} | self.blind_guesses(batch)
        return TaskOutput(loss=loss, metrics=metrics, extras={"there": steps[0], "end": ends[-1]})

    def walks_again(self, nodes_BTDN: Tensor, there: Sequence[Tensor], back: Sequence[Tensor]) -> list[Tensor]:
        """For each number of steps ahead from 0: the walk there, and back to the last frame, which is the first one again."""
        first_BDN, second_BDN, last_BDN = nodes_BTDN[:, 0], nodes_BTDN[:, 1], nodes_BTDN[:, -1]
        direct = pointer_logits(last_BDN, first_BDN, self.config.temperature).softmax(dim=1)
        home = pointer_logits(last_BDN, second_BDN, self.config.temperature).softmax(dim=1)
        return [direct, *palindromes(there, [home, *back[1:]])]

    def blind_guesses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What they reach who see no more than the mean color of a node, or stay at their place in the frame: (B,) each."""
        frames_BCTHW, side = batch["frames"], len(self.centers_G)
        if self.config.nodes == "patches":
            colors_BCK = batch["patches"].mean(dim=(3, 4))
        else:
            colors_BCK = F.adaptive_avg_pool3d(frames_BCTHW, (frames_BCTHW.shape[2], side, side)).flatten(2)
        colors_BTNC = colors_BCK.unflatten(2, (-1, self.num_nodes)).movedim(1, 3)
        guesses = {"colors": nearest_walk(colors_BTNC), "staying": torch.arange(self.num_nodes).to(batch["again"])}
        return {f"accuracy_of_{name}": share_at(ends, batch["again"]) for name, ends in guesses.items()}

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """Up to three samples, three walkers each in a color of its own: the node each most likely is at in every frame, and in the
        last picture where it ends. The small square there is where it should: in training where it began, which is the first frame;
        none where that is out of sight."""
        rows = []
        for b in range(min(_PICTURES, len(batch["frames"]))):
            frames = tiles(batch["frames"][b].transpose(0, 1), _TILE_PX)
            walkers = torch.arange(1, len(_WALKERS) + 1) * self.num_nodes // (len(_WALKERS) + 1)
            place_NN, stops = torch.eye(self.num_nodes), [walkers]
            for step_BNN in output.extras["there"]:
                place_NN = step_BNN[b].detach().float().cpu() @ place_NN
                stops.append(place_NN.argmax(dim=0)[walkers])
            ends = output.extras["end"][b].detach().float().cpu().argmax(dim=0)[walkers]
            truth = batch["home" if self.training else "again"][b].cpu()[walkers]
            shown = [self._marked(frame, stop) for frame, stop in zip(frames, stops, strict=False)]
            last = self._marked(frames[0] if self.training else frames[-1], ends)
            rows.append(row([*shown, self._marked(last, truth, small=True)], _GAP_PX))
        return {"walks": sheet(rows)}

    def _marked(self, tile: np.ndarray, nodes: Tensor, *, small: bool = False) -> np.ndarray:
        """A frame's picture with the square of each walker's node in the walker's color."""
        side_px, _ = node_px(self.config, self.backbone_info.stage(self.stage).stride_space)
        reach = _SMALL_PX if small else side_px / self.config.frame_px / 2 * len(tile)
        for node, color in zip(nodes.tolist(), _WALKERS, strict=True):
            if node != NOWHERE:
                y, x = (self.centers_G[k] * len(tile) for k in divmod(node, len(self.centers_G)))
                corners = [(x + dx * reach, y + dy * reach) for dx, dy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
                tile = outlined(tile, corners, color)
        return tile


def _problems(c: RandomWalkConfig, backbone: BackboneInfo) -> Iterable[str]:
    """What the network's maps do not allow, and walks without a loss or a choice."""
    if c.num_frames <= c.shortest:
        yield f"num_frames ({c.num_frames}) must be above shortest ({c.shortest}), the frames ahead of the shortest walk"
    stride = backbone.stage(c.stage or None).stride_space
    if c.nodes == "cells":
        yield from map_problems(c.frame_px, c.stage or None, backbone, "nodes")
    elif node_px(c, stride)[0] < backbone.min_px:
        yield f"patch_scale ({c.patch_scale:g}) gives patches of {node_px(c, stride)[0]} px, and {backbone.name} needs {backbone.min_px}"
    if len(node_centers(c, stride)) < 2:
        what = (
            f"frame_px ({c.frame_px}) must be at least {2 * stride}"
            if c.nodes == "cells"
            else f"patch_scale ({c.patch_scale:g}) must be below 1"
        )
        yield f"{what}, or there is a single node to walk to"
    if backbone.min_frames > 1:
        yield f"frames are shown one by one, and backbone {backbone.name} needs {backbone.min_frames} of them; take another input"
