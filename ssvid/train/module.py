"""The one LightningModule that every pretext task shares. State dict prefixes: ``backbone.`` and ``task.``, no other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from ssvid.backbones import Backbone
from ssvid.data.dataset import tickets_of
from ssvid.errors import SsvidError
from ssvid.tasks import BatchRandom, PretextTask
from ssvid.train.config import OptimConfig
from ssvid.train.optim import build_optimizer, build_schedule
from ssvid.types import Stream, TaskOutput, Ticket

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


def _of_all_ranks(measured: _Measured | None) -> list[_Measured]:
    """What this batch came to on each rank, in rank order; a rank without a sample has nothing. Called on all ranks."""
    parts: list[_Measured | None] = [measured]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        parts = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, measured and measured.on(torch.device("cpu")))
    return [part for part in parts if part is not None]


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
        meta: called when a checkpoint is saved, with (epoch, global step, val_metrics, ood_metrics); plain types.

    Attributes:
        val_metrics, ood_metrics: of the latest validation, on held-out videos and on those from elsewhere.
    """

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
        meta: Callable[[int, int, dict[str, float], dict[str, float]], dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.task = backbone, task
        self.seed, self.optim, self.lr = seed, optim, lr
        self.steps_per_epoch, self.placebo, self.meta = steps_per_epoch, placebo, meta
        self.val_metrics: dict[str, float] = {}
        self.ood_metrics: dict[str, float] = {}
        self.last_output: TaskOutput | None = None
        self.last_batch: dict[str, Any] | None = None
        # Held in a plain dict: as submodules they would add keys to the state dict.
        self._measures: dict[str, _Measures] = {}

    # ---- steps ------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        tickets = tickets_of(batch)
        self._reseed(batch_idx)
        output = self._run(batch, tickets, placebo=self.placebo)
        self.log("train/loss", output.loss.detach(), prog_bar=False)
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
        for part in _of_all_ranks(measured):
            measures.add(part)

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
        self.task.after_step(self.backbone, self.global_step)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self, self.optim, self.lr)
        schedule = build_schedule(optimizer, self.optim, self.steps_per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.meta is not None:
            metrics = dict(self.val_metrics), dict(self.ood_metrics)
            checkpoint["ssvid"] = self.meta(self.current_epoch, self.global_step, *metrics)

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        meta = checkpoint.get("ssvid", {})
        self.val_metrics = dict(meta.get("pretext_metrics", {}))
        self.ood_metrics = dict(meta.get("out_of_domain_metrics", {}))


class StopRun(SsvidError):
    """A run that must end: a loss that is not a number, too many unreadable videos."""
