"""Where in space or in time does each of these four cuboids of a video belong?

Self-Supervised Video Representation Learning with Space-Time Cubic Puzzles (Kim, Cho, Kweon, AAAI 2019, arXiv 1811.09795).
We had no code of the authors; the sources of each number are in ``docs/tasks/cubic_puzzle.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.bounds import AtLeast, BelowOne, OneOf, Share, check_options
from ssvid.orders import PairwiseHead, gather_orders, mean_squares, orders_of, pool_to_grid
from ssvid.pictures import GRAY, LIGHT, RIGHT, WRONG, row, sheet, tiles, words
from ssvid.tasks import BatchRandom, PretextTask, register_task
from ssvid.transforms import Box, Cut, CutFirst, Cuts, center_square, random_square
from ssvid.types import RGB_CHANNELS, ClipPlan, TaskOutput, VideoInfo
from ssvid.video.sampling import clip_indices, clip_span, random_clip

SPACE, TIME = AXES = 0, 1
AXIS_NAMES = ("space", "time")
NUM_CUBOIDS = 4
# Row number c: the place at which each of the shown cuboids belongs. Places in space are 0 1 above 2 3, in time 0 to 3.
PERMUTATIONS = orders_of(NUM_CUBOIDS)
# Neighboring places that share a face, and what face: right against left, bottom against top, end against beginning.
NEIGHBORS = {"across": ((0, 1), (2, 3)), "down": ((0, 2), (1, 3)), "later": ((0, 1), (1, 2), (2, 3))}
_TILE_PX, _PICTURES, _GAP_PX = 64, 4, 4


@dataclass(frozen=True)
class CubicPuzzleConfig:
    """Options of the task. A stretch of video is cut into cells, 2 x 2 in space and 4 in time; a cuboid lies within a cell.

    axis: ``space``: the four cuboids of one time; ``time``: the four cuboids of one place; ``both``: one or the other, evenly.
    num_frames, stride_frames: of each cuboid. gap_frames: how many frames longer a cell is; the cuboid lies anywhere in it.
    cuboid_px: side of the square that a cuboid shows. cuboid_scale: its share of the cell's side; it lies anywhere in the cell,
        each cuboid by itself. 1 leaves no room.
    crop_scale: least side, as a share of the short side of the video, of the square that is cut into cells in training.
    flip: mirror half of the samples, places included.
    replicate: one color channel, drawn at random, in the place of all three: the same for a whole ``sample``, of each
        ``cuboid`` by itself, or ``off``.
    every_order: in training each puzzle is also put to the head in all 24 orders, which costs no more passes through the network;
        otherwise as it was drawn (the paper). Validation always does.
    grid: cells per side to which a cuboid's feature map is averaged before the head. head: ``joint``: one layer on all four
        together (the paper); ``pairs``: one that compares two at a time. hidden, dropout: of its layer.
    stage: backbone stage that the head sits on; "" is the last.
    """

    axis: Annotated[str, OneOf("space", "time", "both")] = "both"
    num_frames: Annotated[int, AtLeast(1)] = 16
    stride_frames: Annotated[int, AtLeast(1)] = 1
    gap_frames: Annotated[int, AtLeast(0)] = 8
    cuboid_px: Annotated[int, AtLeast(1)] = 80
    cuboid_scale: Annotated[float, Share] = 0.714
    crop_scale: Annotated[float, Share] = 0.8
    flip: bool = True
    replicate: Annotated[str, OneOf("sample", "cuboid", "off")] = "sample"
    every_order: bool = False
    grid: Annotated[int, AtLeast(1)] = 1
    head: Annotated[str, OneOf("joint", "pairs")] = "joint"
    hidden: Annotated[int, AtLeast(1)] = 512
    dropout: Annotated[float, BelowOne] = 0.5
    stage: str = ""

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which cuboids may be taken."""
        return AXES if self.axis == "both" else (AXIS_NAMES.index(self.axis),)

    @property
    def span_frames(self) -> int:
        """Frames from the first to the last of a cuboid, both counted."""
        return clip_span(self.num_frames, self.stride_frames)


# ---- sampling: pure index arithmetic ---------------------------------------------------------------------------------


def cuboid_starts(available: int, span: int, gap: int, rng: np.random.Generator) -> np.ndarray:
    """First frames of the cuboids of four cells that follow one another: int64 (4,), rising by ``span`` at least.

    The window of 4 (span + gap) frames is uniform over the video, each cuboid uniform within its cell.
    """
    cell = span + gap
    window = int(rng.integers(available - NUM_CUBOIDS * cell + 1))
    return window + cell * np.arange(NUM_CUBOIDS, dtype=np.int64) + rng.integers(gap + 1, size=NUM_CUBOIDS)


