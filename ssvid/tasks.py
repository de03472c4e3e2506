"""The door through which every pretext task comes in: the base class, the registry, the placebo.

A task is one file on a shelf (``pretext_tasks/`` is ours). It says which frames it needs (``clip_maker``), how a batch
is augmented on the device (``augment``), and what is lost (``forward``). It is handed the backbone and never owns it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ssvid.registry import Registry
from ssvid.types import ClipMaker, Stream, TaskOutput, Ticket, batch_rng, sample_rng

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


class PretextTask(nn.Module):
    """A way to learn from unlabeled video. Subclasses are registered with ``@register_task(name)``.

    Class attributes:
        Config: frozen dataclass of the task's options; its values are checked where they are used.
        targets: names of what the loss is measured against; ``placebo`` permutes exactly these.
        targets_per_view: targets have axes (B, V, ...) and a view can take any view's target.
        must_fall: names of the audit's counterfactuals under which an honest network is at chance ("static" clips).
        must_hold: names of those that must not move an honest network's metric ("reencoded" clips).
        group_by, group_size: samples that must share a batch and a rank, such as pairs of one class.
    Instance attributes:
        stage: the deepest backbone stage that the task consumes (None: the last); later stages are frozen.
    """

    Config: ClassVar[type] = type(None)
    targets: ClassVar[tuple[str, ...]] = ()
    targets_per_view: ClassVar[bool] = False
    must_fall: ClassVar[tuple[str, ...]] = ()
    must_hold: ClassVar[tuple[str, ...]] = ()
    group_by: ClassVar[str | None] = None
    group_size: ClassVar[int] = 1
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

    # ---- optional -----------------------------------------------------------------------------------------------

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """Device side, whole batch: resize, jitter, flip, uint8 to float in [0, 1]. Default: only the last."""
        return {k: v.float() / 255 if _is_uint8(v) else v for k, v in batch.items()}

    def placebo(self, batch: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The batch with its targets permuted over the samples: the control row of every evaluation.

        Raises:
            NotImplementedError: the task names no targets; it must override this.
        """
        if not self.targets:
            raise NotImplementedError(f"{type(self).__name__} names no targets to permute: override placebo().")
        return permute_targets(batch, self.targets, rng, per_view=self.targets_per_view)

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


def _is_uint8(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.uint8


def permute_targets(
    batch: Mapping[str, Any], names: Sequence[str], rng: np.random.Generator, *, per_view: bool = False
) -> dict[str, Any]:
    """Give every sample (or, with ``per_view``, every view of every sample) the target of a random other one.

    One permutation serves all names, so that targets that belong together stay together. Class frequencies are kept.
    """
    changed = dict(batch)
    leading = 2 if per_view else 1
    count = int(np.prod(batch[names[0]].shape[:leading]))
    order = torch.from_numpy(rng.permutation(count))
    for name in names:
        target = batch[name]
        flat = target.flatten(0, leading - 1)
        changed[name] = flat[order.to(target.device)].reshape(target.shape)
    return changed
