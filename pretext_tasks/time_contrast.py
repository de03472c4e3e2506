"""Which of these moments of a video is this one, seen another way?

TCLR: Temporal Contrastive Learning for Video Representation (Dave et al., CVIU 2022, arXiv 2101.07974). The sources of each
number are in ``docs/tasks/time_contrast.md``. P is the number of parts of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.bounds import AtLeast, Between, OneOf, Positive, Share, check_options
from ssvid.contrast import info_nce, nt_xent
from ssvid.errors import RecipeError
from ssvid.pictures import LIGHT, RIGHT, WRONG, outlined, row, sheet, tiles, words
from ssvid.tasks import BatchRandom, PretextTask, permute_targets, register_task, videos_of
from ssvid.transforms import Cut, CutFirst, Cuts, random_square
from ssvid.transforms.color import jitter_clip, random_jitter
from ssvid.types import ClipPlan, TaskOutput, VideoInfo
from ssvid.video.sampling import clip_indices, clip_span

_TIE = 1e-5  # cosines that are nearer to each other than this are alike
_LEAST_CHANGE = 1e-3  # of colors in [0, 1]: what varies less over a window is no cue
_TILE_PX, _TILES_PER_PART, _PICTURES, _WORDS_PX, _LINES_PX, _GAP_PX = 64, 2, 4, 150, 28, 6


@dataclass(frozen=True)
class TimeContrastConfig:
    """Options of the task.

    num_parts: parts of a window, P, one after the other. num_frames: frames T of each of them, and of the whole window where
        every P-th of its frames is taken. stride_frames: from one frame of a part to the next, in frames of the video.
    frame_px: side of the square clip. crop_scale: least side of the square that is cut out, as a share of the short side of
        the video. flip: mirror half of the looks.
    jitter: how far brightness, contrast, saturation and hue change. jitter_prob: how often they do. Squares, flips and colors
        are drawn once for each look at a window.
    instance_weight, local_weight, global_weight: of the three losses; 0 leaves one out. temperature: divisor of cosines.
    hidden_channels, embed_channels: widths of the head.
    space_pool: ``mean`` or ``max`` over space.
    stage: backbone stage that the head sits on; "" is the last.
    """

    num_parts: Annotated[int, AtLeast(2)] = 4
    num_frames: Annotated[int, AtLeast(2)] = 16
    stride_frames: Annotated[int, AtLeast(1)] = 1
    frame_px: Annotated[int, AtLeast(1)] = 112
    crop_scale: Annotated[float, Share] = 0.6
    flip: bool = True
    jitter: Annotated[tuple[float, float, float, float], Between(0, 1)] = (0.25, 0.25, 0.25, 0.1)
    jitter_prob: Annotated[float, Between(0, 1)] = 0.8
    instance_weight: Annotated[float, AtLeast(0)] = 1.0
    local_weight: Annotated[float, AtLeast(0)] = 1.0
    global_weight: Annotated[float, AtLeast(0)] = 1.0
    temperature: Annotated[float, Positive] = 0.1
    hidden_channels: Annotated[int, AtLeast(1)] = 512
    embed_channels: Annotated[int, AtLeast(1)] = 128
    space_pool: Annotated[str, OneOf("mean", "max")] = "mean"
    stage: str = ""

    @property
    def window_frames(self) -> int:
        """Frames of a look: those of all parts."""
        return self.num_parts * self.num_frames


class WindowLooks(CutFirst):
    """Worker side: one window of a video, cut out in two squares, and the order in which the second look's parts are shown."""

    def __init__(self, config: TimeContrastConfig) -> None:
        self.config = config

    @property
    def min_frames(self) -> int:
        """Those of a window, from its first frame to its last."""
        return clip_span(self.config.window_frames, self.config.stride_frames)

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """Views: the same frames twice.

        Targets: ``shown`` (P,), which part of the second look stands at each place; ``order``, the same as the answer.
        """
        start = int(rng.integers(video.num_frames - self.min_frames + 1))
        frames_T = clip_indices(start, self.config.window_frames, self.config.stride_frames)
        shown_P = rng.permutation(self.config.num_parts)
        return ClipPlan((frames_T, frames_T), {"shown": shown_P, "order": shown_P.copy()})

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """``looks`` uint8 (2, P * T, C, frame_px, frame_px), one square for all frames of a look; the targets."""
        boxes = [random_square(height, width, rng, self.config.crop_scale) for _ in plan.views]
        wanted = tuple(Cut.squares(view, [box], self.config.frame_px) for view, box in enumerate(boxes))
        targets = {name: torch.from_numpy(target) for name, target in plan.targets.items()}
        return Cuts(wanted, lambda looks_TCHW: {"looks": torch.stack(looks_TCHW), **targets})