def cuboid_box(box: Box, place: int, scale: float, rng: np.random.Generator) -> Box:
    """A square within one of the 2 x 2 cells of a square: its side a share of the cell's, uniform within it."""
    top, left, side = box
    cell = max(1, side // 2)
    inner = max(1, round(scale * cell))
    down, right = (int(draw) for draw in rng.integers(cell - inner + 1, size=2))
    return top + cell * (place // 2) + down, left + cell * (place % 2) + right, inner


def mirrored_place(place: int) -> int:
    """Where a place of 2 x 2 lies in the mirror image."""
    return place ^ 1


class PuzzleClips(CutFirst):
    """Worker side: four cuboids along one axis, in the order in which they are shown."""

    def __init__(self, config: CubicPuzzleConfig, training: bool) -> None:
        self.config, self.training = config, training

    @property
    def min_frames(self) -> int:
        """Four cells in time; one cuboid where only space is puzzled."""
        c = self.config
        return NUM_CUBOIDS * (c.span_frames + c.gap_frames) if TIME in c.axes else c.span_frames

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """Views: the cuboids' frames in the order shown, along time; or the one stretch that all four are cut from.

        ``permutation``: which row of ``PERMUTATIONS`` says where each shown cuboid belongs. ``axis``: 0 space, 1 time.
        """
        c = self.config
        axis = int(rng.choice(c.axes))
        permutation = int(rng.integers(len(PERMUTATIONS)))
        if axis == TIME:
            starts_4 = cuboid_starts(video.num_frames, c.span_frames, c.gap_frames, rng)
            firsts = (int(starts_4[place]) for place in PERMUTATIONS[permutation])
            views = tuple(clip_indices(first, c.num_frames, c.stride_frames) for first in firsts)
        else:
            views = (random_clip(rng, video.num_frames, c.num_frames, c.stride_frames),)
        return ClipPlan(views, {"permutation": np.array(permutation), "axis": np.array(axis)})

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """``cuboids`` uint8 (4, T, C, cuboid_px, cuboid_px) as shown; ``permutation`` and ``axis`` as planned.

        Every cuboid lies somewhere else within its cell, also in validation: what lines up would tell.
        """
        c = self.config
        places = self._places(plan, rng)
        box = random_square(height, width, rng, c.crop_scale) if self.training else center_square(height, width)
        mirror = bool(self.training and c.flip and rng.integers(2))
        wanted = tuple(
            Cut.squares(
                min(k, len(plan.views) - 1),
                [cuboid_box(box, mirrored_place(place) if mirror else place, c.cuboid_scale, rng)],
                c.cuboid_px,
            )
            for k, place in enumerate(places)
        )
        channels_4 = self._channels(rng)

        def sample(cuts_TCHW: tuple[Tensor, ...]) -> dict[str, Tensor]:
            cuboids = torch.stack([_one_channel(clip, n) for clip, n in zip(cuts_TCHW, channels_4, strict=True)])
            targets = {name: torch.from_numpy(target) for name, target in plan.targets.items()}
            return {"cuboids": cuboids.flip(-1) if mirror else cuboids, **targets}

        return Cuts(wanted, sample)

    def _places(self, plan: ClipPlan, rng: np.random.Generator) -> list[int]:
        """The cell of the frame in which each shown cuboid lies."""
        if int(plan.targets["axis"]) == TIME:
            return [int(rng.integers(NUM_CUBOIDS))] * NUM_CUBOIDS
        return [int(place) for place in PERMUTATIONS[int(plan.targets["permutation"])]]

    def _channels(self, rng: np.random.Generator) -> list[int | None]:
        """Which channel each cuboid shows in place of all three."""
        if self.config.replicate == "off":
            return [None] * NUM_CUBOIDS
        drawn = [int(n) for n in rng.integers(RGB_CHANNELS, size=NUM_CUBOIDS)]
        return [*drawn] if self.config.replicate == "cuboid" else [drawn[0]] * NUM_CUBOIDS


def _one_channel(clip_TCHW: Tensor, channel: int | None) -> Tensor:
    return clip_TCHW if channel is None else clip_TCHW[:, channel : channel + 1].expand_as(clip_TCHW)


# ---- the loss and what needs no network ------------------------------------------------------------------------------


def puzzle_loss(logits_BK: Tensor, permutation_B: Tensor) -> Tensor:
    """-mean_b log softmax(z_b)[permutation], over the 24 permutations; in float32."""
    return F.cross_entropy(logits_BK.float(), permutation_B)


def share_of_places(guess_B: Tensor, permutation_B: Tensor) -> Tensor:
    """The share of cuboids that a guessed permutation puts where they belong, of the shape of the guesses."""
    permutations_K4 = torch.tensor(PERMUTATIONS, device=guess_B.device)
    return (permutations_K4[guess_B] == permutations_K4[permutation_B]).float().mean(dim=-1)


def in_place(features_B4D: Tensor, permutation_B: Tensor) -> Tensor:
    """Features of cuboids as they were shown -> those of the cuboid of each place, (B, 4, D)."""
    shown_K4 = torch.tensor(PERMUTATIONS.argsort(axis=1), device=permutation_B.device)
    return gather_orders(features_B4D, shown_K4[permutation_B][:, None])[:, 0]


def misfit(cuboids_B4CTHW: Tensor, axis_B: Tensor) -> Tensor:
    """How badly the faces of neighboring cuboids fit under each permutation, float (B, 24).

    The mean squared difference of the pixels of two faces that would touch: the last frame and the next cuboid's first;
    the right column and the left one, the bottom row and the top one, of all frames. Summed over neighbors.
    """
    x = cuboids_B4CTHW.float()
    later_B44 = mean_squares(x[:, :, :, -1], x[:, :, :, 0])
    across_B44 = mean_squares(x[..., -1], x[..., 0])
    down_B44 = mean_squares(x[..., -1, :], x[..., 0, :])
    in_time_BK = _arranged(later_B44, "later")
    in_space_BK = _arranged(across_B44, "across") + _arranged(down_B44, "down")
    return torch.where((axis_B == TIME).unsqueeze(1), in_time_BK, in_space_BK)


def _arranged(costs_B44: Tensor, kind: str) -> Tensor:
    """The sum over neighboring places of the costs of the cuboids that a permutation puts there, (B, 24)."""
    at_place_K4 = torch.from_numpy(PERMUTATIONS.argsort(axis=1)).to(costs_B44.device)
    pairs = [costs_B44[:, at_place_K4[:, p], at_place_K4[:, q]] for p, q in NEIGHBORS[kind]]
    return torch.stack(pairs).sum(dim=0)


# ---- the task --------------------------------------------------------------------------------------------------------


@register_task("cubic_puzzle")
class CubicPuzzle(PretextTask):
    """Where in space or in time does each of these four cuboids of a video belong? (Kim, Cho, Kweon, AAAI 2019)

    The placebo hands every sample the permutation of another video: right once in 24 times.

    Differs: what the paper does beyond jitter and one color channel is left out (turned cuboids); puzzles in space and in time
    share all but the last layer; ``grid`` and the widths of the head are options.
    """

    Config = CubicPuzzleConfig
    targets = ("permutation",)
    must_fall = ("noise",)
    must_hold = ("reencoded",)

    def __init__(self, config: CubicPuzzleConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_options("cubic_puzzle", config, _problems(config, backbone))
        self.stage = config.stage or None
        width = backbone.stage(self.stage).channels * config.grid**2
        names = [AXIS_NAMES[axis] for axis in config.axes]
        if config.head == "pairs":
            self.join: nn.Module = nn.Identity()
            sizes = {"hidden": config.hidden, "dropout": config.dropout, "pair_norm": True}
            heads = [PairwiseHead(width, NUM_CUBOIDS, len(PERMUTATIONS), **sizes) for _ in names]  # type: ignore[arg-type]
        else:
            layer = nn.Linear(NUM_CUBOIDS * width, config.hidden)
            self.join = nn.Sequential(nn.Flatten(2), layer, nn.ReLU(), nn.Dropout(config.dropout))
            heads = [nn.Linear(config.hidden, len(PERMUTATIONS)) for _ in names]  # type: ignore[misc]
        self.heads = nn.ModuleDict(dict(zip(names, heads, strict=True)))

    def chance(self) -> Mapping[str, float]:
        """All permutations are equally frequent."""
        return {"accuracy": 1 / len(PERMUTATIONS), "place_accuracy": 1 / NUM_CUBOIDS}

    def clip_maker(self, training: bool) -> PuzzleClips:
        return PuzzleClips(self.config, training)

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """``cuboids`` become float (B, 4, C, T, H, W); what is drawn was drawn when they were cut."""
        return {**batch, "cuboids": batch["cuboids"].transpose(2, 3).float().div_(255).contiguous()}

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        cuboids_B4CTHW, permutation_B, axis_B = batch["cuboids"], batch["permutation"], batch["axis"]
        map_BCTHW = backbone(cuboids_B4CTHW.flatten(0, 1), self.stage)
        features_B4D = pool_to_grid(map_BCTHW, self.config.grid).unflatten(0, (-1, NUM_CUBOIDS))
        class_BV = self._classes(permutation_B)
        order_BV4 = torch.tensor(PERMUTATIONS, device=class_BV.device)[class_BV]
        shown_BV4D = gather_orders(in_place(features_B4D, permutation_B), order_BV4)
        logits_BVK = self._logits(self.join(shown_BV4D), axis_B).float()
        guess_BV = logits_BVK.detach().argmax(dim=2)
        metrics = {
            "accuracy": (guess_BV == class_BV).float().mean(dim=1),
            "place_accuracy": share_of_places(guess_BV, class_BV).mean(dim=1),
        }
        if not self.training:  # training has no use for it
            blind_B = misfit(cuboids_B4CTHW, axis_B).argmin(dim=1)
            metrics["fit_accuracy"] = (blind_B == permutation_B).float()
            metrics["fit_place_accuracy"] = share_of_places(blind_B, permutation_B)
        as_drawn = (class_BV == permutation_B[:, None]).long().argmax(dim=1)
        logits_BK = logits_BVK.detach()[torch.arange(len(as_drawn), device=as_drawn.device), as_drawn]
        return TaskOutput(
            puzzle_loss(logits_BVK.flatten(0, 1), class_BV.flatten()), metrics, extras={"logits": logits_BK}
        )

    def _classes(self, permutation_B: Tensor) -> Tensor:
        """The orders in which each puzzle is put to the head, (B, V)."""
        if self.training and not self.config.every_order:
            return permutation_B[:, None]
        return torch.arange(len(PERMUTATIONS), device=permutation_B.device).expand(len(permutation_B), -1)

    def _logits(self, joined: Tensor, axis_B: Tensor) -> Tensor:
        """(B, V, K): each sample's from the layer of its axis; the other one gets a gradient of zero."""
        per_axis = [self.heads[AXIS_NAMES[axis]](joined) for axis in self.config.axes]
        return torch.where((axis_B == TIME).view(-1, 1, 1), per_axis[-1], per_axis[0])

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """Up to four puzzles: the cuboids as shown, then as the network puts them; framed green where one is right."""
        rows = []
        for b in range(min(_PICTURES, len(batch["cuboids"]))):
            logits_K, truth = output.extras["logits"][b].float().cpu(), int(batch["permutation"][b])
            guess, axis = int(logits_K.argmax()), AXIS_NAMES[int(batch["axis"][b])]
            blocks = _blocks(batch["cuboids"][b])
            plain = [np.pad(block, ((4, 4), (4, 4), (0, 0))) for block in blocks]
            right = PERMUTATIONS[guess] == PERMUTATIONS[truth]
            framed = [_framed(block, RIGHT if ok else WRONG) for block, ok in zip(blocks, right, strict=True)]
            arranged = [framed[k] for k in PERMUTATIONS[guess].argsort()]
            told = [
                (axis, LIGHT),
                (f"{int(right.sum())} of 4 right", RIGHT if right.all() else WRONG),
                (f"p {float(logits_K.softmax(0)[truth]):.2f} of truth", GRAY),
            ]
            rows.append(row([words(told, 130, plain[0].shape[0]), *plain, words([], 24, plain[0].shape[0]), *arranged]))
        return {"puzzles": sheet(rows)}


def _problems(config: CubicPuzzleConfig, backbone: BackboneInfo) -> Iterator[str]:
    for name, low in {"num_frames": backbone.min_frames, "cuboid_px": backbone.min_px}.items():
        if getattr(config, name) < low:
            yield f"{name} ({getattr(config, name)}) must be at least {low} for backbone {backbone.name}"


def _blocks(cuboids_4CTHW: Tensor) -> list[np.ndarray]:
    """Each cuboid as its first and its last frame side by side."""
    return [row(tiles(cuboid_CTHW[:, [0, -1]].transpose(0, 1), _TILE_PX)) for cuboid_CTHW in cuboids_4CTHW]


def _framed(block: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    framed = np.pad(block, ((_GAP_PX, _GAP_PX), (_GAP_PX, _GAP_PX), (0, 0)))
    framed[:2], framed[-2:], framed[:, :2], framed[:, -2:] = color, color, color, color
    return framed
