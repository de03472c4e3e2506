"""What a fine-tuned number depends on besides the weights and the videos: plain values, checked before a video is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from ssvid.bounds import AtLeast, BelowOne, Between, OneOf, Positive, Share, all_problems, check, told
from ssvid.data.config import LoaderConfig
from ssvid.errors import did_you_mean
from ssvid.features.protocol import FRAMES, FeatureProtocol, sides, size_problems
from ssvid.settings import ROUNDING, as_older
from ssvid.train.config import FinetuneOptimConfig, plan_problems
from ssvid.types import RGB_CHANNELS

if TYPE_CHECKING:
    from ssvid.backbones import BackboneInfo


# Heads over the vectors of frames, and the least number of frames of each: what brings frames together needs two.
FRAME_HEADS = {"average": 1, "late_concat": 2, "late_pool": 2, "lstm": 2, "attention": 2}
HEADS_OF_A_WIDTH = ("late_concat", "late_pool", "lstm")
HEADS_OF_LAYERS = ("lstm", "attention")


@dataclass(frozen=True)
class FinetuneSettings:
    """How a network is trained on labels, how its best epoch is chosen, and how it is tested.

    frozen: only the head learns; the backbone stays in evaluation mode, batch statistics included. This is the linear
        probe with augmentation (head "linear") or the attentive probe (head "attentive").
    head: "linear" on the mean over time and space, or "attentive", one cross-attention block with a learned query. The
        others fuse frames, and need a network that gives a map for each: "average" of the probabilities of single frames,
        "late_concat" of their vectors, "late_pool" of their vectors' mean, "lstm" over them, "attention" among them.
    head_norm: what comes before a linear head, "none", "batch", or "l2_batch" (length 1, then batch normalization).
    head_width: of the hidden layer of "late_concat" and "late_pool" (0: as wide as the map), or units of "lstm" (0: 256).
    head_layers: how many, of "lstm" and "attention".
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

    batch_size: clips per step over all devices; times it / 256, ``optim.base_lr`` is the learning rate. An epoch is one clip of
        each training video.
    head_lr_factor: the head learns so many times as fast. layer_decay: the k-th stage below the head learns at
        layer_decay ** k times the rate (k = 1 is the stage that the head takes).

    holdout_fraction: share of train held out to choose the epoch on, groups kept together; 0 takes the last epoch.
    every_epochs: between scorings of the held-out part. holdout_clips: clips of each held-out video, center crops.
    refit: with the number of epochs so chosen, train once more on all of train.

    num_clips, num_crops: views of a test video: clips spread evenly, times 1 (center), 3 (along the longer side) or 10
        (corners, center and their mirror images) crops. averaging: of a video's views: "softmax" or "logits".
    views_per_pass: at most so many at once.
    """

    frozen: bool = False
    head: Annotated[str, OneOf("linear", "attentive", *FRAME_HEADS)] = "linear"
    head_norm: Annotated[str, OneOf("none", "batch", "l2_batch")] = "none"
    head_width: Annotated[int, AtLeast(0)] = 0
    head_layers: Annotated[int, AtLeast(1)] = 1
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

    batch_size: Annotated[int, AtLeast(1)] = 32
    head_lr_factor: Annotated[float, Positive] = 1.0
    layer_decay: Annotated[float, Share] = 1.0

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
        if not self.frozen:
            return "finetune"
        return f"{self.head}_probe" if self.head in FRAME_HEADS else self.head


@dataclass(frozen=True)
class FinetuneProtocol(FinetuneSettings):
    """All that a fine-tuned number depends on. optim: optimizer and schedule, a group of its own in a recipe."""

    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)

    @property
    def learning_rate(self) -> float:
        """base_lr * batch_size / 256, before the factors of head and stages."""
        return self.optim.base_lr * self.batch_size / 256

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for results: flat, as older versions wrote them."""
        own = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return as_older({"finetune": own, "optim": own.pop("optim")})["finetune"]