# ---- clips, slots and losses -----------------------------------------------------------------------------------------


def clips_of(looks_BVCTHW: Tensor, num_parts: int) -> Tensor:
    """The clips of each look, (B, V, 1 + P, C, T, H, W): the whole window, every P-th of its frames, and then its parts."""
    whole_BV1CTHW = looks_BVCTHW[:, :, :, ::num_parts].unsqueeze(2)
    parts_BVPCTHW = looks_BVCTHW.unflatten(3, (num_parts, -1)).movedim(3, 2)
    return torch.cat([whole_BV1CTHW, parts_BVPCTHW], dim=2)


def time_slots(map_NDT: Tensor, num_slots: int) -> Tensor:
    """Means over so many stretches of time, (N, num_slots, D): the i-th from cell floor(i T / num_slots) up to, and without,
    ceil((i + 1) T / num_slots).

    Raises:
        RecipeError: there are fewer cells in time.
    """
    num_cells = map_NDT.shape[2]
    if num_cells < num_slots:
        raise RecipeError(_too_few_cells(num_slots, num_cells))
    ends = [(i * num_cells // num_slots, -(-(i + 1) * num_cells // num_slots)) for i in range(num_slots)]
    return torch.stack([map_NDT[:, :, low:high].mean(dim=2) for low, high in ends], dim=1)


def _too_few_cells(num_parts: int, num_cells: int) -> str:
    return (
        f"num_parts ({num_parts}) must be at most {num_cells}, the cells in time of the whole window's map. Lower num_parts, raise "
        "num_frames, or take a network with a smaller stride in time (backbone.options.stride_time, where it has it)"
    )


def local_loss(one_BPD: Tensor, two_BPD: Tensor, temperature: float) -> Tensor:
    """-log(exp s+ / (exp s+ + sum of exp s-)) of each part in each look, mean over all (Dave 2022, local-local loss).

    s is the cosine over the temperature, s+ that to the same part in the other look, s- those to the other parts of the same
    window in both looks.
    """
    one_BPD, two_BPD = F.normalize(one_BPD, dim=2), F.normalize(two_BPD, dim=2)
    both_BND = torch.cat([one_BPD, two_BPD], dim=1)
    is_other_PN = ~torch.eye(one_BPD.shape[1], dtype=torch.bool, device=one_BPD.device).repeat(1, 2)
    positive_BP = (one_BPD * two_BPD).sum(dim=2) / temperature
    is_other_MN = is_other_PN.repeat(len(one_BPD), 1)
    losses = []
    for look_BPD in (one_BPD, two_BPD):
        to_others_BPN = look_BPD @ both_BND.transpose(1, 2) / temperature
        losses.append(info_nce(positive_BP.reshape(-1, 1), to_others_BPN.flatten(0, 1), is_other_MN))
    return (losses[0] + losses[1]) / 2


def matching_loss(one_BPD: Tensor, two_BPD: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of which of the P of one set belongs to each of the other, in both directions (Dave 2022, global-local loss).

    L = -mean_t (log softmax_u(s_tu)[t] + log softmax_u(s_ut)[t]) / 2, s the cosine over the temperature.
    """
    similarity_BPP = cosines(one_BPD, two_BPD) / temperature
    time_M = torch.arange(similarity_BPP.shape[1], device=similarity_BPP.device).repeat(len(similarity_BPP))
    rows, columns = similarity_BPP, similarity_BPP.transpose(1, 2)
    return (F.cross_entropy(rows.flatten(0, 1), time_M) + F.cross_entropy(columns.flatten(0, 1), time_M)) / 2


def cosines(one_BPD: Tensor, two_BPD: Tensor) -> Tensor:
    """Of each part of one set with each of the other, (B, P, P)."""
    return F.normalize(one_BPD, dim=2) @ F.normalize(two_BPD, dim=2).transpose(1, 2)


def share_matched(similarity_BPP: Tensor) -> Tensor:
    """How often the most similar one is of the same time, over rows and columns, (B,); of n that are alike, each counts 1 / n."""
    directions = (similarity_BPP, similarity_BPP.transpose(1, 2))
    return torch.stack([_matched(one).mean(dim=1) for one in directions]).mean(dim=0)


def _matched(similarity_BPP: Tensor) -> Tensor:
    is_nearest_BPP = similarity_BPP >= similarity_BPP.amax(dim=2, keepdim=True) - _TIE
    return is_nearest_BPP.diagonal(dim1=1, dim2=2).float() / is_nearest_BPP.sum(dim=2)


def guess_from_color(parts_BPCTHW: Tensor, others_BPCTHW: Tensor) -> Tensor:
    """A guess without a network, (B, P, P): how alike the mean colors are, each against the mean of its look."""
    return -_apart(*(parts.mean(dim=(3, 4, 5)) for parts in (parts_BPCTHW, others_BPCTHW)))


def guess_from_change(parts_BPCTHW: Tensor, others_BPCTHW: Tensor) -> Tensor:
    """The same of how much changes from frame to frame."""
    return -_apart(
        *(parts.diff(dim=3).abs().mean(dim=(2, 3, 4, 5)).unsqueeze(2) for parts in (parts_BPCTHW, others_BPCTHW))
    )


def _apart(one_BPC: Tensor, two_BPC: Tensor) -> Tensor:
    """Distances of what differs from part to part, brought to one size in both looks, so that brightness and contrast of a
    look do not matter."""
    centered = [x - x.mean(dim=1, keepdim=True) for x in (one_BPC.float(), two_BPC.float())]
    scaled = [x / x.flatten(1).norm(dim=1).clamp(min=_LEAST_CHANGE).view(-1, 1, 1) for x in centered]
    return (scaled[0].unsqueeze(2) - scaled[1].unsqueeze(1)).norm(dim=3)


# ---- the task --------------------------------------------------------------------------------------------------------


class Embedded(NamedTuple):
    """What the head makes of both looks: of the whole window (B, 2, D), of its parts, and of its slots (B, 2, P, D)."""

    whole_B2D: Tensor
    parts_B2PD: Tensor
    slots_B2PD: Tensor


@register_task("time_contrast")
class TimeContrast(PretextTask):
    """Find the same moment of a window in another look at it (TCLR, Dave et al., CVIU 2022)

    The second look's parts are shown in a drawn order, and the loss reaches the times that belong together through the answer,
    ``order``, alone. The placebo hands every sample the order of another video, and as its own window that of this video.

    Differs: squares, flips and colors are drawn for each look, not for each clip; instances are told apart by whole windows
    alone; slots and parts are compared across looks; losses are means.
    """

    Config = TimeContrastConfig
    must_fall = ("static", "noise")
    must_hold = ("reencoded",)

    def __init__(self, config: TimeContrastConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_options("time_contrast", config, _problems(config, backbone))
        self.stage = config.stage or None
        channels, hidden, width = backbone.stage(self.stage).channels, config.hidden_channels, config.embed_channels
        self.head = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, width, bias=False),
            nn.BatchNorm1d(width),
        )

    def chance(self) -> Mapping[str, float]:
        """Any of the parts."""
        return {"accuracy": 1 / self.config.num_parts, "global_accuracy": 1 / self.config.num_parts}

    def clip_maker(self, training: bool) -> WindowLooks:
        """Two squares are drawn in validation as in training: of one and the same, pixels would tell the time."""
        return WindowLooks(self.config)

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """Flips and colors per look. ``looks`` become float (B, 2, C, P * T, H, W); ``partner`` (B,) is whose window each gets."""
        looks_BVCTHW = batch["looks"].transpose(2, 3).float().div_(255)
        varied = [
            torch.stack([self._vary(look, r) for look in looks])
            for looks, r in zip(looks_BVCTHW, rng.samples, strict=True)
        ]
        partner_B = torch.arange(len(varied), device=looks_BVCTHW.device)
        return {**batch, "looks": torch.stack(varied).contiguous(), "partner": partner_B}

    def _vary(self, look_CTHW: Tensor, rng: np.random.Generator) -> Tensor:
        if self.config.flip and rng.integers(2):
            look_CTHW = look_CTHW.flip(-1)
        return jitter_clip(look_CTHW, random_jitter(self.config.jitter, self.config.jitter_prob, rng))

    def placebo(self, batch: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Every sample gets the order of another video, and that video's window as its own."""
        return permute_targets(batch, ["order", "partner"], rng)

    def embed(self, looks_BVCTHW: Tensor, backbone: Backbone) -> Embedded:
        """All clips go through network and head in one pass, so that no statistics of a batch belong to one time."""
        num_parts = self.config.num_parts
        clips_BVNCTHW = clips_of(looks_BVCTHW, num_parts)
        map_MDTHW = backbone(clips_BVNCTHW.flatten(0, 2), self.stage)
        map_MDT = map_MDTHW.amax(dim=(3, 4)) if self.config.space_pool == "max" else map_MDTHW.mean(dim=(3, 4))
        map_BVNDT = map_MDT.unflatten(0, clips_BVNCTHW.shape[:3])
        slots_BVPD = time_slots(map_BVNDT[:, :, 0].flatten(0, 1), num_parts).unflatten(0, clips_BVNCTHW.shape[:2])
        vectors_BVND = torch.cat([map_BVNDT.mean(dim=4), slots_BVPD], dim=2)
        embedded = self.head(vectors_BVND.flatten(0, 2)).float().unflatten(0, vectors_BVND.shape[:3])
        whole, parts, slots = embedded.split([1, num_parts, num_parts], dim=2)
        return Embedded(whole.squeeze(2), parts, slots)

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        found, c = self.embed(batch["looks"], backbone), self.config
        of_time_BP = claimed_parts(batch["shown"], batch["order"])
        parts = found.parts_B2PD[:, 0], in_order(found.parts_B2PD[:, 1], of_time_BP)
        slots = found.slots_B2PD[:, 0], in_order(found.slots_B2PD[:, 1], of_time_BP)
        across = ((slots[0], parts[1]), (slots[1], parts[0]))
        with torch.autocast(found.whole_B2D.device.type, enabled=False):
            loss = found.whole_B2D.new_zeros(())
            if c.instance_weight:
                loss = loss + c.instance_weight * self._instances(found.whole_B2D, batch)
            if c.local_weight:
                loss = loss + c.local_weight * local_loss(*parts, c.temperature)
            if c.global_weight:
                matched = [matching_loss(*pair, c.temperature) for pair in across]
                loss = loss + c.global_weight * (matched[0] + matched[1]) / 2
            similarity_BPP = cosines(*parts).detach()
            global_B = torch.stack([share_matched(cosines(*pair).detach()) for pair in across]).mean(dim=0)
        metrics = {"accuracy": share_matched(similarity_BPP), "global_accuracy": global_B}
        if not self.training:
            metrics |= self._blind_guesses(batch["looks"], of_time_BP)
        return TaskOutput(loss=loss, metrics=metrics, extras={"similarity": similarity_BPP, "of_time": of_time_BP})

    def _instances(self, whole_B2D: Tensor, batch: Mapping[str, Any]) -> Tensor:
        videos_B = torch.from_numpy(videos_of(batch, len(whole_B2D))).to(whole_B2D.device)
        return nt_xent(whole_B2D[:, 0], whole_B2D[batch["partner"], 1], videos_B, self.config.temperature)

    def _blind_guesses(self, looks_BVCTHW: Tensor, of_time_BP: Tensor) -> dict[str, Tensor]:
        """What mean colors and the amount of change alone score."""
        parts_BVPCTHW = clips_of(looks_BVCTHW, self.config.num_parts)[:, :, 1:]
        looks = parts_BVPCTHW[:, 0], in_order(parts_BVPCTHW[:, 1], of_time_BP)
        guesses = {"color_accuracy": guess_from_color, "change_accuracy": guess_from_change}
        return {name: share_matched(guess(*looks)) for name, guess in guesses.items()}

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """Up to four samples: the parts of both looks, one below the other in the order of time. A line leads from each part of
        the first look to that of the second which is nearest to it: green and upright where it is the same, else red."""
        rows = []
        for b in range(min(_PICTURES, len(batch["looks"]))):
            nearest_P = output.extras["similarity"][b].argmax(dim=1).tolist()
            one_CTHW, two_CTHW = batch["looks"][b]
            parts_PCTHW = in_order(
                clips_of(two_CTHW[None, None], self.config.num_parts)[0, :, 1:], output.extras["of_time"][b : b + 1]
            )
            two_CTHW = parts_PCTHW[0].movedim(0, 1).flatten(1, 2)
            right = sum(said == t for t, said in enumerate(nearest_P))
            told = [
                (f"{right} of {len(nearest_P)} parts", RIGHT if right == len(nearest_P) else WRONG),
                ("found again", LIGHT),
            ]
            rows += [
                self._look(one_CTHW, [("first look", LIGHT)]),
                _lines(nearest_P),
                self._look(two_CTHW, [("second look", LIGHT), *told]),
            ]
            rows.append(np.zeros((2 * _GAP_PX, rows[-1].shape[1], 3), dtype=np.uint8))
        return {"parts": sheet(rows)}

    def _look(self, look_CTHW: Tensor, told: list[tuple[str, tuple[int, int, int]]]) -> np.ndarray:
        """Some frames of each part, a gap between parts."""
        places = np.linspace(0, self.config.num_frames - 1, _TILES_PER_PART).round().astype(int)
        parts = look_CTHW.transpose(0, 1).unflatten(0, (self.config.num_parts, -1))[:, torch.from_numpy(places)]
        pictures = [np.pad(row(tiles(part, _TILE_PX)), ((0, 0), (0, _GAP_PX), (0, 0))) for part in parts]
        return row([words(told, _WORDS_PX, _TILE_PX), *pictures])


def claimed_parts(shown_BP: Tensor, order_BP: Tensor) -> Tensor:
    """Which part is shown at the place that the answer ``order`` says to be of time t, int64 (B, P): t itself where it is right."""
    return shown_BP.gather(1, order_BP.argsort(dim=1))


def in_order(parts_BP: Tensor, of_time_BP: Tensor) -> Tensor:
    """The parts (B, P, ...) as those of time 0, 1, ..."""
    index_BP = of_time_BP.view(*of_time_BP.shape, *[1] * (parts_BP.ndim - 2))
    return parts_BP.take_along_dim(index_BP, dim=1)


def _lines(nearest_P: list[int]) -> np.ndarray:
    """A strip with a line from the middle of each part above to that of its nearest below."""
    part_px = _TILES_PER_PART * _TILE_PX + _GAP_PX
    strip = np.zeros((_LINES_PX, _WORDS_PX + len(nearest_P) * part_px, 3), dtype=np.uint8)
    middles = [_WORDS_PX + t * part_px + (part_px - _GAP_PX) // 2 for t in range(len(nearest_P))]
    for t, said in enumerate(nearest_P):
        strip = outlined(strip, [(middles[t], 4), (middles[said], _LINES_PX - 1)], RIGHT if said == t else WRONG)
    return strip


def _problems(config: TimeContrastConfig, backbone: BackboneInfo) -> Iterator[str]:
    for name, low in {"num_frames": backbone.min_frames, "frame_px": backbone.min_px}.items():
        if getattr(config, name) < low:
            yield f"{name} ({getattr(config, name)}) must be at least {low} for backbone {backbone.name}"
    if backbone.max_frames is not None and config.num_frames > backbone.max_frames:
        yield f"num_frames ({config.num_frames}) must be at most {backbone.max_frames}, the most that backbone {backbone.name} takes"
    num_cells = -(-config.num_frames // backbone.stage(config.stage or None).stride_time)
    if num_cells < config.num_parts:
        yield _too_few_cells(config.num_parts, num_cells)
    if not (config.instance_weight or config.local_weight or config.global_weight):
        yield f"local_weight ({config.local_weight}) must be above 0, or instance_weight, or global_weight: nothing would be learned"
