"""Several pretext tasks on one backbone, as one task that is built from any registered ones.

Each member keeps its own views, targets, head, placebo and metrics. Every name of a member starts with its label: keys of a
sample and metrics (``speediness/accuracy``), weights (``task.speediness.head.weight``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from torch import Tensor

from ssvid.bounds import OneOf, check
from ssvid.errors import RecipeError
from ssvid.tasks import BatchRandom, PretextTask
from ssvid.transforms import Cut, CutFirst, Cuts, cuts_of
from ssvid.types import MODALITIES, ClipMaker, ClipPlan, TaskOutput, VideoInfo

if TYPE_CHECKING:
    from torchmetrics import Metric

    from ssvid.backbones import Backbone, BackboneInfo


@dataclass(frozen=True)
class CompositeConfig:
    """How several tasks share the training.

    schedule: ``sum``: every step trains all tasks on the weighted sum of their losses; ``alternate``: every step trains
        one task, drawn with probability proportional to its weight, the same one on all devices.
    videos: ``same``: the tasks take their views from one video, which is read once; ``own``: from a video each.
    """

    schedule: Annotated[str, OneOf("sum", "alternate")] = "sum"
    videos: Annotated[str, OneOf("same", "own")] = "same"


@dataclass(frozen=True)
class Member:
    """One task of a composite. label: its name in metrics and weights. weight: of its loss, or of its turn."""

    label: str
    task: PretextTask
    weight: float = 1.0


# ---- worker side -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CompositePlan(ClipPlan):
    """The members' plans; ``views`` and ``targets`` are theirs one after the other."""

    parts: Mapping[str, ClipPlan] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Mapping[str, ClipPlan]) -> CompositePlan:
        """Join plans, by label."""
        views = tuple(view for plan in parts.values() for view in plan.views)
        targets = {f"{label}/{name}": value for label, plan in parts.items() for name, value in plan.targets.items()}
        return cls(views, targets, dict(parts))


class CompositeClips(CutFirst):
    """The plans and samples of several clip makers side by side, each with random draws of its own.

    Args:
        makers: by label. turns: the probability with which each member is the only one of a batch; None: all are in all.
        own_videos: each member takes a video of its own.
    """

    def __init__(
        self, makers: Mapping[str, ClipMaker], turns: Sequence[float] | None = None, own_videos: bool = False
    ) -> None:
        self.makers, self.turns, self.own_videos = dict(makers), turns, own_videos

    @property
    def min_frames(self) -> int:
        """What the most demanding member needs."""
        return max(maker.min_frames for maker in self.makers.values())

    @property
    def signals(self) -> tuple[str, ...]:
        """Per-frame measurements that any member plans from."""
        return tuple(dict.fromkeys(name for maker in self.makers.values() for name in getattr(maker, "signals", ())))

    @property
    def video_makers(self) -> tuple[ClipMaker, ...]:
        """One clip maker for each video of a sample; empty where all views come from one video."""
        if not self.own_videos or self.turns is not None:
            return ()
        return tuple(CompositeClips({label: maker}) for label, maker in self.makers.items())

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> CompositePlan:
        """The plans of all members, or of the one whose turn it is in this batch."""
        labels = list(self.makers)
        if self.turns is not None:
            labels = [labels[int(batch_rng.spawn(1)[0].choice(len(labels), p=self.turns))]]
        draws = _draws(labels, rng, batch_rng)
        return CompositePlan.of({label: self.makers[label].plan(video, *draws[label]) for label in labels})

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """The members' cuts, one after the other; of their samples each key stands under ``label/key``."""
        if not isinstance(plan, CompositePlan):
            raise TypeError(f"plan ({type(plan).__name__}) must be one that CompositeClips.plan made.")
        draws = _draws(list(plan.parts), rng, batch_rng)
        parts = {
            label: cuts_of(self.makers[label], height, width, part, *draws[label]) for label, part in plan.parts.items()
        }
        wanted: list[Cut] = []
        num_views = 0
        for label, cuts in parts.items():
            wanted += [cut._replace(view=cut.view + num_views) for cut in cuts.wanted]
            num_views += len(plan.parts[label].views)
        return Cuts(tuple(wanted), partial(_joined, parts))