def resolve_finetune_protocol(
    protocol: FinetuneProtocol, info: BackboneInfo, trained_stage: str | None = None, *, per_frame: bool = True
) -> FinetuneProtocol:
    """The protocol with every automatic value filled in for this backbone.

    Args:
        trained_stage: the deepest stage that pretraining trained; None where all are (or none is).
        per_frame: whether the network sees each frame by itself.

    Raises:
        RecipeError: values that make no sense or that the backbone cannot take; all of them at once.
    """
    crop_px, resize_px = sides(protocol.crop_px, protocol.resize_px, info)
    trained = trained_stage or info.stage_names[-1]
    filled = replace(protocol, crop_px=crop_px, resize_px=resize_px, stage=protocol.stage or trained)
    problems = [
        *size_problems(filled, info, "finetune."),
        *_combinations(filled),
        *_color_problem(filled, info),
        *_stage_problem(filled, info, trained),
        *frame_head_problems(filled.head, filled.num_frames, filled.stage, info, per_frame),
    ]
    problems += all_problems(filled.optim, "optim.", plan_problems(filled.optim))
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


def _combinations(p: FinetuneProtocol) -> Iterator[str]:
    """Values that do not fit, or do nothing, beside another one."""
    steps = p.optim.step_epochs
    if (not steps) == (p.optim.schedule == "step"):
        rule = "belong to optim.schedule=step, and to it alone"
        yield told("optim.step_epochs", steps, rule, [] if steps else [30])
    checks: list[tuple[str, bool, str, Any]] = [
        ("jitter", p.jitter[3] <= 0.5, "must have a hue of at most 0.5", [0, 0, 0, 0]),
        ("head_norm", p.head_norm == "none" or p.head == "linear", "is for finetune.head=linear", "none"),
        (
            "head_width",
            not p.head_width or p.head in HEADS_OF_A_WIDTH,
            f"is for finetune.head={' or '.join(HEADS_OF_A_WIDTH)}",
            0,
        ),
        (
            "head_layers",
            p.head_layers == 1 or p.head in HEADS_OF_LAYERS,
            f"is for finetune.head={' or '.join(HEADS_OF_LAYERS)}",
            1,
        ),
        ("layer_decay", p.layer_decay == 1 or not p.frozen, "does nothing where finetune.frozen is true", 1),
        ("refit", not p.refit or p.holdout_fraction > 0, "needs a held-out part to choose the epochs on", "false"),
    ]
    for name, fine, rule, way_out in checks:
        if not fine:
            yield told(f"finetune.{name}", getattr(p, name), rule, way_out)


def _color_problem(p: FinetuneProtocol, info: BackboneInfo) -> list[str]:
    if any(p.jitter) and info.in_channels != RGB_CHANNELS:
        rule = f"changes colors, and backbone {info.name} takes clips of flow, which have none"
        return [told("finetune.jitter", p.jitter, rule, [0, 0, 0, 0])]
    return []


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


class FrameHeadKeys(NamedTuple):
    """What the options of a head over frames are called, for the texts of errors."""

    head: str = "finetune.head"
    num_frames: str = "finetune.num_frames"
    stage: str = "finetune.stage"
    way_out: str = "Set finetune.head=linear, or take a network that sees frames (resnet18; ssvid backbones)."


def frame_head_problems(
    head: str, num_frames: int, stage: str, network: BackboneInfo, per_frame: bool, keys: FrameHeadKeys | None = None
) -> Iterator[str]:
    """What the clip or the network does not give a head over frames; nothing where the head is another one.

    Args:
        stage: whose map it takes. per_frame: whether the network sees each frame by itself.
    """
    keys = keys or FrameHeadKeys()
    if head not in FRAME_HEADS or stage not in network.stage_names:
        return
    if num_frames < FRAME_HEADS[head]:
        rule = f"must be at least {FRAME_HEADS[head]} for {keys.head}={head}, which brings frames together"
        yield told(keys.num_frames, num_frames, rule, network.num_frames)
    stride = network.stage(stage).stride_time
    if stride != 1:
        fine = [one.name for one in network.stages if one.stride_time == 1]
        earlier = (
            f" Or set {keys.stage}={fine[-1]}, which has one for each frame." if fine and head != "average" else ""
        )
        yield (
            f"{keys.head} ({head!r}) needs a map for each frame, and backbone {network.name} has at {stage} one for every "
            f"{stride} frames: it has brought them together already. {keys.way_out}{earlier}"
        )
    elif head == "average" and not per_frame:
        yield (
            f"{keys.head} ({head!r}) classifies single frames, and backbone {network.name} lets frames see each other before "
            f"{stage} ends. {keys.way_out}"
        )
