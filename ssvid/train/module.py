"""The one LightningModule that every pretext task shares. State dict prefixes: ``backbone.`` and ``task.``, no other."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import MeanMetric, Metric

from ssvid import stopping
from ssvid.backbones import Backbone
from ssvid.data.feed.dataset import tickets_of
from ssvid.errors import SsvidError
from ssvid.tasks import BatchRandom, PretextTask
from ssvid.train.config import OptimConfig
from ssvid.train.optim import build_optimizer, build_schedule
from ssvid.types import Stream, TaskOutput, Ticket
from ssvid.weights.provenance import Provenance

# The prefixes of what is measured on held-out videos and on those from elsewhere, in the order of the trainer's loaders.
VALIDATIONS = ("val", "val_ood")


class _Measures:
    """The metrics of one set of videos over one validation: means over its samples, and the task's epoch metrics.

    Every rank is given the samples of all ranks, in the same order: so all hold the same, a rank without a sample too.
    """

    def __init__(self, metrics: Mapping[str, Metric], device: torch.device) -> None:
        self._metrics = {name: _alone(metric.to(device)) for name, metric in metrics.items()}
        self._means: dict[str, MeanMetric] = {}
        self._device = device
        self._videos: set[int] = set()
        self._labels = {name: torch.zeros(2, device=device) for name, metric in metrics.items() if _is_auc(metric)}

    def add(self, measured: _Measured) -> None:
        """The samples of one batch on one rank."""
        measured = measured.on(self._device)
        self._videos.update(measured.videos)
        values = {"loss": measured.loss.expand(len(measured.videos)), **measured.metrics}
        for name, per_sample in values.items():
            mean = self._means.setdefault(name, _alone(MeanMetric().to(self._device)))
            mean.update(per_sample.float())
        for name, metric in self._metrics.items():
            metric.update(*measured.scores[name])
        for name, labels in self._labels.items():
            is_positive = measured.scores[name][1] > 0
            labels += torch.stack([is_positive.sum(), (~is_positive).sum()])

    def counts(self) -> dict[str, float]:
        """``num_videos``, and for each AUC the positive and negative cases, of which a video counts as one at most."""
        num_videos = len(self._videos)
        counts = {"num_videos": float(num_videos)}
        for name, labels in self._labels.items():
            counts[f"num_positive/{name}"] = float(min(num_videos, int(labels[0])))
            counts[f"num_negative/{name}"] = float(min(num_videos, int(labels[1])))
        return counts

    def results(self) -> dict[str, float]:
        """Name -> value over the samples of all ranks; nothing where there was none."""
        measured = {**self._means, **self._metrics} if self._videos else {}
        return {name: float(metric.compute()) for name, metric in sorted(measured.items())}


class _Measured(NamedTuple):
    """What one batch of a validation came to. videos: the number of each sample's video."""

    videos: list[int]
    loss: Tensor
    metrics: Mapping[str, Tensor]
    scores: Mapping[str, tuple[Any, ...]]

    def on(self, device: torch.device) -> _Measured:
        """The same on another device."""

        def move(value: Any) -> Any:
            return value.detach().to(device) if isinstance(value, Tensor) else value

        metrics = {name: move(value) for name, value in self.metrics.items()}
        scores = {name: tuple(map(move, values)) for name, values in self.scores.items()}
        return _Measured(self.videos, move(self.loss), metrics, scores)


def _is_auc(metric: Metric) -> bool:
    classification = sys.modules.get("torchmetrics.classification")  # not imported for this: that takes seconds
    return classification is not None and isinstance(metric, classification.BinaryAUROC)


def _alone(metric: Any) -> Any:
    """A metric that gathers nothing by itself: torchmetrics cannot where a rank has had no sample."""
    for part in metric.modules():
        if isinstance(part, Metric):
            part.distributed_available_fn = lambda: False
    return metric


def _of_all_ranks(own: tuple[_Measured | None, bool]) -> list[tuple[_Measured | None, bool]]:
    """What this batch came to on each rank, in rank order, and whether the rank wants to stop. Called on all ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [own]
    measured, wants_to_stop = own
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, (measured and measured.on(torch.device("cpu")), wants_to_stop))
    return parts


def _counted(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch without the samples of weight 0: those that an idle rank was handed, or that could not be read."""
    counts_B = batch["weight"] > 0
    if bool(counts_B.all()):
        return batch
    return {k: v[counts_B] if isinstance(v, Tensor) and len(v) == len(counts_B) else v for k, v in batch.items()}