def _joined(parts: Mapping[str, Cuts], cuts_TCHW: tuple[Tensor, ...]) -> dict[str, Tensor]:
    clips = iter(cuts_TCHW)
    sample: dict[str, Tensor] = {}
    for label, cuts in parts.items():
        made = cuts.finish(tuple(next(clips) for _ in cuts.wanted))
        sample |= {f"{label}/{key}": value for key, value in made.items()}
    return sample


def _draws(
    labels: Sequence[str], rng: np.random.Generator, batch_rng: np.random.Generator
) -> dict[str, tuple[np.random.Generator, np.random.Generator]]:
    """Generators for each member: what one draws does not move what the next one draws."""
    return dict(zip(labels, zip(rng.spawn(len(labels)), batch_rng.spawn(len(labels)), strict=True), strict=True))


# ---- device side -----------------------------------------------------------------------------------------------------


class CompositeTask(PretextTask):
    """Trains one backbone on several pretext tasks at once.

    Args:
        members: at least one; labels differ. config: how they share the steps and the videos.

    Raises:
        RecipeError: a weight is not positive, a label is taken or no name, an option is unknown.
    """

    Config = CompositeConfig

    def __init__(self, members: Sequence[Member], config: CompositeConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_members(members, config)
        total = sum(member.weight for member in members)
        self.weights = {member.label: member.weight for member in members}
        self.turns = {label: weight / total for label, weight in self.weights.items()}
        for member in members:
            if hasattr(self, member.label):
                raise RecipeError(f"tasks: label {member.label!r} is taken by ssvid itself. Set another label.")
            self.add_module(member.label, member.task)
        self.modalities = tuple(m for m in MODALITIES if all(m in member.task.modalities for member in members))
        self.reverses_time = any(member.task.reverses_time for member in members)
        self.needs_whole_batch = any(member.task.needs_whole_batch for member in members)
        self.smaller_is_better = tuple(
            f"{member.label}/{name}" for member in members for name in ("loss", *member.task.smaller_is_better)
        )
        depths = {backbone.depth(backbone.stage(member.task.stage).name) for member in members}
        self.stage = backbone.stage_names[max(depths)]

    @property
    def members(self) -> dict[str, PretextTask]:
        """The tasks by label."""
        return {label: self.get_submodule(label) for label in self.weights}  # type: ignore[misc]

    @property
    def alternates(self) -> bool:
        """Whether each training step trains one member alone."""
        return self.config.schedule == "alternate"

    def chance(self) -> Mapping[str, float]:
        return {f"{label}/{name}": c for label, task in self.members.items() for name, c in task.chance().items()}

    def clip_maker(self, training: bool) -> CompositeClips:
        """In validation all members are measured on every batch, whoever's turn it would be."""
        makers = {label: task.clip_maker(training) for label, task in self.members.items()}
        turns = tuple(self.turns.values()) if training and self.alternates else None
        return CompositeClips(makers, turns, own_videos=self.config.videos == "own")

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        draws = _device_draws(list(self.members), rng)
        return self._each(batch, lambda label, task, part: task.augment(part, draws[label]))

    def placebo(self, batch: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Each member's own placebo, on the videos that the member takes its views from."""
        draws = dict(zip(self.members, rng.spawn(len(self.weights)), strict=True))
        numbers = batch.get("video_numbers")
        own: dict[str, Any] = {label: {} for label in self.weights}
        if numbers is not None and numbers.shape[1] == len(own):  # each member has a video of its own
            own = {label: {"video_numbers": numbers[:, i : i + 1]} for i, label in enumerate(own)}
        return self._each(batch, lambda label, task, part: task.placebo(part | own[label], draws[label]))

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        """L = sum_i w_i L_i; where the tasks alternate, the loss of the one whose turn it is (in validation, its mean)."""
        outputs = {label: task(_part(batch, label), backbone) for label, task in self._present(batch)}
        factors = self.turns if self.alternates else self.weights
        loss = torch.stack([factors[label] * output.loss for label, output in outputs.items()]).sum()
        if len(outputs) < len(self.weights):
            loss = next(iter(outputs.values())).loss + self._nothing(backbone)
        metrics = {f"{label}/{k}": v for label, output in outputs.items() for k, v in output.metrics.items()}
        size = next(len(value) for value in batch.values() if isinstance(value, Tensor))
        metrics |= {f"{label}/loss": output.loss.detach().expand(size) for label, output in outputs.items()}
        scores = {f"{label}/{k}": v for label, output in outputs.items() for k, v in output.scores.items()}
        return TaskOutput(loss, metrics, scores, extras=outputs)

    def setup(self, backbone: Backbone) -> None:
        for task in self.members.values():
            task.setup(backbone)

    def prepare(self, samples: Iterable[Mapping[str, Tensor]]) -> None:
        """Each member that measures something gets its own part of the samples."""
        for label, task in self.members.items():
            if type(task).prepare is not PretextTask.prepare:
                task.prepare(_Parts(samples, label))

    def after_step(self, backbone: Backbone, global_step: int) -> None:
        for task in self.members.values():
            task.after_step(backbone, global_step)

    def epoch_metrics(self) -> Mapping[str, Metric]:
        return {f"{label}/{k}": m for label, task in self.members.items() for k, m in task.epoch_metrics().items()}

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        pictures: dict[str, np.ndarray] = {}
        for label, own in output.extras.items():
            drawn = self.members[label].visualize(_part(batch, label), own)
            pictures |= {f"{label}_{name}": picture for name, picture in drawn.items()}
        return pictures

    def _present(self, batch: Mapping[str, Any]) -> Iterator[tuple[str, PretextTask]]:
        """The members that have a part in this batch."""
        return ((label, task) for label, task in self.members.items() if any(k.startswith(f"{label}/") for k in batch))

    def _each(self, batch: Mapping[str, Any], change: Any) -> dict[str, Any]:
        changed = dict(batch)
        for label, task in self._present(batch):
            part = change(label, task, _part(batch, label))
            # What is added (a patch that is cut out on the device) is the member's, too, and what it takes out is gone; what
            # belongs to no member stays so.
            own = {key: value for key, value in part.items() if f"{label}/{key}" in batch or key not in batch}
            changed = {key: value for key, value in changed.items() if not key.startswith(f"{label}/")}
            changed |= {f"{label}/{key}": value for key, value in own.items()}
        return changed

    def _nothing(self, backbone: Backbone) -> Tensor:
        """Zero, by way of every parameter that trains: one without any gradient would stop training on many devices."""
        trained = [p for module in (self, backbone) for p in module.parameters() if p.requires_grad]
        return torch.stack([p.sum() for p in trained]).sum() * 0.0


class _Parts:
    """The samples of one member; can be iterated as often as the samples themselves."""

    def __init__(self, samples: Iterable[Mapping[str, Tensor]], label: str) -> None:
        self.samples, self.label = samples, label

    def __iter__(self) -> Iterator[Mapping[str, Tensor]]:
        for sample in self.samples:
            if any(key.startswith(f"{self.label}/") for key in sample):
                yield _part(sample, self.label)


def _part(batch: Mapping[str, Any], label: str) -> dict[str, Any]:
    """What one member sees: its own keys without the label, and those that belong to no member (tickets, weight)."""
    own = {key.removeprefix(f"{label}/"): value for key, value in batch.items() if key.startswith(f"{label}/")}
    return {key: value for key, value in batch.items() if "/" not in key} | own


def _device_draws(labels: Sequence[str], rng: BatchRandom) -> dict[str, BatchRandom]:
    shared = rng.shared.spawn(len(labels))
    samples = [generator.spawn(len(labels)) for generator in rng.samples]
    return {label: BatchRandom(shared[i], [own[i] for own in samples]) for i, label in enumerate(labels)}


def check_members(members: Sequence[Member], config: CompositeConfig) -> None:
    """Refuse what cannot be composed, all problems at once.

    Raises:
        RecipeError: names each value, the rule and a way out.
    """
    problems = []
    if not members:
        problems.append("tasks is empty: name at least one task.")
    labels = [member.label for member in members]
    for label in sorted(set(labels)):
        if labels.count(label) > 1:
            problems.append(
                f"tasks: {labels.count(label)} of them have the label {label!r}. Set label=... to tell them apart."
            )
        if not label.isidentifier():
            problems.append(f"tasks: label {label!r} must be letters, digits and underscores. Set another label.")
    for member in members:
        if getattr(member.task.clip_maker(training=True), "group_by", None):
            problems.append(
                f"tasks: {member.label} takes pairs of videos, and several tasks share single ones. Train it by itself (task.name)."
            )
        if not 0 < member.weight < float("inf"):
            problems.append(
                f"tasks: the weight of {member.label} ({member.weight:g}) must be positive. Leave the task out instead."
            )
    check(config, "task.options.", problems)
