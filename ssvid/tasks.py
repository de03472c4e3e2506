"""The door through which every pretext task comes in: the base class, the registry, the placebo.

A task is one file on a shelf (``pretext_tasks/`` is ours). It says which frames it needs (``clip_maker``), how a batch
is augmented on the device (``augment``), and what is lost (``forward``). It is handed the backbone and never owns it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.errors import DataError
from ssvid.registry import Registry
from ssvid.types import RGB, ClipMaker, Stream, TaskOutput, Ticket, batch_rng, sample_rng

if TYPE_CHECKING:
    from torchmetrics import Metric

    from ssvid.backbones import Backbone, BackboneInfo

tasks = Registry("task", "ssvid.tasks")
register_task = tasks.register


def list_tasks(pattern: str = "*") -> list[str]:
    """Names of the registered tasks that match a shell pattern, sorted; other packages' too."""
    return fnmatch.filter(tasks.names(), pattern)


@dataclass(frozen=True)
class BatchRandom:
    """The random draws of one batch on the device, addressed by its tickets: the same for any number of ranks.

    shared: one generator for the whole global batch, alike on all ranks and micro-batches.
    samples: one generator per sample of this rank's batch, in batch order.
    """

    shared: np.random.Generator
    samples: Sequence[np.random.Generator]

    @classmethod
    def of(cls, seed: int, tickets: Sequence[Ticket]) -> BatchRandom:
        """Draws for a batch. They differ from the workers' draws: the stream is AUGMENT, the first word is salted."""
        salted = [t._replace(stream=int(Stream.AUGMENT) + 16 * int(t.stream)) for t in tickets]
        return cls(batch_rng(seed, salted[0]), [sample_rng(seed, t) for t in salted])


@dataclass(frozen=True)
class ClipQuestion:
    """What a task with one logit per clip can be asked about any stretch of any video.

    says: what a high probability says of a stretch ("sped up"). otherwise: what a low one says ("at its natural speed").
    num_frames: frames of a clip, as in validation; others must be multiples of ``multiple``. size_px: short side of the frames.
    is_speed: whether the probability rises with the speed at which a video is played, so that a video can be sped up by it.
    """

    says: str
    otherwise: str
    num_frames: int
    size_px: int
    is_speed: bool = False
    multiple: int = 1


class ClipAnswer(NamedTuple):
    """What a task says of each clip, and from where in it: float32, T, H, W the cells of the map that its head sees.

    logits_B: above 0 says ``ClipQuestion.says``. bias: the part of each logit that no cell gives.
    exact_BTHW: the part of the logit that a cell gives: the sum over space, then the mean over time, plus ``bias`` is the logit.
    local_BTHW: the logit as it would be if the whole clip were as this cell.
    strength_BTHW: how much there is at this cell to judge by, at least 0.
    """

    logits_B: Tensor
    bias: float
    exact_BTHW: Tensor
    local_BTHW: Tensor
    strength_BTHW: Tensor