class PretrainModule(pl.LightningModule):
    """Trains a backbone on a pretext task.

    Args:
        backbone, task: what is trained; the task is handed the backbone in every step.
        seed: of the recipe. optim: the recipe's group. lr: the learning rate after scaling.
        steps_per_epoch: optimizer steps, for the schedule. placebo: train on wrong answers, those of other videos.
        provenance: what a checkpoint says of the weights, but how far they are.

    Attributes:
        val_metrics, ood_metrics: of the latest validation, on held-out videos and on those from elsewhere.
    """

    options = "optim."  # what stands before the names of the optimizer's options in a recipe

    def __init__(
        self,
        backbone: Backbone,
        task: PretextTask,
        *,
        seed: int,
        optim: OptimConfig,
        lr: float,
        steps_per_epoch: int,
        placebo: bool = False,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.task = backbone, task
        self.seed, self.optim, self.lr = seed, optim, lr
        self.steps_per_epoch, self.placebo, self.provenance = steps_per_epoch, placebo, provenance
        self.val_metrics: dict[str, float] = {}
        self.ood_metrics: dict[str, float] = {}
        self.last_output: TaskOutput | None = None
        self.last_batch: dict[str, Any] | None = None
        self.skipped = SkippedSteps()
        self.asked_to_stop = False
        # Held in plain containers: as submodules or buffers they would add keys to the state dict.
        self._measures: dict[str, _Measures] = {}
        self._before: list[Tensor] = []
        self._loss_is_bad = torch.zeros((), dtype=torch.bool)

    # ---- steps ------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        tickets = tickets_of(batch)
        self._reseed(batch_idx)
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self._begin_step()
        output = self._run(batch, tickets, placebo=self.placebo)
        loss = output.loss.detach()
        self._loss_is_bad |= ~torch.isfinite(loss)
        self.log("train/loss", loss, prog_bar=False)
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        for name, values in output.metrics.items():
            self.log(f"train/{name}", values.mean().detach())
        return output.loss

    def on_validation_epoch_start(self) -> None:
        self._measures = {}

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        series = VALIDATIONS[dataloader_idx]
        if series not in self._measures:
            self._measures[series] = self.new_measures()
        self.measure(batch, self._measures[series])

    def new_measures(self) -> _Measures:
        """What the metrics of one set of videos are collected in."""
        return _Measures(self.task.epoch_metrics(), self.device)

    def measure(self, batch: dict[str, Any], measures: _Measures) -> None:
        """Answer a batch of held-out videos and add what all ranks' came to. Called on all ranks."""
        batch = _counted(batch)
        tickets = tickets_of(batch)
        measured = None
        self.last_batch = self.last_output = None
        if tickets:
            output = self.answer(batch)
            measured = _Measured([t.index for t in tickets], output.loss, output.metrics, output.scores)
        parts = _of_all_ranks((measured, stopping.is_overdue()))
        for part, _ in parts:
            if part is not None:
                measures.add(part)
        if any(is_overdue for _, is_overdue in parts):  # the steps are saved, and the next run validates again
            raise stopping.StopNow

    def answer(self, batch: dict[str, Any]) -> TaskOutput:
        """What the network says of a batch as a worker makes it."""
        return self._run(batch, tickets_of(batch), placebo=False)

    def num_measured(self) -> dict[str, float]:
        """How many held-out videos the validation that is going on has measured, over all ranks; of AUCs, of each class."""
        series = VALIDATIONS[0]
        return self._measures[series].counts() if series in self._measures else {}

    def on_validation_epoch_end(self) -> None:
        found = {series: self._measures[series].results() for series in VALIDATIONS if series in self._measures}
        self._measures = {}
        if self.trainer.sanity_checking:
            return
        self.val_metrics, self.ood_metrics = (found.get(series, {}) for series in VALIDATIONS)
        for series, results in found.items():
            for name, value in results.items():
                # Of the samples of all ranks: the same number everywhere.
                self.log(f"{series}/{name}", value, rank_zero_only=False, sync_dist=False)

    def _run(self, batch: dict[str, Any], tickets: list[Ticket], *, placebo: bool) -> TaskOutput:
        draws = BatchRandom.of(self.seed, tickets)
        with torch.no_grad():
            batch = self.task.augment(batch, draws)
            if placebo:
                # Not the shared draws: micro-batches would all get the same ones.
                batch = self.task.placebo(batch, draws.samples[0])
        output: TaskOutput = self.task(batch, self.backbone)
        self.last_batch, self.last_output = batch, output
        return output

    def _reseed(self, batch_idx: int) -> None:
        """Dropout and the like draw the same numbers after a restart: torch is seeded by step, micro-batch and rank."""
        words = [self.seed, int(Stream.TRAIN), self.global_step, batch_idx, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))

    # ---- Lightning's hooks ------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """The rate of the coming step is that of the plan, also where the checkpoint was written under a shorter one."""
        for config in self.trainer.lr_scheduler_configs:
            schedule: Any = config.scheduler
            for group, base, factor in zip(
                schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
            ):
                group["lr"] = base * factor(schedule.last_epoch)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if not self.skipped.in_a_row:
            self.task.after_step(self.backbone, self.global_step)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """The last moment before the optimizer moves: all ranks look at the gradient, and at whether they are to stop.

        A step with a loss or gradient that is not finite is left out: weights, optimizer and buffers stay as they were
        before it, while the counters, the schedule and the samples go on. So a resumed run does the same.

        Raises:
            StopRun: ``optim.max_skipped_steps`` in a row were left out, and one more would be.
        """
        del gradient_clip_algorithm
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        is_bad, self.asked_to_stop = self._agree(self._loss_is_bad | ~torch.isfinite(norm), bool(stopping.requested()))
        self.skipped = self.skipped.after(is_bad)
        if is_bad:
            optimizer.zero_grad(set_to_none=True)  # an optimizer passes by what has no gradient
            self._restore_buffers()
            self._check_skipped(float(norm))
        elif gradient_clip_val:
            torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)

    def _agree(self, *facts: Tensor | bool) -> list[bool]:
        """Each fact: whether it holds on any rank. The only time in a step that the host waits for the device."""
        facts_N = torch.stack([torch.as_tensor(fact, dtype=torch.int32, device=self.device) for fact in facts])
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(facts_N, op=torch.distributed.ReduceOp.MAX)
        return [bool(fact) for fact in facts_N.tolist()]

    def _begin_step(self) -> None:
        """Remember the buffers: a forward pass moves the statistics of batch normalization, also one with a NaN."""
        self._loss_is_bad = torch.zeros((), dtype=torch.bool, device=self.device)
        own = list(self.buffers())
        if [b.shape for b in own] != [b.shape for b in self._before]:
            self._before = [torch.empty_like(b) for b in own]
        _copy_all(own, self._before)

    def _restore_buffers(self) -> None:
        _copy_all(self._before, list(self.buffers()))

    def _check_skipped(self, norm: float) -> None:
        if self.skipped.in_a_row <= self.optim.max_skipped_steps:
            return
        raise shared(
            StopRun(
                f"the loss or its gradient (norm {norm:g}) was not finite at step {self.global_step + 1}"
                + (f" and at the {self.optim.max_skipped_steps} steps before" if self.optim.max_skipped_steps else "")
                + f". These steps moved nothing, and the last checkpoint is kept. Lower {self.options}base_lr, set "
                f"{self.options}grad_clip_norm=1, or trainer.precision=32."
            )
        )

    def configure_optimizers(self) -> Any:
        optimizer = self.new_optimizer()
        schedule = build_schedule(optimizer, self.optim, self.steps_per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def new_optimizer(self) -> Optimizer:
        """Over all that is trained."""
        return build_optimizer(self.backbone, self.task, self.optim, self.lr)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.provenance is not None:
            now = replace(
                self.provenance,
                epoch=self.current_epoch,
                global_step=self.global_step,
                pretext_metrics=self.val_metrics,
                out_of_domain_metrics=self.ood_metrics,
            )
            checkpoint["ssvid"] = now.to_checkpoint() | {"skipped_steps": self.skipped._asdict()}

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        meta = checkpoint.get("ssvid", {})
        self.val_metrics = dict(meta.get("pretext_metrics", {}))
        self.ood_metrics = dict(meta.get("out_of_domain_metrics", {}))
        self.skipped = SkippedSteps(**meta.get("skipped_steps", {}))


@torch.no_grad()
def _copy_all(values: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    """Copy tensors into others of the same shapes, in one kernel for each type."""
    for dtype in {value.dtype for value in values}:
        pairs = [(a, b) for a, b in zip(into, values, strict=True) if b.dtype == dtype]
        torch._foreach_copy_([a for a, _ in pairs], [b for _, b in pairs])


class SkippedSteps(NamedTuple):
    """Optimizer steps that were left out because their loss or gradient was not finite: in all, and the latest in a row."""

    total: int = 0
    in_a_row: int = 0

    def after(self, is_bad: bool) -> SkippedSteps:
        """The counts after one more step."""
        return SkippedSteps(self.total + is_bad, self.in_a_row + 1 if is_bad else 0)


class StopRun(SsvidError):
    """A run that must end: losses that are not finite, too many unreadable videos."""


def shared(error: SsvidError) -> SsvidError:
    """An error that all ranks raise at the same place; the first one tells it."""
    error.is_shared = True
    return error
