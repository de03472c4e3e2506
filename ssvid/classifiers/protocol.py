"""What a fine-tuned number depends on besides the weights and the videos: plain values, checked before a video is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from ssvid.bounds import AtLeast, BelowOne, Between, OneOf, Positive, Share, check, told
from ssvid.data.config import LoaderConfig
from ssvid.errors import did_you_mean
from ssvid.features.protocol import FRAMES, FeatureProtocol, sides, size_problems
from ssvid.settings import ROUNDING
from ssvid.train.config import OptimConfig

if TYPE_CHECKING:
    from ssvid.backbones import BackboneInfo


@dataclass(frozen=True)
class FinetuneProtocol:
    """How a network is trained on labels, how its best epoch is chosen, and how it is tested.

    frozen: only the head learns; the backbone stays in evaluation mode, batch statistics included. This is the linear
        probe with augmentation (head "linear") or the attentive probe (head "attentive").
    head: "linear" on the mean over time and space, or "attentive", one cross-attention block with a learned query.
    head_norm: of the vectors before a linear head: "none", "batch", or "l2_batch" (length 1, then batch normalization).
    stage: whose map the head takes; "" is the deepest that pretraining trained. dropout: before the last layer.

    num_frames, stride_frames: of each clip; a video that is shorter has its last frame repeated, and is listed.
    frames: in training and in the test, "video"; "single_frame" repeats the middle frame of each clip, "shuffled" puts its
        frames in a random order: what can be reached without time, for rows beside.
    resize_px: short side before a crop by place; 0 is 8/7 of the crop. crop_px: side; 0 is the backbone's own ``size``.
    crop: in training: "area" (random area and aspect ratio), "place" (random place, fixed scale) or "center".
    min_area, max_aspect: of crops by area. flip: mirror half of the clips.
    jitter: strengths of brightness, contrast, saturation, hue, one draw a clip. jitter_probability: of any.
    mixup_alpha: mix pairs of clips and of labels with a weight from Beta(alpha, alpha); 0 is off.
    label_smoothing: share of the target that is spread over all classes.

    epochs: passes over the training videos, one clip of each. batch_size: clips per step over all devices.
    optimizer: "sgd", "adam" or "adamw". momentum: of sgd. base_lr: times batch_size / 256 it is the learning rate.
    head_lr_factor: the head learns so many times as fast. layer_decay: the k-th stage below the head learns at
        layer_decay ** k times the rate (k = 1 is the stage that the head takes).
    weight_decay: not on biases and normalization. grad_clip_norm: 0 is off. warmup_epochs: linear, from 0.
    schedule: "cosine" to 0, "step" or "constant". milestones: epochs at which "step" lowers the rate. gamma: by what factor.

    holdout_fraction: share of train held out to choose the epoch on, groups kept together; 0 takes the last epoch.
    every_epochs: between scorings of the held-out part. holdout_clips: clips of each held-out video, center crops.
    refit: with the number of epochs so chosen, train once more on all of train.

    num_clips, num_crops: views of a test video: clips spread evenly, times 1 (center), 3 (along the longer side) or 10
        (corners, center and their mirror images) crops. averaging: of a video's views: "softmax" or "logits".
    views_per_pass: at most so many at once.
    """

    frozen: bool = False
    head: Annotated[str, OneOf("linear", "attentive")] = "linear"
    head_norm: Annotated[str, OneOf("none", "batch", "l2_batch")] = "none"
    stage: str = ""
    dropout: Annotated[float, BelowOne] = 0.5

    num_frames: Annotated[int, AtLeast(1)] = 16
    stride_frames: Annotated[int, AtLeast(1)] = 1
    frames: Annotated[str, OneOf(*FRAMES)] = FRAMES[0]
    resize_px: Annotated[int, AtLeast(0)] = 0
    crop_px: Annotated[int, AtLeast(0)] = 0
    crop: Annotated[str, OneOf("area", "place", "center")] = "area"
    min_area: Annotated[float, Share] = 0.25
    max_aspect: Annotated[float, AtLeast(1)] = 1.3333
    flip: bool = True
    jitter: Annotated[tuple[float, float, float, float], AtLeast(0)] = (0.0, 0.0, 0.0, 0.0)
    jitter_probability: Annotated[float, Between(0, 1)] = 0.8
    mixup_alpha: Annotated[float, AtLeast(0)] = 0.0
    label_smoothing: Annotated[float, BelowOne] = 0.0

    epochs: Annotated[int, AtLeast(1)] = 50
    batch_size: Annotated[int, AtLeast(1)] = 32
    optimizer: Annotated[str, OneOf("sgd", "adam", "adamw")] = "sgd"
    momentum: Annotated[float, BelowOne] = 0.9
    base_lr: Annotated[float, Positive] = 0.1
    head_lr_factor: Annotated[float, Positive] = 1.0
    layer_decay: Annotated[float, Share] = 1.0
    weight_decay: Annotated[float, AtLeast(0)] = 1e-4
    grad_clip_norm: Annotated[float, AtLeast(0)] = 0.0
    warmup_epochs: Annotated[float, AtLeast(0)] = 0.0
    schedule: Annotated[str, OneOf("cosine", "step", "constant")] = "cosine"
    milestones: Annotated[tuple[int, ...], AtLeast(0)] = ()
    gamma: Annotated[float, Positive] = 0.1

    holdout_fraction: Annotated[float, Between(0, 0.5)] = 0.1
    every_epochs: Annotated[int, AtLeast(1)] = 1
    holdout_clips: Annotated[int, AtLeast(1)] = 1
    refit: bool = False

    num_clips: Annotated[int, AtLeast(1)] = 10
    num_crops: Annotated[int, OneOf(1, 3, 10)] = 1
    averaging: Annotated[str, OneOf("softmax", "logits")] = "softmax"
    views_per_pass: Annotated[int, AtLeast(1)] = field(default=10, metadata=ROUNDING)

    @property
    def metric(self) -> str:
        """What names of metrics start with: what was trained."""
        return self.head if self.frozen else "finetune"

    @property
    def learning_rate(self) -> float:
        """base_lr * batch_size / 256, before the factors of head and stages."""
        return self.base_lr * self.batch_size / 256

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for results."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def resolve_finetune_protocol(
    protocol: FinetuneProtocol, info: BackboneInfo, trained_stage: str | None = None
) -> FinetuneProtocol:
    """The protocol with every automatic value filled in for this backbone.

    Args:
        trained_stage: the deepest stage that pretraining trained; None where all are (or none is).

    Raises:
        RecipeError: values that make no sense or that the backbone cannot take; all of them at once.
    """
    crop_px, resize_px = sides(protocol.crop_px, protocol.resize_px, info)
    trained = trained_stage or info.stage_names[-1]
    filled = replace(protocol, crop_px=crop_px, resize_px=resize_px, stage=protocol.stage or trained)
    problems = [
        *size_problems(filled, info, "finetune."),
        *_combinations(filled),
        *_stage_problem(filled, info, trained),
    ]
    check(filled, "finetune.", problems)
    return filled


def clip_reading(protocol: FinetuneProtocol, loader: LoaderConfig) -> FeatureProtocol:
    """How the clips of a test video are read, in the words of frozen features."""
    p = protocol
    return FeatureProtocol(
        num_frames=p.num_frames,
        stride_frames=p.stride_frames,
        num_clips=p.num_clips,
        frames=p.frames,
        resize_px=p.resize_px,
        crop_px=p.crop_px,
        stages=p.stage,
        untrained_stage=True,
        decoder=loader.decoder,
        workers=loader.workers_per_device,
        timeout_seconds=loader.timeout_seconds,
    )


def optim_config(protocol: FinetuneProtocol) -> OptimConfig:
    """The same in the words of the trainer, for its schedule and its gradient clipping."""
    p = protocol
    return OptimConfig(
        name=p.optimizer,
        base_lr=p.base_lr,
        epochs=p.epochs,
        warmup_epochs=p.warmup_epochs,
        schedule=p.schedule,
        step_epochs=list(p.milestones),
        step_gamma=p.gamma,
        weight_decay=p.weight_decay,
        momentum=p.momentum,
        grad_clip_norm=p.grad_clip_norm,
    )


def _combinations(p: FinetuneProtocol) -> Iterator[str]:
    """Values that do not fit, or do nothing, beside another one."""
    milestones = (not p.milestones) != (p.schedule == "step")
    warmup = f"must lie between 0 and the epochs, {p.epochs}"
    checks: list[tuple[str, bool, str, Any]] = [
        ("jitter", p.jitter[3] <= 0.5, "must have a hue of at most 0.5", [0, 0, 0, 0]),
        ("warmup_epochs", p.warmup_epochs <= p.epochs, warmup, f"{p.epochs / 10:g}"),
        ("milestones", milestones, "belong to finetune.schedule=step, and to it alone", [] if p.milestones else [30]),
        ("head_norm", p.head_norm == "none" or p.head == "linear", "is for finetune.head=linear", "none"),
        ("layer_decay", p.layer_decay == 1 or not p.frozen, "does nothing where finetune.frozen is true", 1),
        ("refit", not p.refit or p.holdout_fraction > 0, "needs a held-out part to choose the epochs on", "false"),
    ]
    for name, fine, rule, way_out in checks:
        if not fine:
            yield told(f"finetune.{name}", getattr(p, name), rule, way_out)


def _stage_problem(p: FinetuneProtocol, info: BackboneInfo, trained: str) -> list[str]:
    if p.stage not in info.stage_names:
        meant = did_you_mean(p.stage, info.stage_names)
        return [f"finetune.stage: backbone {info.name} has no stage {p.stage!r}. {meant}"]
    if p.frozen and info.depth(p.stage) > info.depth(trained):
        return [
            f"finetune.stage ({p.stage}) must not be deeper than the deepest trained stage, {trained}, where the backbone is "
            f"frozen: what lies beyond it was never trained. Set finetune.stage={trained}, or finetune.frozen=false to "
            "train it now."
        ]
    return []