class PretextTask(nn.Module):
    """A way to learn from unlabeled video. Subclasses are registered with ``@register_task(name)``.

    Class attributes:
        Config: frozen dataclass of the task's options, with legal values on its fields (``ssvid.bounds``).
        targets: names of what the loss is measured against; ``placebo`` changes exactly these.
        targets_per_view: targets have axes (B, V, ...) and a view can take any view's target.
        num_classes: where the answer is one of so many classes, numbered from 0, that are not equally frequent: a placebo
            draws it evenly among them. 0: a placebo takes it from another video.
        smaller_is_better: metrics of which less is better, names or shell patterns ("*error*"). The loss is one always, and
            a torchmetrics metric that says so of itself; of all others more is better.
        modalities: what its clips may be made of, of "rgb" and "flow". A task that only plans, cuts, resizes and mirrors
            (``transforms.flip_clips``) can take flow, too.
        reverses_time: it plays clips backward, so that flow must be measured alike in both directions of time
            (``data.flow.symmetric``), or its errors would tell them apart.
        must_fall: names of the audit's counterfactuals under which an honest network is at chance ("static" clips).
        must_hold: names of those that must not move an honest network's metric ("reencoded" clips).
        needs_whole_batch: its loss is a statistic of the whole batch, so that micro-batches (``trainer.accumulate``) would change it.
        example_backbone: a small network that the task takes; on it the contract is checked.
        exported: name of the task's submodule ("teacher.backbone") whose weights are exported, evaluated and watched in place
            of the network that is trained: a copy of it that follows it. "" is the trained network itself.
    Instance attributes:
        stage: the deepest backbone stage that the task consumes (None: the last); later stages are frozen.
    """

    Config: ClassVar[type] = type(None)
    targets: ClassVar[tuple[str, ...]] = ()
    targets_per_view: ClassVar[bool] = False
    num_classes: int = 0
    smaller_is_better: Sequence[str] = ()
    modalities: tuple[str, ...] = (RGB,)
    reverses_time: bool = False
    must_fall: ClassVar[tuple[str, ...]] = ()
    must_hold: ClassVar[tuple[str, ...]] = ()
    needs_whole_batch: bool = False
    example_backbone: ClassVar[str] = "tiny3d"
    exported: ClassVar[str] = ""
    stage: str | None = None

    def __init__(self, config: Any, backbone: BackboneInfo) -> None:
        super().__init__()
        self.config = config
        self.backbone_info = backbone

    def chance(self) -> Mapping[str, float]:
        """What a blind guess scores, per metric name."""
        raise NotImplementedError

    def clip_maker(self, training: bool) -> ClipMaker:
        """The worker-side half: plans frames and targets, crops, keeps uint8."""
        raise NotImplementedError

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        """Loss and per-sample metrics of an augmented batch."""
        raise NotImplementedError

    def exported_network(self, backbone: Backbone) -> Backbone:
        """What ``exported`` names, after ``setup``: the network that is evaluated. backbone: the one that is trained."""
        return cast("Backbone", self.get_submodule(self.exported)) if self.exported else backbone

    # ---- optional -----------------------------------------------------------------------------------------------

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """Device side, whole batch: resize, jitter, flip, uint8 to float in [0, 1]. Default: only the last."""
        return {k: v.float() / 255 if _is_uint8(v) else v for k, v in batch.items()}

    def placebo(self, batch: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The batch with wrong answers, the control row of every evaluation: no sample keeps that of its own video.

        Answers are exchanged between videos, so that each occurs as often as before (``permute_targets``). With
        ``num_classes`` they are drawn instead: right once in ``num_classes`` times, however frequent a class is.

        Raises:
            DataError: more than half of the batch is of one video.
            NotImplementedError: the task names no targets; it must override this.
        """
        if not self.targets:
            raise NotImplementedError(f"{type(self).__name__} names no targets to exchange: override placebo().")
        changed = permute_targets(batch, self.targets, rng, per_view=self.targets_per_view)
        if self.num_classes:
            changed |= {name: _draw_classes(batch[name], self.num_classes, rng) for name in self.targets}
        return changed

    def setup(self, backbone: Backbone) -> None:
        """Called once after the backbone exists and before any weight is loaded (a teacher network is built here)."""

    def prepare(self, samples: Iterable[Mapping[str, Tensor]]) -> None:
        """Measure something on training samples once, on rank 0, never on resume; leave fixed-shape buffers.

        ``samples`` are in random order, so that the first of them stand for all; iterated again, they are the same.
        """

    def after_step(self, backbone: Backbone, global_step: int) -> None:
        """Called after each optimizer step (a momentum teacher moves here)."""

    def epoch_metrics(self) -> Mapping[str, Metric]:
        """Metrics over a whole validation epoch, fed with ``TaskOutput.scores`` of the same name."""
        return {}

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """Pictures of what the task sees: name -> uint8 HWC."""
        return {}

    def clip_question(self) -> ClipQuestion | None:
        """What ``ssvid speed`` may ask the trained task of any clip; None where it does not answer clip by clip."""
        return None

    def answer(self, clips_BCTHW: Tensor, backbone: Backbone) -> ClipAnswer:
        """The answers to ``clip_question``. clips: float in [0, 1], of any length and size that the backbone takes."""
        raise NotImplementedError


def _is_uint8(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.uint8


def permute_targets(
    batch: Mapping[str, Any], names: Sequence[str], rng: np.random.Generator, *, per_view: bool = False
) -> dict[str, Any]:
    """Give every sample (or, with ``per_view``, every view of every sample) the target of another video.

    One permutation serves all names, so that targets that belong together stay together. Each target is used once.

    Raises:
        DataError: more than half of the batch is of one video.
    """
    num_samples = len(batch[names[0]])
    views = batch[names[0]].shape[1] if per_view else 1
    order = torch.from_numpy(strangers(videos_of(batch, num_samples), rng, views))
    changed = dict(batch)
    for name in names:
        target = batch[name]
        flat = target.flatten(0, 1) if per_view else target
        changed[name] = flat[order.to(target.device)].reshape(target.shape)
    return changed


def videos_of(batch: Mapping[str, Any], num_samples: int) -> np.ndarray:
    """A number for the video of each sample, int64 (B,): equal where two samples are of one video.

    From ``video_numbers``, which the data set adds; else from the samples' tickets; else each is a video of its own.
    """
    if "video_numbers" in batch:
        return batch["video_numbers"][:, 0].cpu().numpy()
    if "tickets" in batch:
        return batch["tickets"][:, Ticket._fields.index("index")].cpu().numpy()
    return np.arange(num_samples)


def strangers(videos_B: np.ndarray, rng: np.random.Generator, views: int = 1) -> np.ndarray:
    """For every view of every sample (number ``sample * views + view``) one of another video: int64 (B * views,).

    A random permutation. Views are lined up video by video, in random order, and each takes the one that stands a random
    number of places further on, at least as many as any video has: never one of its own.

    Args:
        videos_B: a number for the video of each sample.

    Raises:
        DataError: one video has more than half of the samples, so that there are too few of others.
    """
    _, video_N, counts = np.unique(np.repeat(videos_B, views), return_inverse=True, return_counts=True)
    most, total = int(counts.max()), len(video_N)
    if 2 * most > total:
        raise DataError(
            f"a placebo gives every sample the answer of another video, and {most // views} of {total // views} samples that "
            "one device sees at a time are of one video: at most half may be. Raise loader.global_batch, lower "
            "loader.clips_per_video or trainer.accumulate, or add videos."
        )
    line_N = np.lexsort((rng.random(total), rng.permutation(len(counts))[video_N]))
    order = np.empty(total, dtype=np.int64)
    order[line_N] = np.roll(line_N, -int(rng.integers(most, total - most + 1)))
    return order


def one_by_one(frames_BCTHW: Tensor, backbone: Backbone, stage: str | None) -> Tensor:
    """The stage's map of every frame, each given to the network by itself: (B * T, D, h, w), sample by sample."""
    alone = frames_BCTHW.transpose(1, 2).flatten(0, 1).unsqueeze(2)
    return backbone(alone, stage).squeeze(2)


def pooled_answer(
    map_BCTHW: Tensor, weight_C: Tensor, bias: Tensor, space_pool: str = "mean", time_pool: str = "mean"
) -> ClipAnswer:
    """The answer of a head that pools a map over space, then over time, and has one linear layer: exact, cell by cell.

    With the maximum over space a channel counts at the one place of each frame where it is largest; with the maximum over time
    in the one frame where that is largest; with a mean everywhere alike. A class activation map (Zhou et al., CVPR 2016) is
    ``local_BTHW``; it adds up to the logit where both poolings are means.

    Args:
        space_pool, time_pool: ``max`` or ``mean``.
    """
    map_BCTHW, weight_C, bias = map_BCTHW.float(), weight_C.float(), bias.float()
    B, C, T, H, W = map_BCTHW.shape
    weighted_BCTHW = map_BCTHW * weight_C.view(1, C, 1, 1, 1)
    if space_pool == "max":
        share_BCTHW = F.one_hot(map_BCTHW.flatten(3).argmax(dim=3), H * W).view(B, C, T, H, W).to(map_BCTHW)
        pooled_BCT = map_BCTHW.amax(dim=(3, 4))
    else:
        share_BCTHW = torch.full_like(map_BCTHW, 1 / (H * W))
        pooled_BCT = map_BCTHW.mean(dim=(3, 4))
    if time_pool == "max":
        at_BCT = T * F.one_hot(pooled_BCT.argmax(dim=2), T).to(map_BCTHW)
        share_BCTHW = share_BCTHW * at_BCT[..., None, None]
    exact_BTHW = (weighted_BCTHW * share_BCTHW).sum(dim=1)
    logits_B = exact_BTHW.sum(dim=(2, 3)).mean(dim=1) + bias
    local_BTHW = weighted_BCTHW.sum(dim=1) + bias
    return ClipAnswer(logits_B, float(bias), exact_BTHW, local_BTHW, weighted_BCTHW.abs().sum(dim=1))


def map_problems(frame_px: int, stage: str | None, backbone: BackboneInfo, what: str) -> Iterable[str]:
    """Why frames of this size have no map on which ``what`` (colors, patches) have a place; nothing where they have."""
    found = backbone.stage(stage)
    stride = found.stride_space
    if frame_px < 1 or frame_px % stride:
        nearest = max(1, round(frame_px / stride)) * stride
        yield f"frame_px ({frame_px}) must be a multiple of {stride}, the stride of {found.name}, such as {nearest}"
    if not backbone.full_maps:
        yield f"the maps of backbone {backbone.name} leave out the borders, so that {what} have no place on them; take another"


def _draw_classes(target: Tensor, num_classes: int, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.integers(num_classes, size=tuple(target.shape))).to(target)
